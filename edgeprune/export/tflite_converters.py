"""Which converter makes a TFLite file: litert-torch straight from the graph, or TensorFlow from ONNX."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeprune.errors import ExportError, MissingExtraError
from edgeprune.export.goal import Goal
from edgeprune.export.litert import litert_file
from edgeprune.export.once import made_once
from edgeprune.export.onnx import named_weights, one_image_onnx
from edgeprune.export.race import Race
from edgeprune.export.tensorflow_graph import tensorflow_file
from edgeprune.export.tflite_mixed import Weights, judged_file, settled_file
from edgeprune.export.tflite_quantise import quantised, quantiser
from edgeprune.model import Model
from edgeprune.registry import unknown
from edgeprune.versions import installed

CONVERTERS = ("auto", "litert", "tensorflow")
"""`auto` takes litert-torch where it is installed, and TensorFlow for what that cannot convert."""


@dataclass(frozen=True, eq=False)
class Converted:
    """A TFLite file and how it came to be.

    Attributes:
        content: the file.
        by: the packages that made it, with their versions.
        warnings: each one sentence.
        told: which layers of an int8 file stay in float, and why; see `edgeprune.export.race.settled`.
    """

    content: bytes
    by: Sequence[str]
    warnings: Sequence[str] = ()
    told: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Numbers:
    """What a file computes with; see `edgeprune.export.tflite_quantise.quantised`.

    Attributes:
        precision: "fp32", "fp16", "int8" or "int8-dynamic".
        images: to calibrate int8 with.
        integer_ends: whether input and output are int8.
        goal: how often an int8 file must be right.
        race: where its layers are timed.
    """

    precision: str = "fp32"
    images: npt.NDArray[np.float32] | None = None
    integer_ends: bool = False
    goal: Goal | None = None
    race: Race | None = None


def converted(model: Model, numbers: Numbers, converter: str = "auto") -> Converted:
    """A model as a TFLite file.

    Args:
        model: it is not changed.
        numbers: what to compute with.
        converter: one of `CONVERTERS`.

    Raises:
        UsageError: another converter.
        MissingExtraError: it is not installed.
        ExportError: an operator has no TFLite form.
    """
    if converter not in CONVERTERS:
        raise unknown("--tflite-converter", converter, CONVERTERS)
    if converter == "tensorflow" or (
        converter == "auto" and not _installed("litert_torch") and _installed("tensorflow")
    ):
        return _by_tensorflow(model, numbers)
    try:
        return _by_litert(model, numbers)
    except MissingExtraError:
        raise
    except ExportError as error:
        if converter == "litert" or not _installed("tensorflow"):
            raise
        try:
            other = _by_tensorflow(model, numbers)
        except ExportError:
            raise error from None
        reason = next(iter(error.where.splitlines()), error.what)
        told = f"litert-torch could not convert the model ({reason}); TensorFlow did"
        return replace(other, warnings=(told, *other.warnings))


def _by_litert(model: Model, numbers: Numbers) -> Converted:
    content, by = made_once(model, "litert", litert_file), ["litert-torch"]
    if numbers.precision == "fp32":
        return Converted(content, _versions(by))
    by, told = [*by, "ai-edge-quantizer"], dict[str, Any]()
    if numbers.goal or numbers.race:
        write = quantiser(content, numbers.precision, numbers.images, integer_ends=numbers.integer_ends)
        content, told = settled_file(content, write, _weights(model), numbers.goal, numbers.race)
    else:
        content = quantised(content, numbers.precision, numbers.images, integer_ends=numbers.integer_ends)
    return Converted(content, _versions(by), told=told)


def _weights(model: Model) -> Weights:
    """Those that ONNX names; none if the model has no ONNX form, which is no fault of its TFLite file."""
    try:
        return named_weights(model)
    except ExportError:
        return ()


def _by_tensorflow(model: Model, numbers: Numbers) -> Converted:
    if not _installed("tensorflow"):
        raise MissingExtraError("tensorflow", "TFLite by TensorFlow")
    given = made_once(model, "onnx of one image", one_image_onnx)
    content = tensorflow_file(given, numbers.precision, numbers.images, integer_ends=numbers.integer_ends)
    told = judged_file(content, numbers.goal, numbers.race)[1]  # its quantizer leaves no layer out
    return Converted(content, _versions(["tensorflow", "tensorflow-cpu"]), told=told)


def _installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _versions(packages: Sequence[str]) -> list[str]:
    """Those that are installed: TensorFlow goes by several names."""
    return [f"{package} {version}" for package, version in installed(packages).items()]
