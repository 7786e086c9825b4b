"""Parity: does a file compute what the model computes? Asked of the file itself, in its runtime, on real images."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from edgeprune.artifact import Artifact, Parity
from edgeprune.errors import ParityError, UsageError
from edgeprune.export.execute import Array, failed, outputs_of, witness_of
from edgeprune.model import Model

BATCH = 16
"""Images per pass of the torch model: bounds memory, changes no result."""
WITNESSED = 2
"""How many images a second implementation of the format is asked about."""


@dataclass(frozen=True)
class Tolerance:
    """How far a file may be from its model.

    Attributes:
        max_rel: bound on the largest difference, as a share of the model's largest output value; infinite for none.
        near_tie: classes that the model holds this near, as a share of its largest output value, count as the same.
        top1_agreement: least share of images with the same highest class.
        cosine: least cosine of the angle between an output and the model's, the mean over the images.
    """

    max_rel: float
    near_tie: float
    top1_agreement: float
    cosine: float = -1.0


TOLERANCES: Mapping[str, Tolerance] = {
    # Both sides compute in float32 and differ in the order of sums only: 4e-7 to 2e-6 measured on the networks of
    # models/, both formats. A slight real fault, a batch norm's epsilon of 1e-3 taken for 1e-5, makes 6e-3 and more.
    # Two values each off by max_rel may change places, hence the factor 2.
    "fp32": Tolerance(max_rel=1e-4, near_tie=2e-4, top1_agreement=1.0),
    # Each value is rounded to 11 bits, 5e-4 of itself at most, layer after layer.
    "fp16": Tolerance(max_rel=5e-2, near_tie=5e-2, top1_agreement=0.95, cosine=0.999),
    # A value in 256 steps says little of the worst of all values; a fault in the graph or in its scales takes the
    # whole output elsewhere. What is left of accuracy is told beside the file, in the report.
    "int8": Tolerance(max_rel=float("inf"), near_tie=1e-1, top1_agreement=0.8, cosine=0.9),
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

    @property
    def cosine(self) -> float:
        """Of the angle between what the model and what the file gives, the mean over the images."""
        pair = [values.reshape(len(values), -1).astype(np.float64) for values in (self.expected, self.got)]
        lengths = np.linalg.norm(pair[0], axis=1) * np.linalg.norm(pair[1], axis=1)
        products = (pair[0] * pair[1]).sum(axis=1) / np.where(lengths > 0, lengths, 1.0)
        nothing = ~(pair[0].any(axis=1) | pair[1].any(axis=1))
        return min(1.0, float(np.where(nothing, 1.0, products).mean()))


def check(artifact: Artifact, run: Path, model: Model, images: Array) -> Artifact:
    """Compare a file with the model it was made from.

    Args:
        artifact: the file, of which `path` is in the folder `run`.
        run: the run folder.
        model: what the file should compute.
        images: normalised as the model wants them, float32 [n >= 1, channels, height, width].

    Returns:
        The artifact with its parity; of a TFLite file its details also hold a `witness`.

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
    outputs = _pair(artifact, expected, outputs_of(artifact, run, images))
    worst = max(outputs, key=lambda output: output.max_rel)
    agreement = float(np.mean(np.all([_same_class(output, tolerance.near_tie) for output in outputs], axis=0)))
    if worst.max_rel > tolerance.max_rel:
        raise _beyond(artifact, worst, tolerance)
    if agreement < tolerance.top1_agreement:
        raise failed(
            artifact,
            f"{agreement:.1%} of {len(images)} images keep their highest class, {tolerance.top1_agreement:.1%} must",
        )
    cosine = min(output.cosine for output in outputs)
    if cosine < tolerance.cosine:
        raise failed(artifact, f"cosine to the model's outputs {cosine:.4f}; at least {tolerance.cosine} is wanted")
    max_abs = max(float(output.difference.max(initial=0.0)) for output in outputs)
    bound = tolerance.max_rel if np.isfinite(tolerance.max_rel) else None
    parity = Parity(len(images), max_abs, worst.max_rel, agreement, bound, True, cosine)
    details = {**artifact.details, **_witnessed(artifact, run, images, expected, tolerance)}
    return dataclasses.replace(artifact, parity=parity, details=details)


def _witnessed(
    artifact: Artifact, run: Path, images: Array, expected: list[Array], tolerance: Tolerance
) -> dict[str, Any]:
    """What a second implementation of the format makes of the file, if there is one, held to the same bounds.

    Its plain loops take seconds for an image of a large network, hence the few images.

    Raises:
        ParityError: it is further from the model than the precision allows.
    """
    few = images[:WITNESSED]
    got = witness_of(artifact, run, few)
    if got is None:
        return {}
    outputs = _pair(artifact, [values[:WITNESSED] for values in expected], got)
    max_rel, cosine = max(output.max_rel for output in outputs), min(output.cosine for output in outputs)
    if max_rel > tolerance.max_rel or cosine < tolerance.cosine:
        raise failed(
            artifact,
            f"{artifact.runtime} computes what the model computes, but the format's reference kernels are off by "
            f"{max_rel:.2g} of the largest output, cosine {cosine:.4f}",
        )
    return {"witness": {"kernels": "reference", "images": len(few), "max_rel": max_rel, "cosine": cosine}}


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


def _pair(artifact: Artifact, expected: list[Array], got: list[Array]) -> list[_Output]:
    """Both sides' outputs together, once shapes and finiteness are as they must be."""
    shapes = [[list(values.shape[1:]) for values in side] for side in (expected, got)]
    if shapes[0] != shapes[1]:
        raise failed(artifact, f"outputs per image have shapes {shapes[1]}, the model's have {shapes[0]}")
    for place, values in enumerate(got):
        if len(unfinite := np.argwhere(~np.isfinite(values))):
            raise failed(
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
    return failed(
        artifact,
        f"image {image}, output {worst.place}{index}: expected {worst.expected[here]:.6g}, got {worst.got[here]:.6g}; "
        f"off by {worst.max_rel:.2g} of the largest output, {tolerance.max_rel:.2g} is tolerated",
    )
