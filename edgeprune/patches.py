"""A layer as a table of least-squares samples: what it reads, row by row, and what it should put out."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, fx
from torch.nn import functional as F

from edgeprune.program import operator_of

MAX_ROWS = 50_000
"""Samples a layer is fitted on at most; four times as many change the accuracy by less than 0.1 point (0003)."""

_CHUNK_BYTES = 256 << 20


@dataclass(frozen=True, eq=False)
class Rows:
    """Turns images into samples of one layer.

    Attributes:
        node: the operator, `conv2d` with one group or `linear`.
        shape: of its weight.
        images: how many images there will be, to spread `MAX_ROWS` over them.
    """

    node: fx.Node
    shape: tuple[int, ...]
    images: int

    def of(self, x: Tensor, target: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Samples in chunks of bounded memory.

        Args:
            x: the layer's input, float32 [n, inputs, ...].
            target: the output wanted, float32 [n, outputs, ...].

        Yields:
            what the layer's flattened weight is multiplied with, [samples, inputs x taps], and what should come of it,
            [samples, outputs].
        """
        if operator_of(self.node) == "linear":
            yield x.reshape(-1, x.shape[-1]), target.reshape(-1, target.shape[-1])
            return
        step = self._step(x)
        for images, wanted in zip(torch.split(x, step), torch.split(target, step), strict=True):
            rows, chosen = self._sample(images)
            yield rows, wanted.flatten(2).transpose(1, 2).flatten(0, 1)[chosen]

    def inputs(self, x: Tensor) -> Iterator[Tensor]:
        """What the layer's flattened weight is multiplied with, in chunks: the first of what `of` yields."""
        if operator_of(self.node) == "linear":
            yield x.reshape(-1, x.shape[-1])
            return
        for images in torch.split(x, self._step(x)):
            yield self._sample(images)[0]

    def _step(self, x: Tensor) -> int:
        """How many images to take at a time."""
        return max(1, _CHUNK_BYTES // (4 * math.prod(self.shape[1:]) * math.prod(x.shape[2:])))

    def _sample(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Samples of some images, and their places among all of these: evenly over the images and their positions."""
        rows = patches(self.node, images, self.shape)
        most = min(len(rows), max(1, round(MAX_ROWS * len(images) / self.images)))
        chosen = torch.arange(most) * len(rows) // most
        return rows[chosen], chosen


def patches(node: fx.Node, images: Tensor, shape: tuple[int, ...]) -> Tensor:
    """What a two-dimensional convolution multiplies its weight with.

    Args:
        node: `conv2d(input, weight, bias, stride, padding, dilation, groups)` with one group.
        images: float32 [n, inputs, height, width].
        shape: of the weight, (outputs, inputs, tap rows, tap columns).

    Returns:
        float32 [n x positions, inputs x taps]: `patches @ weight.flatten(1).T` is the convolution without bias.
    """
    kernel = (shape[2], shape[3])
    stride, dilation = _pair(node, 3, 1), _pair(node, 5, 1)
    padding = node.args[4] if len(node.args) > 4 else 0
    if isinstance(padding, str):
        gaps = [d * (k - 1) if padding == "same" else 0 for d, k in zip(dilation, kernel, strict=True)]
        images = F.pad(images, (gaps[1] // 2, gaps[1] - gaps[1] // 2, gaps[0] // 2, gaps[0] - gaps[0] // 2))
        pads = (0, 0)
    else:
        pads = _pair(node, 4, 0)
    if kernel == (1, 1) and pads == (0, 0):
        return images[:, :, :: stride[0], :: stride[1]].permute(0, 2, 3, 1).flatten(0, 2)
    columns = F.unfold(images, kernel, dilation, pads, stride)
    return columns.transpose(1, 2).flatten(0, 1)


def _pair(node: fx.Node, place: int, default: int) -> tuple[int, int]:
    """A number or pair of numbers among a convolution's arguments, as a pair."""
    value = node.args[place] if len(node.args) > place else default
    numbers = [int(number) for number in value] if isinstance(value, list | tuple) else [int(value)]  # type: ignore[arg-type]
    return numbers[0], numbers[-1]


def can_refit(node: fx.Node) -> bool:
    """Whether a layer can be written as a table of samples: an ordinary convolution, or a linear layer."""
    groups = node.args[6] if len(node.args) > 6 else 1
    return operator_of(node) == "linear" or bool(operator_of(node) == "conv2d" and groups == 1)
