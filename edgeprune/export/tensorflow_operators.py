"""ONNX's operators as TensorFlow's, by name, and those that calculate number by number or along axes.

Each is `(inputs, attributes) -> Value`, or a list of values where ONNX gives several; the meaning of attributes is that
of onnx/docs/Operators.md, opset 18. An operator is added by a function and a row in `OPERATORS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import reduce
from typing import Any

import numpy as np
import tensorflow as tf

from edgeprune.export import tensorflow_layers as layers
from edgeprune.export import tensorflow_moves as moves
from edgeprune.export.tensorflow_layers import Attributes, Inputs
from edgeprune.export.tensorflow_values import Value, alike, given_values, numbers, plain, stored_axis

Operator = Callable[[Inputs, Attributes], "Value | list[Value]"]


def _one(function: Callable[..., Any], *, least_zero: bool = False, **defaults: float) -> Operator:
    """An operator on each number of one tensor; `defaults` are the attributes the function takes."""

    def operate(inputs: Inputs, attributes: Attributes) -> Value:
        (value,) = given_values(inputs)
        settings = {name: attributes.get(name, number) for name, number in defaults.items()}
        return Value(function(value.tensor, **settings), value.last, least_zero)

    return operate


def _many(function: Callable[[Any, Any], Any], *, keeps_sign: bool = False) -> Operator:
    """An operator on pairs of numbers, over any count of tensors."""

    def operate(inputs: Inputs, attributes: Attributes) -> Value:  # noqa: ARG001 (contract)
        values = given_values(inputs)
        tensors, last = alike(values)
        return Value(reduce(function, tensors), last, keeps_sign and all(value.least_zero for value in values))

    return operate


def _clip(inputs: Inputs, attributes: Attributes) -> Value:  # noqa: ARG001 (contract)
    value, low, high = (*inputs, None, None)[:3]
    assert value is not None
    least = float(numbers(low)) if low is not None else -np.inf
    most = float(numbers(high)) if high is not None else np.inf
    if (least, most) == (0, np.inf):
        result = tf.nn.relu(value.tensor)
    elif (least, most) == (0, 6):
        result = tf.nn.relu6(value.tensor)
    else:
        result = value.tensor if np.isinf(most) else tf.minimum(value.tensor, np.float32(most))
        result = result if np.isinf(least) else tf.maximum(result, np.float32(least))
    return Value(result, value.last, least >= 0)


def _erf(tensor: Any) -> Any:
    """The error function to 1.5e-7 (Abramowitz and Stegun, 7.1.26): TFLite has no operator for it."""
    size = tf.abs(tensor)
    share = 1 / (1 + np.float32(0.3275911) * size)
    series = np.float32(1.061405429)
    for factor in (-1.453152027, 1.421413741, -0.284496736, 0.254829592):
        series = series * share + np.float32(factor)
    return tf.sign(tensor) * (1 - series * share * tf.exp(-size * size))


def _hard_sigmoid(tensor: Any, alpha: float, beta: float) -> Any:
    if np.isclose(alpha, 1 / 6) and beta == 0.5:  # the form that TensorFlow's converter knows as a part of hard swish
        return tf.nn.relu6(tensor + np.float32(3)) * np.float32(1 / 6)
    return tf.clip_by_value(tensor * np.float32(alpha) + np.float32(beta), 0, 1)


def _hard_swish(tensor: Any) -> Any:
    return tensor * tf.nn.relu6(tensor + np.float32(3)) * np.float32(1 / 6)


def _prelu(inputs: Inputs, attributes: Attributes) -> Value:  # noqa: ARG001 (contract)
    (source, slope), last = alike(given_values(inputs))
    return Value(tf.nn.relu(source) - slope * tf.nn.relu(-source), last)


def _softmax(function: Callable[..., Any]) -> Operator:
    def operate(inputs: Inputs, attributes: Attributes) -> Value:
        (value,) = given_values(inputs)
        return Value(function(value.tensor, axis=stored_axis(value, attributes.get("axis", -1))), value.last)

    return operate


def _reduction(function: Callable[..., Any], *, keeps_sign: bool = True) -> Operator:
    """One number instead of many, along axes: an attribute, or an input since opset 18."""

    def operate(inputs: Inputs, attributes: Attributes) -> Value:
        value, given = (*inputs, None)[:2]
        assert value is not None
        rank = len(value.shape)
        asked = numbers(given).tolist() if given is not None else attributes.get("axes", [])
        axes, keep = sorted(axis % rank for axis in asked) or list(range(rank)), bool(attributes.get("keepdims", 1))
        least_zero = keeps_sign and value.least_zero
        if value.last and (keep or [axis for axis in range(4) if axis not in axes] in ([], [0], [1], [0, 1])):
            places = [stored_axis(value, axis) for axis in axes]
            return Value(function(value.tensor, axis=places, keepdims=keep), keep, least_zero)
        return Value(function(plain(value), axis=axes, keepdims=keep), False, least_zero)

    return operate


def _cast(inputs: Inputs, attributes: Attributes) -> Value:
    (value,) = given_values(inputs)
    kinds = {1: tf.float32, 6: tf.int32, 7: tf.int64}  # onnx.TensorProto.DataType
    if attributes["to"] not in kinds:
        raise NotImplementedError(f"a cast to ONNX type {attributes['to']}")
    return Value(tf.cast(value.tensor, kinds[attributes["to"]]), value.last, value.least_zero)


def _constant(inputs: Inputs, attributes: Attributes) -> Value:  # noqa: ARG001 (contract)
    import onnx

    return Value(onnx.numpy_helper.to_array(attributes["value"]))


def _identity(inputs: Inputs, attributes: Attributes) -> Value:  # noqa: ARG001 (contract)
    return given_values(inputs)[0]


OPERATORS: Mapping[str, Operator] = {
    "Abs": _one(tf.abs, least_zero=True),
    "Add": _many(lambda one, other: one + other, keeps_sign=True),
    "AveragePool": layers.average_pool,
    "BatchNormalization": layers.batch_norm,
    "Cast": _cast,
    "Clip": _clip,
    "Concat": moves.concat,
    "Constant": _constant,
    "Conv": layers.conv,
    "ConvTranspose": layers.conv_transpose,
    "Cos": _one(tf.cos),
    "DepthToSpace": moves.depth_to_space,
    "Div": _many(lambda one, other: one / other, keeps_sign=True),
    "Dropout": _identity,
    "Elu": _one(lambda tensor, alpha: tf.where(tensor > 0, tensor, alpha * (tf.exp(tensor) - 1)), alpha=1.0),
    "Erf": _one(_erf),
    "Exp": _one(tf.exp, least_zero=True),
    "Expand": moves.expand,
    "Flatten": moves.flatten,
    "Gather": moves.gather,
    "Gemm": layers.gemm,
    "GlobalAveragePool": layers.global_pool(tf.reduce_mean),
    "GlobalMaxPool": layers.global_pool(tf.reduce_max),
    "HardSigmoid": _one(_hard_sigmoid, least_zero=True, alpha=0.2, beta=0.5),
    "HardSwish": _one(_hard_swish),
    "Identity": _identity,
    "InstanceNormalization": layers.instance_norm,
    "LayerNormalization": layers.layer_norm,
    "LeakyRelu": _one(tf.nn.leaky_relu, alpha=0.01),
    "Log": _one(tf.math.log),
    "LogSoftmax": _softmax(tf.nn.log_softmax),
    "MatMul": layers.mat_mul,
    "Max": _many(tf.maximum, keeps_sign=True),
    "MaxPool": layers.max_pool,
    "Min": _many(tf.minimum, keeps_sign=True),
    "Mish": _one(lambda tensor: tensor * tf.tanh(tf.math.softplus(tensor))),
    "Mul": _many(lambda one, other: one * other, keeps_sign=True),
    "Neg": _one(tf.negative),
    "PRelu": _prelu,
    "Pad": moves.pad,
    "Pow": _many(tf.pow),
    "Reciprocal": _one(tf.math.reciprocal),
    "ReduceL2": _reduction(lambda tensor, **along: tf.sqrt(tf.reduce_sum(tensor * tensor, **along))),
    "ReduceMax": _reduction(tf.reduce_max),
    "ReduceMean": _reduction(tf.reduce_mean),
    "ReduceMin": _reduction(tf.reduce_min),
    "ReduceSum": _reduction(tf.reduce_sum),
    "Relu": _one(tf.nn.relu, least_zero=True),
    "Reshape": moves.reshape,
    "Resize": layers.resize,
    "Sigmoid": _one(tf.sigmoid, least_zero=True),
    "Sin": _one(tf.sin),
    "Slice": moves.slice_of,
    "Softmax": _softmax(tf.nn.softmax),
    "Softplus": _one(tf.math.softplus, least_zero=True),
    "Split": moves.split,
    "Sqrt": _one(tf.sqrt, least_zero=True),
    "Squeeze": moves.squeeze,
    "Sub": _many(lambda one, other: one - other),
    "Sum": _many(lambda one, other: one + other, keeps_sign=True),
    "Tanh": _one(tf.tanh),
    "Transpose": moves.transpose,
    "Unsqueeze": moves.unsqueeze,
}
