"""ONNX's operators that move numbers and calculate none, as TensorFlow's: shapes, slices, axes.

Each is `(inputs, attributes) -> Value`, or a list of values where ONNX gives several; the meaning of attributes is that
of onnx/docs/Operators.md, opset 18.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from edgeprune.export.tensorflow_layers import Attributes, Inputs
from edgeprune.export.tensorflow_values import Value, alike, given_values, images, numbers, plain, stored_axis


def _reshaped(value: Value, shape: list[int]) -> Value:
    """In a new shape; the numbers keep ONNX's order."""
    return Value(tf.reshape(plain(value), shape), False, value.least_zero)


def reshape(inputs: Inputs, attributes: Attributes) -> Value:
    """Another shape."""
    value, wanted = given_values(inputs)
    shape = numbers(wanted).tolist()
    if not attributes.get("allowzero"):
        shape = [value.shape[place] if size == 0 else size for place, size in enumerate(shape)]
    return _reshaped(value, shape)


def flatten(inputs: Inputs, attributes: Attributes) -> Value:
    """All axes before one to one, and all others to another."""
    (value,) = given_values(inputs)
    axis = attributes.get("axis", 1) % (len(value.shape) + 1)
    return _reshaped(value, [int(np.prod(value.shape[:axis])), -1])


def squeeze(inputs: Inputs, attributes: Attributes) -> Value:
    """Without axes of one."""
    value, given = (*inputs, None)[:2]
    assert value is not None
    rank = len(value.shape)
    asked = numbers(given).tolist() if given is not None else attributes.get("axes")
    axes = {axis % rank for axis in asked} if asked else {axis for axis in range(rank) if value.shape[axis] == 1}
    return _reshaped(value, [size for axis, size in enumerate(value.shape) if axis not in axes])


def unsqueeze(inputs: Inputs, attributes: Attributes) -> Value:
    """With more axes of one."""
    value, given = (*inputs, None)[:2]
    assert value is not None
    asked = numbers(given).tolist() if given is not None else attributes["axes"]
    rank, rest = len(value.shape) + len(asked), iter(value.shape)
    axes = {axis % rank for axis in asked}
    return _reshaped(value, [1 if axis in axes else next(rest) for axis in range(rank)])


def transpose(inputs: Inputs, attributes: Attributes) -> Value:
    """Axes in another order; between ONNX's order of images and channels last no number moves."""
    (value,) = given_values(inputs)
    order = tuple(attributes.get("perm", reversed(range(len(value.shape)))))
    if value.last and order == (0, 2, 3, 1):
        return Value(value.tensor, False, value.least_zero)
    if not value.last and order == (0, 3, 1, 2):
        return Value(value.tensor, True, value.least_zero)
    return Value(tf.transpose(plain(value), order), False, value.least_zero)


def concat(inputs: Inputs, attributes: Attributes) -> Value:
    """One after the other along an axis."""
    values = given_values(inputs)
    tensors, last = alike(values)
    axis = stored_axis(Value(tensors[0], last), attributes["axis"])
    return Value(tf.concat(tensors, axis), last, all(value.least_zero for value in values))


def split(inputs: Inputs, attributes: Attributes) -> list[Value]:
    """Parts along an axis."""
    value, given = (*inputs, None)[:2]
    assert value is not None
    axis = attributes.get("axis", 0)
    size, count = value.shape[axis], attributes.get("num_outputs", 0)
    if given is not None:
        sizes = numbers(given).tolist()
    else:
        part = -(-size // count)
        sizes = [part] * (count - 1) + [size - part * (count - 1)]
    parts = tf.split(value.tensor, sizes, stored_axis(value, axis))
    return [Value(part, value.last, value.least_zero) for part in parts]


def slice_of(inputs: Inputs, attributes: Attributes) -> Value:  # noqa: ARG001 (contract)
    """A part along axes."""
    value, starts, ends, axes, steps = (*inputs, None, None)[:5]
    assert value is not None
    assert starts is not None
    assert ends is not None
    asked = [numbers(given).tolist() for given in (starts, ends)]
    chosen = numbers(axes).tolist() if axes is not None else list(range(len(asked[0])))
    strides = numbers(steps).tolist() if steps is not None else [1] * len(chosen)
    places = [slice(None)] * len(value.shape)
    for axis, start, end, step in zip(chosen, *asked, strides, strict=True):
        size = value.shape[axis]
        whole = range(size)[slice(start, end, step)]  # resolves what counts from the end or goes beyond it
        stop = whole.stop if whole.stop >= 0 else None
        places[stored_axis(value, axis)] = slice(whole.start, stop, step)
    return Value(value.tensor[tuple(places)], value.last, value.least_zero)


def pad(inputs: Inputs, attributes: Attributes) -> Value:
    """More around: one number, or what lies at the edge mirrored."""
    value, pads, constant, axes = (*inputs, None, None)[:4]
    assert value is not None
    assert pads is not None
    amounts = numbers(pads).tolist()
    chosen = numbers(axes).tolist() if axes is not None else list(range(len(value.shape)))
    edges = [(0, 0)] * len(value.shape)
    for place, axis in enumerate(chosen):
        edges[stored_axis(value, axis)] = (amounts[place], amounts[place + len(chosen)])
    mode = attributes.get("mode", b"constant").decode()
    if mode not in ("constant", "reflect") or min(map(min, edges)) < 0:
        raise NotImplementedError(f"padding by {mode}, or by less than nothing")
    fill = float(numbers(constant)) if constant is not None else 0.0
    return Value(tf.pad(value.tensor, edges, mode.upper(), fill), value.last, value.least_zero and fill >= 0)


def gather(inputs: Inputs, attributes: Attributes) -> Value:
    """Chosen places of an axis."""
    value, places = given_values(inputs)
    chosen, axis = numbers(places), attributes.get("axis", 0)
    if chosen.ndim == 1:
        return Value(tf.gather(value.tensor, chosen, axis=stored_axis(value, axis)), value.last, value.least_zero)
    return Value(tf.gather(plain(value), chosen, axis=axis), False, value.least_zero)


def expand(inputs: Inputs, attributes: Attributes) -> Value:  # noqa: ARG001 (contract)
    """Repeated along axes of one."""
    value, wanted = given_values(inputs)
    shape = np.broadcast_shapes(value.shape, tuple(numbers(wanted).tolist()))
    return Value(tf.broadcast_to(plain(value), shape), False, value.least_zero)


def depth_to_space(inputs: Inputs, attributes: Attributes) -> Value:
    """Blocks of pixels from channels."""
    (value,) = given_values(inputs)
    source, block = images(value), attributes["blocksize"]
    if attributes.get("mode", b"DCR") == b"CRD":  # TensorFlow counts the place in a block before the channel
        order = np.arange(int(source.shape[3])).reshape(-1, block * block).T.reshape(-1)
        source = tf.gather(source, order, axis=3)
    return Value(tf.nn.depth_to_space(source, block), True, value.least_zero)
