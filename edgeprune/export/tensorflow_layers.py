"""ONNX's layers as TensorFlow operators: convolutions, pooling, linear layers, norms, resizing.

Each is `(inputs, attributes) -> Value`; the meaning of attributes is that of onnx/docs/Operators.md, opset 18.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from edgeprune.export.tensorflow_values import Value, images, numbers, plain

Attributes = Mapping[str, Any]
Inputs = Sequence[Value | None]


def _given(inputs: Inputs, place: int) -> Value | None:
    return inputs[place] if place < len(inputs) else None


def _first(inputs: Inputs) -> Value:
    assert inputs[0] is not None
    return inputs[0]


def _padding(attributes: Attributes, sizes: Sequence[int], windows: Sequence[int]) -> list[tuple[int, int]]:
    """Rows and columns to add (before, after); `windows` are the sizes of the kernel with its holes."""
    automatic = attributes.get("auto_pad", b"NOTSET").decode()
    strides = attributes.get("strides", [1, 1])
    if automatic == "VALID":
        return [(0, 0), (0, 0)]
    if automatic.startswith("SAME"):
        found = []
        for size, window, stride in zip(sizes, windows, strides, strict=True):
            total = max((-(-size // stride) - 1) * stride + window - size, 0)
            few, many = total // 2, total - total // 2
            found.append((few, many) if automatic == "SAME_UPPER" else (many, few))
        return found
    pads = attributes.get("pads", [0, 0, 0, 0])
    return [(pads[0], pads[2]), (pads[1], pads[3])]


def _is_same(
    padding: list[tuple[int, int]], sizes: Sequence[int], windows: Sequence[int], strides: Sequence[int]
) -> bool:
    """Whether TensorFlow's SAME adds just these rows and columns (tf.nn, "Notes on padding")."""
    upper = {"auto_pad": b"SAME_UPPER", "strides": strides}
    return padding == _padding(upper, sizes, windows)


def _padded(tensor: Any, padding: list[tuple[int, int]]) -> Any:
    """With zeros around."""
    return tf.pad(tensor, [(0, 0), *padding, (0, 0)]) if any(map(any, padding)) else tensor


def _edged(tensor: Any, padding: list[tuple[int, int]]) -> Any:
    """With the rows and columns at the edge again around, one after the other."""
    while any(map(any, padding)):
        once = [(min(before, 1), min(after, 1)) for before, after in padding]
        tensor = tf.pad(tensor, [(0, 0), *once, (0, 0)], mode="SYMMETRIC")
        padding = [(few - less, many - fewer) for (few, many), (less, fewer) in zip(padding, once, strict=True)]
    return tensor


def conv(inputs: Inputs, attributes: Attributes) -> Value:
    """A convolution over images."""
    source, weight = images(_first(inputs)), numbers(inputs[1])  # type: ignore[arg-type]
    if weight.ndim != 4:
        raise NotImplementedError("convolutions over other than two axes")
    strides, dilations = list(attributes.get("strides", [1, 1])), list(attributes.get("dilations", [1, 1]))
    groups, channels = attributes.get("group", 1), int(source.shape[3])
    windows = [(size - 1) * hole + 1 for size, hole in zip(weight.shape[2:], dilations, strict=True)]
    sizes = [int(size) for size in source.shape[1:3]]
    padding = _padding(attributes, sizes, windows)
    same = _is_same(padding, sizes, windows, strides)
    source = source if same else _padded(source, padding)
    settings = {"strides": [1, *strides, 1], "padding": "SAME" if same else "VALID", "dilations": [1, *dilations, 1]}
    if groups == channels > 1 and strides[0] == strides[1]:
        kernel = weight.reshape(channels, -1, *weight.shape[2:]).transpose(2, 3, 0, 1)
        result = tf.raw_ops.DepthwiseConv2dNative(input=source, filter=kernel, **settings)
    else:
        result = tf.raw_ops.Conv2D(input=source, filter=weight.transpose(2, 3, 1, 0), **settings)
    bias = _given(inputs, 2)
    return Value(result if bias is None else tf.nn.bias_add(result, numbers(bias)), last=True)


