"""Raw pixels into a TFLite file: what a program would do to them before is put in front of the finished graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgeprune.data import InputSpec
from edgeprune.export.tflite_layout import laid_out
from edgeprune.export.tflite_parts import new_operator, packed, unpacked
from edgeprune.worker.infer import PIXEL


def from_pixels(content: bytes, spec: InputSpec) -> bytes:
    """The same network for uint8 [1, height, width, channels] where it took a normalised image in float32 or int8.

    The input is quantised as pixels are, one step being 1/255; DEQUANTIZE, MUL and ADD make of it what the network
    wants, and QUANTIZE where that is int8. All precisions compute behind it what they compute without it.

    Args:
        content: a file of one NHWC input.
        spec: what the network wants of an image.
    """
    from ai_edge_litert import schema_py_generated as schema

    model = unpacked(content)
    graph, kinds = model.subgraphs[0], schema.BuiltinOperator
    (wanted,) = map(int, graph.inputs)
    before = graph.tensors[wanted]
    std = np.asarray(spec.std)
    pixels = _tensor(model, before.shape, schema.TensorType.UINT8)
    graph.tensors[pixels].name, before.name = before.name, b"normalised"
    graph.tensors[pixels].quantization = steps = schema.QuantizationParametersT()
    steps.scale, steps.zeroPoint = np.array([PIXEL], np.float32), np.array([0], np.int64)
    gain, shift = (_tensor(model, [len(std)], 0, values) for values in (1 / std, -np.asarray(spec.mean) / std))
    scaled, product = (_tensor(model, before.shape, schema.TensorType.FLOAT32) for _ in range(2))
    integer = before.type != schema.TensorType.FLOAT32
    normalised = _tensor(model, before.shape, schema.TensorType.FLOAT32) if integer else wanted
    front = [
        new_operator(model, kinds.DEQUANTIZE, [pixels], scaled),
        new_operator(model, kinds.MUL, [scaled, gain], product, schema.MulOptionsT()),
        new_operator(model, kinds.ADD, [product, shift], normalised, schema.AddOptionsT()),
    ]
    if integer:
        front.append(new_operator(model, kinds.QUANTIZE, [normalised], wanted))
    graph.operators = [*front, *graph.operators]
    graph.inputs = np.array([pixels], np.int32)
    for signature in model.signatureDefs or ():
        for end in signature.inputs:
            end.tensorIndex = pixels if end.tensorIndex == wanted else end.tensorIndex
    return laid_out(packed(model, len(content)))


def _tensor(model: Any, shape: Sequence[int], kind: int, values: Any = None) -> int:
    """The place of a new tensor; a constant in float32 if it has values."""
    from ai_edge_litert import schema_py_generated as schema

    tensor, tensors = schema.TensorT(), model.subgraphs[0].tensors
    tensor.shape, tensor.type, tensor.name = np.array(shape, np.int32), kind, b""
    tensor.buffer = 0  # the empty one, by the format's rule
    if values is not None:
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(np.asarray(values, np.float32).tobytes(), np.uint8)
        tensor.buffer = len(model.buffers)
        model.buffers.append(buffer)
    tensors.append(tensor)
    return len(tensors) - 1
