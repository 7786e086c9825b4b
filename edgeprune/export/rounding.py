"""How far off a layer of a file is, beside what the precision of its numbers explains."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from edgeprune.export.execute import Array
from edgeprune.export.layers import FileLayer
from edgeprune.export.pairing import NamedLayer

TOLERATED = {"fp32": 1e-4, "fp16": 1e-2, "int8": 5e-2}
"""By how much a float layer, or an output, may be off, as a share of its largest value. fp32 as a whole file is
tolerated; fp16: inputs and weights are rounded to 11 bits, 5e-4 of each, and sums that nearly cancel show it some ten
times larger; int8: an output that comes after the last layer, rounded a few times to one of 256 values."""
EXPLAINED = 6.0
"""How many times as large as rounding to 8 bits makes it the error of a channel may be, root mean square. Weights are
rounded once and for all: among thousands of channels some are off by four or five standard deviations."""
_BETWEEN = 4
"""How often what a layer reads was rounded since the layer before, at most: by additions, poolings, itself."""


def error_of(
    layer: NamedLayer, found: FileLayer, precision: str, arguments: Sequence[Any], value: Tensor, got: Tensor
) -> float:
    """How far a file's layer is off: infinite if it gives no finite numbers.

    Args:
        layer: of the model.
        found: the same of the file.
        precision: of the file.
        arguments: of the model's operator: what it reads, its weights, ...
        value: what the model's layer makes of that, [1, ...].
        got: what the file's layer put out, of the same shape.

    Returns:
        Of a float file the largest difference, as a share of the largest value. Of an int8 file the root mean square
        of the difference in the channel where it is most, over what rounding to steps of 8 bits leads to expect.
    """
    expected = value.clamp(found.low, found.high)
    if not bool(torch.isfinite(got).all()):
        return float("inf")
    if precision != "int8":
        return _share(expected, got)
    axes = [axis for axis in range(value.ndim) if axis != (1 if layer.channels_first else value.ndim - 1)]
    noise = _variance(found, arguments, layer).expand_as(value).mean(axes)
    floor = (TOLERATED["fp32"] * float(expected.abs().max())) ** 2 + 1e-30
    return float(((got - expected).square().mean(axes) / (noise + floor)).max().sqrt())


def output_error(expected: Tensor, got: Array) -> float:
    """The same of one of the file's outputs, [1, ...], beside what the model makes of its last layers.

    Args:
        expected: what the model gives.
        got: what the file gives, of the same shape without the first axis.
    """
    return _share(expected, torch.from_numpy(got).reshape(expected.shape))


def _share(expected: Tensor, got: Tensor) -> float:
    if not bool(torch.isfinite(got).all()):
        return float("inf")
    return float((got - expected).abs().max() / expected.abs().max().clamp(min=1e-30))


def _variance(found: FileLayer, arguments: Sequence[Any], layer: NamedLayer) -> Tensor:
    """The variance that rounding gives each value a layer puts out.

    Each rounding to steps of s is taken for independent noise of variance s^2 / 12 (Bennett, Bell System Technical
    Journal 27, 1948): of what is read, of the weights, and of what is put out.
    """
    read, weight, steps = arguments[0], arguments[1], found.steps
    step = steps.input or float(read.abs().max()) / 127
    coarse = torch.tensor(steps.weights or (0.0,)).square() / 12
    if len(coarse) > 1:
        transposed = "transpose" in str(layer.node.target)
        shape = [1] * weight.ndim
        shape[1 if transposed else 0] = -1
        fits = len(coarse) == weight.shape[1 if transposed else 0]
        coarse = coarse.reshape(shape) if fits else coarse.max()

    def through(values: Tensor, kernel: Tensor) -> Tensor:
        result: Tensor = layer.node.target(values, kernel, None, *arguments[3:])  # type: ignore[operator]
        return result

    noise = through(torch.full_like(read, _BETWEEN * step**2 / 12), weight.square())
    noise = noise + through(read.square(), coarse.expand_as(weight).contiguous())
    return noise + steps.output**2 / 12