def conv_transpose(inputs: Inputs, attributes: Attributes) -> Value:
    """A transposed convolution over images."""
    source, weight = images(_first(inputs)), numbers(inputs[1])  # type: ignore[arg-type]
    if weight.ndim != 4 or attributes.get("dilations", [1, 1]) != [1, 1] or "output_shape" in attributes:
        raise NotImplementedError("transposed convolutions with holes, with a shape, or over other than two axes")
    strides, more = attributes.get("strides", [1, 1]), attributes.get("output_padding", [0, 0])
    pads, groups = attributes.get("pads", [0, 0, 0, 0]), attributes.get("group", 1)
    sizes = [int(size) for size in source.shape[1:3]]
    spans = [(size - 1) * step + window for size, step, window in zip(sizes, strides, weight.shape[2:], strict=True)]
    parts = []
    for part, kernel in zip(tf.split(source, groups, 3), np.split(weight, groups, 0), strict=True):
        shape = [int(source.shape[0]), *spans, weight.shape[1]]
        parts.append(tf.nn.conv2d_transpose(part, kernel.transpose(2, 3, 1, 0), shape, strides, "VALID"))
    result = parts[0] if groups == 1 else tf.concat(parts, 3)
    result = _padded(result, [(0, more[0]), (0, more[1])])
    ends = [span + add - pad for span, add, pad in zip(spans, more, pads[2:], strict=True)]
    result = result[:, pads[0] : ends[0], pads[1] : ends[1], :]
    bias = _given(inputs, 2)
    return Value(result if bias is None else tf.nn.bias_add(result, numbers(bias)), last=True)


