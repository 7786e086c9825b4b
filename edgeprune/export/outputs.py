"""Outputs side by side: how far those of two models are apart, and whether their highest class is the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from edgeprune.artifact import Parity
from edgeprune.errors import ParityError, UsageError
from edgeprune.export.execute import Array
from edgeprune.model import Model

BATCH = 16
"""Images per pass of the torch model: bounds memory, changes no result."""


@dataclass(frozen=True)
class Output:
    """One output for all images.

    Attributes:
        place: of the output among those of the model.
        expected: what the model gives, float32 [n, ...].
        got: what is compared with it, of the same shape.
    """

    place: int
    expected: Array
    got: Array

    @property
    def scale(self) -> float:
        """The largest value that the model gives; 1 if it gives nothing but zeros."""
        return float(np.abs(self.expected).max(initial=0.0)) or 1.0

    @property
    def difference(self) -> Array:
        """Absolute, value by value."""
        difference: Array = np.abs(self.got - self.expected)
        return difference

    @property
    def max_rel(self) -> float:
        """The largest difference, as a share of `scale`."""
        return float(self.difference.max(initial=0.0)) / self.scale

    @property
    def cosine(self) -> float:
        """Of the angle between the two, the mean over the images."""
        pair = [values.reshape(len(values), -1).astype(np.float64) for values in (self.expected, self.got)]
        lengths = np.linalg.norm(pair[0], axis=1) * np.linalg.norm(pair[1], axis=1)
        products = (pair[0] * pair[1]).sum(axis=1) / np.where(lengths > 0, lengths, 1.0)
        nothing = ~(pair[0].any(axis=1) | pair[1].any(axis=1))
        return min(1.0, float(np.where(nothing, 1.0, products).mean()))


def expected_of(model: Model, images: Array) -> list[Array]:
    """What a torch model gives for images, each output float32 [n, ...].

    Args:
        model: in eval mode.
        images: normalised as the model wants them, float32 [n >= 1, channels, height, width].

    Raises:
        UsageError: there are no images.
        ParityError: an output is not a finite number.
    """
    if not len(images):
        raise UsageError("parity needs at least one image")
    expected = _run_model(model, images)
    _require_finite_model(model, expected)
    return expected


def _run_model(model: Model, images: Array) -> list[Array]:
    parameter = next(model.module.parameters(), torch.zeros(0))
    batches: list[list[Array]] = []
    with torch.no_grad():
        for start in range(0, len(images), BATCH):
            batch = torch.from_numpy(np.ascontiguousarray(images[start : start + BATCH])).to(parameter.device)
            leaves = torch.utils._pytree.tree_leaves(model.module(batch))
            batches.append([leaf.float().cpu().numpy() for leaf in leaves])
    return [np.concatenate(parts) for parts in zip(*batches, strict=True)]


def _require_finite_model(model: Model, expected: list[Array]) -> None:
    for place, values in enumerate(expected):
        if len(unfinite := np.argwhere(~np.isfinite(values))):
            raise ParityError(
                f"the torch model {model.name} itself does not give finite numbers",
                where=f"image {unfinite[0][0]}, output {place}: {values[tuple(unfinite[0])]}",
                fix="Check its weights, and that the input's mean and std are those it was trained with.",
            )


def parity_of(outputs: Sequence[Output], near_tie: float, bound: float | None, *, passed: bool) -> Parity:
    """How near two sides' outputs are.

    Args:
        outputs: at least one, for the same images.
        near_tie: classes held this near by what is compared with, as a share of its largest value, count as the same.
        bound: on `max_rel` that was applied; None for none.
        passed: whether they are near enough.
    """
    return Parity(
        images=len(outputs[0].expected),
        max_abs=max(float(output.difference.max(initial=0.0)) for output in outputs),
        max_rel=max(output.max_rel for output in outputs),
        top1_agreement=agreement_of(outputs, near_tie),
        tolerance=bound,
        passed=passed,
        cosine=min(output.cosine for output in outputs),
    )


def agreement_of(outputs: Sequence[Output], near_tie: float) -> float:
    """The share of images whose highest class is the same in every output, 0 to 1."""
    return float(np.mean(np.all([_same_class(output, near_tie) for output in outputs], axis=0)))


def _same_class(output: Output, near_tie: float) -> npt.NDArray[np.bool_]:
    """For each image, whether the highest class (axis 1) is the same, everywhere in the output."""
    expected = output.expected
    if expected.ndim < 2:
        return np.ones(len(expected), dtype=np.bool_)
    chosen = output.got.argmax(axis=1, keepdims=True)
    margin = expected.max(axis=1, keepdims=True) - np.take_along_axis(expected, chosen, axis=1)
    same: npt.NDArray[np.bool_] = (margin <= near_tie * output.scale).reshape(len(expected), -1).all(axis=1)
    return same
