"""Parity: does a file compute what the model computes? Asked of the file itself, in its runtime, on real images."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from edgeprune.artifact import Artifact, Parity
from edgeprune.errors import MissingExtraError, ParityError, UsageError
from edgeprune.export.quiet import quiet
from edgeprune.model import Model

Array = npt.NDArray[np.float32]
Run = Callable[[Array], list[Array]]
"""Computes a file's outputs, in the model's own layout, for images [n, channels, height, width]."""

BATCH = 16
"""Images per pass of the torch model: bounds memory, changes no result."""


@dataclass(frozen=True)
class Tolerance:
    """How far a file may be from its model.

    Attributes:
        max_rel: bound on the largest difference, as a share of the model's largest output value.
        near_tie: classes that the model holds this near, as a share of its largest output value, count as the same.
        top1_agreement: least share of images with the same highest class.
    """

    max_rel: float
    near_tie: float
    top1_agreement: float


TOLERANCES: Mapping[str, Tolerance] = {
    # Both sides compute in float32 and differ in the order of sums only: 4e-7 to 2e-6 measured on the networks of
    # models/, both formats. A slight real fault, a batch norm's epsilon of 1e-3 taken for 1e-5, makes 6e-3 and more.
    # Two values each off by max_rel may change places, hence the factor 2.
    "fp32": Tolerance(max_rel=1e-4, near_tie=2e-4, top1_agreement=1.0),
}
"""What is tolerated, by precision."""


@dataclass(frozen=True)
class _Output:
    """One output for all images: what the model gives, what the file gives."""

    place: int
    expected: Array
    got: Array

    @property
    def scale(self) -> float:
        return float(np.abs(self.expected).max(initial=0.0)) or 1.0

    @property
    def difference(self) -> Array:
        difference: Array = np.abs(self.got - self.expected)
        return difference

    @property
    def max_rel(self) -> float:
        return float(self.difference.max(initial=0.0)) / self.scale


def check(artifact: Artifact, run: Path, model: Model, images: Array) -> Artifact:
    """Compare a file with the model it was made from.

    Args:
        artifact: the file, of which `path` is in the folder `run`.
        run: the run folder.
        model: what the file should compute.
        images: normalised as the model wants them, float32 [n >= 1, channels, height, width].

    Returns:
        The artifact with its parity.

    Raises:
        ParityError: the file cannot be run, gives other shapes, NaN or infinities, or values beyond the tolerance.
        UsageError: there is no tolerance for its precision, or no runtime here for its format.
        MissingExtraError: the format's runtime is not installed.
    """
    if artifact.precision not in TOLERANCES:
        raise UsageError(
            f"no parity tolerance for precision {artifact.precision!r}", fix=f"Known: {', '.join(TOLERANCES)}"
        )
    if not len(images):
        raise UsageError("parity needs at least one image")
    tolerance = TOLERANCES[artifact.precision]
    expected = _run_model(model, images)
    _require_finite_model(model, expected)
    outputs = _pair(artifact, expected, _run_file(artifact, run, images))
    worst = max(outputs, key=lambda output: output.max_rel)
    agreement = float(np.mean(np.all([_same_class(output, tolerance.near_tie) for output in outputs], axis=0)))
    if worst.max_rel > tolerance.max_rel:
        raise _beyond(artifact, worst, tolerance)
    if agreement < tolerance.top1_agreement:
        raise _failed(
            artifact,
            f"{agreement:.1%} of {len(images)} images keep their highest class, {tolerance.top1_agreement:.1%} must",
        )
    max_abs = max(float(output.difference.max(initial=0.0)) for output in outputs)
    parity = Parity(len(images), max_abs, worst.max_rel, agreement, tolerance.max_rel, passed=True)
    return dataclasses.replace(artifact, parity=parity)


def reject(artifact: Artifact, run: Path) -> Path:
    """Take a failed file out of use: it is renamed to `<name>.rejected`, to be looked into; its manifest is removed.

    Returns:
        The new path.
    """
    path = run / artifact.path
    rejected = path.with_name(f"{path.name}.rejected")
    (run / f"{artifact.path}.json").unlink(missing_ok=True)
    with contextlib.suppress(FileNotFoundError):
        path.replace(rejected)
    return rejected


def _run_model(model: Model, images: Array) -> list[Array]:
    parameter = next(model.module.parameters(), torch.zeros(0))
    batches: list[list[Array]] = []
    with torch.no_grad():
        for start in range(0, len(images), BATCH):
            batch = torch.from_numpy(np.ascontiguousarray(images[start : start + BATCH])).to(parameter.device)
            leaves = torch.utils._pytree.tree_leaves(model.module(batch))
            batches.append([leaf.float().cpu().numpy() for leaf in leaves])
    return [np.concatenate(parts) for parts in zip(*batches, strict=True)]


def _run_file(artifact: Artifact, run: Path, images: Array) -> list[Array]:
    """The file's outputs for all images, one image at a time, as a board would."""
    if artifact.format not in _OPENERS:
        raise UsageError(
            f"no runtime here to check a file of format {artifact.format!r}", fix=f"Known: {', '.join(_OPENERS)}"
        )
    try:
        with quiet():
            compute = _OPENERS[artifact.format](run / artifact.path)
            rows = [compute(np.ascontiguousarray(images[place : place + 1])) for place in range(len(images))]
    except (MissingExtraError, MemoryError):
        raise
    except Exception as error:  # runtimes raise unrelated classes for a file they cannot read or run
        reason = next(iter(str(error).splitlines()), type(error).__name__)[:300]
        raise _failed(artifact, f"{artifact.runtime} cannot run it: {reason}") from error
    return [np.concatenate(parts) for parts in zip(*rows, strict=True)]