def _pool_settings(
    source: Any, attributes: Attributes
) -> tuple[list[int], list[int], list[int], list[tuple[int, int]], list[tuple[int, int]]]:
    """Sizes, window and strides; rows and columns to add, with and without those that `ceil_mode` adds at the end."""
    if attributes.get("dilations", [1, 1]) != [1, 1] or len(attributes["kernel_shape"]) != 2:
        raise NotImplementedError("pooling with holes, or over other than two axes")
    window, strides = list(attributes["kernel_shape"]), list(attributes.get("strides", [1, 1]))
    sizes = [int(size) for size in source.shape[1:3]]
    padding = _padding(attributes, sizes, window)
    if not attributes.get("ceil_mode", 0):
        return sizes, window, strides, padding, padding
    reached = []
    for size, span, step, (before, after) in zip(sizes, window, strides, padding, strict=True):
        steps = -(-(size + before + after - span) // step)
        steps -= steps * step >= size + before  # a window must begin on the image or before it
        reached.append((before, max(after, steps * step + span - size - before)))
    return sizes, window, strides, reached, padding


def max_pool(inputs: Inputs, attributes: Attributes) -> Value:
    """The greatest value of each window.

    What lies beyond the image never is it: zeros where no value is negative, else the rows at the edge once more, which
    the window holds anyway. The least of all floats would take the range of an int8 tensor.
    """
    value = _first(inputs)
    source = images(value)
    sizes, window, strides, padding, _ = _pool_settings(source, attributes)
    same = _is_same(padding, sizes, window, strides)
    if not same:
        source = _padded(source, padding) if value.least_zero else _edged(source, padding)
    result = tf.nn.max_pool2d(source, window, strides, "SAME" if same else "VALID")
    return Value(result, last=True, least_zero=value.least_zero)


def average_pool(inputs: Inputs, attributes: Attributes) -> Value:
    """The mean of each window."""
    value = _first(inputs)
    source = images(value)
    sizes, window, strides, padding, counted = _pool_settings(source, attributes)
    whole = attributes.get("count_include_pad", 0)
    if not whole and _is_same(padding, sizes, window, strides):
        return Value(tf.nn.avg_pool2d(source, window, strides, "SAME"), True, value.least_zero)
    result = tf.nn.avg_pool2d(_padded(source, padding), window, strides, "VALID")
    held = [
        np.pad(np.ones(size + sum(more) * bool(whole)), edges if not whole else (0, sum(edges) - sum(more)))
        for size, edges, more in zip(sizes, padding, counted, strict=True)
    ]
    counts = [
        np.array([row[step * at : step * at + span].sum() for at in range(length)])
        for row, step, span, length in zip(held, strides, window, result.shape[1:3], strict=True)
    ]
    share = (window[0] * window[1] / np.outer(*counts)).astype(np.float32)[None, :, :, None]
    return Value(result if np.all(share == 1) else result * share, True, value.least_zero)


def global_pool(reduce: Callable[..., Any]) -> Callable[[Inputs, Attributes], Value]:
    """One number for each channel."""

    def operate(inputs: Inputs, attributes: Attributes) -> Value:  # noqa: ARG001 (contract)
        value = _first(inputs)
        return Value(reduce(images(value), axis=[1, 2], keepdims=True), True, value.least_zero)

    return operate


def gemm(inputs: Inputs, attributes: Attributes) -> Value:
    """The sum alpha * A B + beta * C, A and B turned around on request."""
    first, second, bias = _first(inputs), _given(inputs, 1), _given(inputs, 2)
    assert second is not None
    turned = {"transpose_a": bool(attributes.get("transA")), "transpose_b": bool(attributes.get("transB"))}
    result = tf.matmul(plain(first), plain(second), **turned)
    result = result if attributes.get("alpha", 1.0) == 1 else result * attributes["alpha"]
    if bias is None:
        return Value(result)
    beta = attributes.get("beta", 1.0)
    return Value(result + (plain(bias) if beta == 1 else plain(bias) * np.float32(beta)))


def mat_mul(inputs: Inputs, attributes: Attributes) -> Value:  # noqa: ARG001 (contract)
    """A B, over all leading axes."""
    first, second = _first(inputs), _given(inputs, 1)
    assert second is not None
    return Value(tf.matmul(plain(first), plain(second)))


def batch_norm(inputs: Inputs, attributes: Attributes) -> Value:
    """A scale and a shift for each channel."""
    scale, shift, mean, variance = (numbers(value) for value in inputs[1:5] if value is not None)
    factor = scale / np.sqrt(variance.astype(np.float64) + attributes.get("epsilon", 1e-5))
    offset = (shift - mean * factor).astype(np.float32)
    value = _first(inputs)
    if len(value.shape) == 4:
        return Value(images(value) * factor.astype(np.float32) + offset, last=True)
    shape = (1, -1, *(1,) * (len(value.shape) - 2))
    return Value(value.tensor * factor.astype(np.float32).reshape(shape) + offset.reshape(shape))


def layer_norm(inputs: Inputs, attributes: Attributes) -> Value:
    """Each vector of the last axes to mean 0 and variance 1, then scaled and shifted."""
    source = plain(_first(inputs))
    axes = list(range(attributes.get("axis", -1) % len(source.shape), len(source.shape)))
    result = _normed(source, axes, attributes.get("epsilon", 1e-5))
    scale, shift = _given(inputs, 1), _given(inputs, 2)
    result = result if scale is None else result * numbers(scale)
    return Value(result if shift is None else result + numbers(shift))


def instance_norm(inputs: Inputs, attributes: Attributes) -> Value:
    """Each channel of each image to mean 0 and variance 1, then scaled and shifted."""
    value, scale, shift = (one for one in inputs if one is not None)
    if len(value.shape) == 4:
        normed = _normed(images(value), [1, 2], attributes.get("epsilon", 1e-5))
        return Value(normed * numbers(scale) + numbers(shift), last=True)
    rest = list(range(2, len(value.shape)))
    normed = _normed(value.tensor, rest, attributes.get("epsilon", 1e-5))
    shape = (-1, *(1,) * len(rest))
    return Value(normed * numbers(scale).reshape(shape) + numbers(shift).reshape(shape))


def _normed(source: Any, axes: list[int], epsilon: float) -> Any:
    centred = source - tf.reduce_mean(source, axis=axes, keepdims=True)
    variance = tf.reduce_mean(centred * centred, axis=axes, keepdims=True)
    return centred * tf.math.rsqrt(variance + epsilon)


def resize(inputs: Inputs, attributes: Attributes) -> Value:
    """Images in another size, by nearest or bilinear interpolation."""
    value, scales, sizes = _first(inputs), _given(inputs, 2), _given(inputs, 3)
    source, shape = images(value), np.array(value.shape)
    if attributes.get("axes"):
        raise NotImplementedError("resizing of named axes")
    if sizes is not None:
        wanted = numbers(sizes)
    else:
        assert scales is not None
        wanted = np.floor(shape * numbers(scales)).astype(np.int64)
    if not np.array_equal(wanted[:2], shape[:2]):
        raise NotImplementedError("resizing of channels")
    mode = attributes.get("mode", b"nearest").decode()
    places = attributes.get("coordinate_transformation_mode", b"half_pixel").decode()
    settings = {"align_corners": places == "align_corners", "half_pixel_centers": places.endswith("half_pixel")}
    if mode == "linear":
        result = tf.raw_ops.ResizeBilinear(images=source, size=wanted[2:].astype(np.int32), **settings)
    elif mode == "nearest" and places == "asymmetric" and attributes.get("nearest_mode", b"") == b"floor":
        result = tf.raw_ops.ResizeNearestNeighbor(images=source, size=wanted[2:].astype(np.int32), **settings)
    else:
        raise NotImplementedError(f"resizing by {mode} at {places}")
    return Value(result, True, value.least_zero)
