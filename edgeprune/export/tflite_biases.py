"""Biases as fp16 in a TFLite file, as its weights are: ai-edge-quantizer leaves them in fp32, TensorFlow does not."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from edgeprune.export.tflite_parts import new_operator, packed, unpacked

_BIAS = {"CONV_2D": 2, "DEPTHWISE_CONV_2D": 2, "FULLY_CONNECTED": 2, "TRANSPOSE_CONV": 3}
"""Which input of an operator its bias is."""
_WORTH = 80
"""Numbers of a bias: half of it is saved, and the operator and tensor that widen it again take some 130 bytes."""
_READS_HALVES = 3
"""The first version of DEQUANTIZE that does."""


def halved_biases(content: bytes) -> bytes:
    """The same file with long biases stored in halves, each behind a DEQUANTIZE, as the weights are.

    The runtime widens them once, when it loads the file. What a half cannot hold (above 65,504) stays as it is.

    Args:
        content: a file whose constants lie in its own buffers.
    """
    from ai_edge_litert import schema_py_generated as schema

    model = unpacked(content)
    names = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}
    places = {at: _BIAS.get(names[one.builtinCode], -1) for at, one in enumerate(model.operatorCodes)}
    holders = Counter(tensor.buffer for graph in model.subgraphs for tensor in graph.tensors)
    for graph in model.subgraphs:
        operators, widened = list[Any](), set[int]()
        for operator in graph.operators:
            bias = _input(operator, places[operator.opcodeIndex])
            if bias not in widened and _is_worth(model, graph, bias, holders):
                operators.append(_halved(model, graph, bias))
                widened.add(bias)
            operators.append(operator)
        graph.operators = operators
    return packed(model, len(content))


def _input(operator: Any, place: int) -> int:
    return int(operator.inputs[place]) if 0 <= place < len(operator.inputs) else -1


def _is_worth(model: Any, graph: Any, bias: int, holders: Counter[int]) -> bool:
    from ai_edge_litert import schema_py_generated as schema

    if bias < 0 or graph.tensors[bias].type != schema.TensorType.FLOAT32:
        return False
    values = _values(model, graph.tensors[bias])
    alone = holders[graph.tensors[bias].buffer] == 1
    return alone and len(values) >= _WORTH and bool((np.abs(values) <= np.finfo(np.float16).max).all())


def _values(model: Any, tensor: Any) -> np.ndarray:
    """Of a constant of float32; none of what is no constant."""
    stored = model.buffers[tensor.buffer].data
    return np.asarray(stored if stored is not None else (), np.uint8).view(np.float32)


def _halved(model: Any, graph: Any, bias: int) -> Any:
    """The operator that widens a bias, whose numbers are a new tensor of halves now. In place."""
    from ai_edge_litert import schema_py_generated as schema

    wide = graph.tensors[bias]
    half, stored = schema.TensorT(), model.buffers[wide.buffer]
    half.name, half.shape, half.type, half.buffer = b"half", wide.shape, schema.TensorType.FLOAT16, wide.buffer
    stored.data = _values(model, wide).astype(np.float16).view(np.uint8)
    wide.buffer = 0
    graph.tensors.append(half)
    return new_operator(model, schema.BuiltinOperator.DEQUANTIZE, [len(graph.tensors) - 1], bias, version=_READS_HALVES)
