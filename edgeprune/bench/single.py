"""Model files named one by one: what must be known of them to time them, read from the files themselves."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path, PurePath

import numpy as np

from edgeprune.artifact import RUNTIME_OF_FORMAT, Artifact, Beside
from edgeprune.errors import MissingExtraError, UsageError
from edgeprune.files import sha256_of

_CHANNELS = (1, 3, 4)
"""What an image's channels can be; tells a file's layout where its two ends differ."""
_IMAGES = 8


def single_files(paths: Sequence[Path]) -> tuple[Artifact, ...]:
    """The files as artifacts, the first of them as the baseline.

    Args:
        paths: of one format and one input shape.

    Raises:
        UsageError: a file cannot be read, takes no image, or does not go with the first.
        MissingExtraError: the package that reads the format is not installed.
    """
    found = tuple(_artifact(path, "baseline" if at == 0 else "pruned") for at, path in enumerate(paths))
    for one in found[1:]:
        if (one.format, one.input_shape) != (found[0].format, found[0].input_shape):
            raise UsageError(
                f"not of the first file's kind: {one.format} with images of {list(one.input_shape)}, "
                f"not {found[0].format} with {list(found[0].input_shape)}",
                where=one.path,
                fix="Bench files of one format and input together; they are timed in turns.",
            )
    return found


def made_up_images(shape: tuple[int, int, int]) -> np.ndarray:
    """Normal noise, the same each time, float32 [8, *shape]: for files of which no images are known."""
    return np.random.default_rng(0).standard_normal((_IMAGES, *shape)).astype(np.float32)


def _artifact(path: Path, role: str) -> Artifact:
    kind = path.suffix.lstrip(".")
    if kind not in RUNTIME_OF_FORMAT:
        raise UsageError(
            "neither a run nor a model file",
            where=str(path),
            fix="Name RUN, FILE.onnx or FILE.tflite.",
        )
    if not path.is_file():
        raise UsageError("there is no such file", where=str(path), fix="Check the path.")
    try:
        shape, names = _onnx_facts(path) if kind == "onnx" else (_tflite_shape(path), [])
    except ImportError as error:
        raise MissingExtraError("tflite", f"reading {path.name}") from error
    except Exception as error:  # parsers of either format raise what they like
        raise UsageError(
            f"not a model file: {type(error).__name__}: {error}", where=str(path), fix="Write it anew."
        ) from error
    if len(shape) != 4:
        raise UsageError(
            f"its input is of {list(shape)}, not one image", where=str(path), fix="Only images can be fed."
        )
    beside = _beside(path, names)
    first = shape[1] in _CHANNELS and not (shape[3] in _CHANNELS and kind == "tflite")
    image = (shape[1], shape[2], shape[3]) if first else (shape[3], shape[1], shape[2])
    return Artifact(
        path=str(path.resolve()),
        sha256=_digest([sha256_of(path), *(one.sha256 for one in beside)]),
        bytes=path.stat().st_size + sum(one.bytes for one in beside),
        role="baseline" if role == "baseline" else "pruned",
        format=kind,
        precision="",
        input_shape=image,
        layout="NCHW" if first else "NHWC",
        macs=0,
        parameters=0,
        beside=beside,
    )


def _beside(path: Path, names: Sequence[str]) -> tuple[Beside, ...]:
    """The files of weights that a file names, which must lie beside it: they travel to the device with it."""
    for name in names:
        within = not PurePath(name).is_absolute() and ".." not in PurePath(name).parts
        if not within or not (path.parent / name).is_file():
            what = f"its weights are in {name!r}, which is not beside it"
            raise UsageError(what, where=str(path), fix="Put both files into one folder, as they were written.")
    return tuple(Beside.of(path.parent, name) for name in names)


def _digest(digests: Sequence[str]) -> str:
    """What tells a file from others: of one with files beside it, theirs count, for it may not tell of its weights."""
    return digests[0] if len(digests) == 1 else sha256("".join(digests).encode()).hexdigest()


def _onnx_facts(path: Path) -> tuple[tuple[int, ...], list[str]]:
    """The input's shape, and the names of the files in which its weights are."""
    import onnx
    from onnx.external_data_helper import ExternalDataInfo, uses_external_data

    model = onnx.load(path, load_external_data=False)
    stored = {tensor.name for tensor in model.graph.initializer}
    entry = next(one for one in model.graph.input if one.name not in stored)
    names = {ExternalDataInfo(tensor).location for tensor in model.graph.initializer if uses_external_data(tensor)}
    # An open axis is the batch's.
    return tuple(axis.dim_value or 1 for axis in entry.type.tensor_type.shape.dim), sorted(names)


def _tflite_shape(path: Path) -> tuple[int, ...]:
    from ai_edge_litert.interpreter import Interpreter

    return tuple(int(size) for size in Interpreter(model_path=str(path)).get_input_details()[0]["shape"])