def _onnxruntime(path: Path) -> Run:
    import onnxruntime

    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def compute(image: Array) -> list[Array]:
        outputs: list[Array] = session.run(None, {name: image})
        return outputs

    return compute


def _litert(path: Path) -> Run:
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise MissingExtraError("tflite", "checking a TFLite file") from error
    interpreter = Interpreter(model_content=path.read_bytes(), num_threads=1)
    interpreter.allocate_tensors()
    where = interpreter.get_input_details()[0]["index"]
    outputs = interpreter.get_output_details()

    def compute(image: Array) -> list[Array]:
        interpreter.set_tensor(where, np.ascontiguousarray(image.transpose(0, 2, 3, 1)))
        interpreter.invoke()
        values: list[Array] = [interpreter.get_tensor(output["index"]) for output in outputs]
        return [value.transpose(0, 3, 1, 2) if value.ndim == 4 else value for value in values]

    return compute


def _pair(artifact: Artifact, expected: list[Array], got: list[Array]) -> list[_Output]:
    """Both sides' outputs together, once shapes and finiteness are as they must be."""
    shapes = [[list(values.shape[1:]) for values in side] for side in (expected, got)]
    if shapes[0] != shapes[1]:
        raise _failed(artifact, f"outputs per image have shapes {shapes[1]}, the model's have {shapes[0]}")
    for place, values in enumerate(got):
        if len(unfinite := np.argwhere(~np.isfinite(values))):
            raise _failed(
                artifact,
                f"image {unfinite[0][0]}, output {place}: got {values[tuple(unfinite[0])]}, not a finite number",
            )
    return [_Output(place, *pair) for place, pair in enumerate(zip(expected, got, strict=True))]


def _require_finite_model(model: Model, expected: list[Array]) -> None:
    for place, values in enumerate(expected):
        if len(unfinite := np.argwhere(~np.isfinite(values))):
            raise ParityError(
                f"the torch model {model.name} itself does not give finite numbers",
                where=f"image {unfinite[0][0]}, output {place}: {values[tuple(unfinite[0])]}",
                fix="Check its weights, and that the input's mean and std are those it was trained with.",
            )


def _same_class(output: _Output, near_tie: float) -> npt.NDArray[np.bool_]:
    """For each image, whether the highest class (axis 1) is the same, everywhere in the output."""
    expected = output.expected
    if expected.ndim < 2:
        return np.ones(len(expected), dtype=np.bool_)
    chosen = output.got.argmax(axis=1, keepdims=True)
    margin = expected.max(axis=1, keepdims=True) - np.take_along_axis(expected, chosen, axis=1)
    same: npt.NDArray[np.bool_] = (margin <= near_tie * output.scale).reshape(len(expected), -1).all(axis=1)
    return same


def _beyond(artifact: Artifact, worst: _Output, tolerance: Tolerance) -> ParityError:
    image, *index = (int(axis) for axis in np.unravel_index(worst.difference.argmax(), worst.difference.shape))
    here = (image, *index)
    return _failed(
        artifact,
        f"image {image}, output {worst.place}{index}: expected {worst.expected[here]:.6g}, got {worst.got[here]:.6g}; "
        f"off by {worst.max_rel:.2g} of the largest output, {tolerance.max_rel:.2g} is tolerated",
    )


def _failed(artifact: Artifact, where: str) -> ParityError:
    return ParityError(
        f"{artifact.path} does not compute what the model computes",
        where=where,
        fix="It is not handed over. Choose another format with --formats, and please report the model.",
    )


_OPENERS: Mapping[str, Callable[[Path], Run]] = {"onnx": _onnxruntime, "tflite": _litert}
