"""Tensors of an ONNX graph on their way to TensorFlow: images lie channels last, all else in ONNX's own order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

_TO_LAST = (0, 2, 3, 1)
_TO_FIRST = (0, 3, 1, 2)


@dataclass(frozen=True, eq=False)
class Value:
    """One tensor.

    Attributes:
        tensor: of TensorFlow; of numpy where it is known already.
        last: it has four axes, of which ONNX counts the channels second, and lies with them last.
        least_zero: none of its numbers is negative.
    """

    tensor: Any
    last: bool = False
    least_zero: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """As ONNX counts."""
        stored = tuple(int(size) for size in self.tensor.shape)
        return tuple(stored[axis] for axis in _TO_FIRST) if self.last else stored

    @property
    def constant(self) -> bool:
        """Whether its numbers are known."""
        return isinstance(self.tensor, np.ndarray)


def given_values(inputs: Sequence[Value | None]) -> list[Value]:
    """Without the optional inputs that are left out."""
    return [value for value in inputs if value is not None]


def images(value: Value) -> Any:
    """Four axes with channels last; fewer are put behind others of one, as they broadcast."""
    if value.last:
        return value.tensor
    shape = value.shape
    if not shape:
        return value.tensor
    tensor = value.tensor if len(shape) == 4 else _reshaped(value.tensor, (*(1,) * (4 - len(shape)), *shape))
    return _moved(tensor, _TO_LAST)


def plain(value: Value) -> Any:
    """In ONNX's order of axes."""
    return _moved(value.tensor, _TO_FIRST) if value.last else value.tensor


def stored_axis(value: Value, axis: int) -> int:
    """Where an axis lies that ONNX counts so."""
    axis %= len(value.shape)
    return _TO_LAST.index(axis) if value.last else axis


def alike(values: Sequence[Value]) -> tuple[list[Any], bool]:
    """All in one order, and whether that is channels last."""
    last = any(value.last for value in values)
    return [images(value) if last else value.tensor for value in values], last


def numbers(value: Value) -> np.ndarray:
    """What must be known: sizes, axes, weights.

    Raises:
        NotImplementedError: it is calculated by the network.
    """
    if not value.constant:
        raise NotImplementedError("sizes, axes or weights that the network calculates")
    known: np.ndarray = plain(value)
    return known


def _moved(tensor: Any, order: tuple[int, ...]) -> Any:
    """Transposed; where no numbers change places in memory, reshaped, which costs nothing."""
    shape = [int(tensor.shape[axis]) for axis in order]
    wide = [axis for axis in order if int(tensor.shape[axis]) > 1]
    if wide == sorted(wide):
        return _reshaped(tensor, shape)
    return tensor.transpose(order) if isinstance(tensor, np.ndarray) else tf.transpose(tensor, order)


def _reshaped(tensor: Any, shape: Sequence[int]) -> Any:
    return tensor.reshape(shape) if isinstance(tensor, np.ndarray) else tf.reshape(tensor, shape)
