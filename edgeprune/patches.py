"""A layer as tables of least-squares samples: what each of its groups reads, row by row, and what it should put out."""

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

_CHUNK_BYTES = 128 << 20

_ORDINARY = {"conv1d", "conv2d", "conv3d"}
_TRANSPOSED = {"conv_transpose1d", "conv_transpose2d", "conv_transpose3d"}


def can_refit(node: fx.Node, shape: tuple[int, ...]) -> bool:
    """Whether a layer's weights can make up for each other: any convolution but a depthwise one, or a linear layer.

    A depthwise layer reads one channel for each output, and finds the others nowhere.

    Args:
        node: the operator.
        shape: of its weight.
    """
    name, groups = operator_of(node), groups_of(node)
    if name not in {"linear"} | _ORDINARY | _TRANSPOSED:
        return False
    return groups == 1 or (shape[0] // groups if name in _TRANSPOSED else shape[1]) > 1


def groups_of(node: fx.Node) -> int:
    """In how many groups a layer reads its inputs."""
    convolution = operator_of(node) in _ORDINARY | _TRANSPOSED
    found = node.args[6] if convolution and len(node.args) > 6 else 1
    assert isinstance(found, int)
    return found


@dataclass(frozen=True, eq=False)
class Rows:
    """Turns images into samples of one layer, for each group of its inputs.

    Attributes:
        node: the operator, one that `can_refit`.
        shape: of its weight.
        images: how many images there will be, to spread `MAX_ROWS` over them.
    """

    node: fx.Node
    shape: tuple[int, ...]
    images: int

    @property
    def axis(self) -> int:
        """Where the outputs lie in what the layer puts out."""
        return -1 if operator_of(self.node) == "linear" else 1

    def matrix(self, weight: Tensor) -> Tensor:
        """The weight as what samples are multiplied with: [groups, inputs x taps, outputs], the last two of a group."""
        groups = groups_of(self.node)
        if operator_of(self.node) in _TRANSPOSED:
            turned = weight.flip(tuple(range(2, weight.ndim)))  # an input reaches an output through the mirrored kernel
            return turned.reshape(groups, -1, *weight.shape[1:]).movedim(2, -1).flatten(1, -2)
        return weight.reshape(groups, weight.shape[0] // groups, -1).transpose(1, 2)

    def weight(self, matrix: Tensor) -> Tensor:
        """The weight, in its own shape, that `matrix` makes of it: the other way round."""
        if operator_of(self.node) in _TRANSPOSED:
            groups, taps = len(matrix), self.shape[2:]
            grouped = matrix.reshape(groups, self.shape[0] // groups, *taps, matrix.shape[2]).movedim(-1, 2)
            return grouped.flatten(0, 1).flip(tuple(range(2, 2 + len(taps))))
        return matrix.transpose(1, 2).reshape(self.shape)

    def of(self, x: Tensor, target: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Samples in chunks of bounded memory.

        Args:
            x: the layer's input, float32 [n, inputs, ...]; of a linear layer [n, ..., inputs].
            target: the output wanted, float32 [n, outputs, ...]; of a linear layer [n, ..., outputs].

        Yields:
            what `matrix` is multiplied with, [groups, samples, inputs x taps], and what should come of it,
            [groups, samples, outputs].
        """
        step = self._step(x)
        for images, wanted in zip(torch.split(x, step), torch.split(target, step), strict=True):
            rows, places = self._sample(images)
            outputs = wanted.movedim(self.axis, -1)[places]
            yield rows, self._grouped(outputs, (outputs.shape[-1] // groups_of(self.node),))

    def inputs(self, x: Tensor) -> Iterator[Tensor]:
        """What `matrix` is multiplied with, in chunks: the first of what `of` yields."""
        for images in torch.split(x, self._step(x)):
            yield self._sample(images)[0]

    def _positions(self, x: Tensor) -> tuple[int, ...]:
        """At how many places of an image the layer is applied, along each axis of its output."""
        return (
            tuple(x.shape[1:-1]) if self.axis == -1 else tuple(_windows(self.node, x[:1], self._taps).shape[2 : x.ndim])
        )

    @property
    def _taps(self) -> tuple[int, ...]:
        return self.shape[2:]

    def _step(self, x: Tensor) -> int:
        """How many images to take at a time."""
        rows = min(math.prod(self._positions(x)), max(1, MAX_ROWS // self.images))
        values = x.shape[self.axis] * math.prod(self._taps)
        return max(1, _CHUNK_BYTES // (4 * values * rows))

    def _sample(self, images: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Samples of some images, and their places among all of these: evenly over the images and their positions."""
        sides = (len(images), *self._positions(images))
        count = math.prod(sides)
        most = min(count, max(1, round(MAX_ROWS * len(images) / self.images)))
        places = torch.unravel_index(torch.arange(most) * count // most, sides)
        if self.axis == -1:
            return images[places].unsqueeze(0), places
        windows = _windows(self.node, images, self._taps).movedim(1, len(sides))
        return self._grouped(windows[places], (-1,)), places

    def _grouped(self, rows: Tensor, rest: tuple[int, ...]) -> Tensor:
        """From [samples, channels, ...] to [groups, samples, channels of the group x ...]."""
        return rows.reshape(len(rows), groups_of(self.node), *rest).transpose(0, 1)


def _windows(node: fx.Node, images: Tensor, kernel: tuple[int, ...]) -> Tensor:
    """What a convolution multiplies its kernel with at each place, a view where that can be.

    A transposed convolution is an ordinary one of its input with zeros between, padded by what is left of the kernel
    (Dumoulin, Visin 2016, https://arxiv.org/abs/1603.07285, section 4).

    Args:
        node: `conv(input, weight, bias, stride, padding, dilation, groups)`, or
            `conv_transpose(input, weight, bias, stride, padding, output_padding, groups, dilation)`.
        images: float32 [n, inputs, ...].
        kernel: its sides.

    Returns:
        float32 [n, inputs, places ..., taps ...].
    """
    sides = len(kernel)
    stride, padding = _numbers(node, 3, 1, sides), _padding(node, kernel)
    if operator_of(node) in _TRANSPOSED:
        dilation, more = _numbers(node, 7, 1, sides), _numbers(node, 5, 0, sides)
        images, strides = _spread(images, stride), (1,) * sides
        rims = [d * (k - 1) - low for d, k, (low, _) in zip(dilation, kernel, padding, strict=True)]
        padding = [(rim, rim + further) for rim, further in zip(rims, more, strict=True)]
    else:
        dilation, strides = _numbers(node, 5, 1, sides), stride
    if any(side != (0, 0) for side in padding):
        images = F.pad(images, [amount for side in reversed(padding) for amount in side])
    for axis in range(sides):
        images = images.unfold(2 + axis, dilation[axis] * (kernel[axis] - 1) + 1, strides[axis])
        images = images[..., :: dilation[axis]]
    return images


def _spread(images: Tensor, stride: tuple[int, ...]) -> Tensor:
    """The images with zeros between their values."""
    sides = [(side - 1) * step + 1 for side, step in zip(images.shape[2:], stride, strict=True)]
    wide = images.new_zeros(*images.shape[:2], *sides)
    places = [slice(None), slice(None), *(slice(None, None, step) for step in stride)]
    wide[tuple(places)] = images
    return wide


def _padding(node: fx.Node, kernel: tuple[int, ...]) -> list[tuple[int, int]]:
    """What is added before and after each side."""
    padding = node.args[4] if len(node.args) > 4 else 0
    if not isinstance(padding, str):
        return [(number, number) for number in _numbers(node, 4, 0, len(kernel))]
    dilation = _numbers(node, 5, 1, len(kernel))
    gaps = [d * (k - 1) if padding == "same" else 0 for d, k in zip(dilation, kernel, strict=True)]
    return [(gap // 2, gap - gap // 2) for gap in gaps]


def _numbers(node: fx.Node, place: int, default: int, sides: int) -> tuple[int, ...]:
    """A number, or one for each side, among a convolution's arguments."""
    value = node.args[place] if len(node.args) > place else default
    numbers = [int(number) for number in value] if isinstance(value, list | tuple) else [int(value)]  # type: ignore[arg-type]
    return tuple(numbers) if len(numbers) == sides else (numbers[0],) * sides
