"""How a TFLite file lies in memory: short names, and weights where kernels want them."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgeprune.export.tflite_parts import packed, unpacked
from edgeprune.export.tflite_slices import joined_slices

_LARGEST = 2**31 - 1
"""Flatbuffers end there; in longer files weights lie behind the tables."""
_CONVERTERS_OWN = b"keep_stablehlo_constant"
"""What litert-torch's converter notes for its own passes; no runtime reads it."""


def laid_out(content: bytes) -> bytes:
    """The same file as TensorFlow would lay it out.

    litert-torch puts module paths into the name of every tensor, and neither it nor ai-edge-quantizer aligns weights.
    Inner tensors are called `t0`, `t1`, ... then, inputs and outputs as the signature names them by which programs
    call a network (`args_0`, `output_0`); a file without one, as TensorFlow writes it from a function, gets it. Slices
    of slices become one.

    Raises:
        ValueError: there is nothing in it.
    """
    if not content:
        raise ValueError("the converter wrote an empty file")
    if len(content) > _LARGEST:
        return content
    model = unpacked(content)
    for buffer in model.buffers:
        if buffer.offset > 1:  # it lies behind the tables
            buffer.data = np.frombuffer(content, np.uint8, buffer.size, buffer.offset)
            buffer.offset = buffer.size = 0
    joined_slices(model)
    model.metadata = [one for one in model.metadata or () if one.name != _CONVERTERS_OWN]
    _drop_unused(model)
    _pad_points_as_tensorflow(model)
    for graph in model.subgraphs:
        for place, tensor in enumerate(graph.tensors):
            if _says_nothing(tensor.quantization):
                tensor.quantization = None
            tensor.name = f"t{place}".encode()
    model.signatureDefs = model.signatureDefs or [_signature(model.subgraphs[0])]
    for signature in model.signatureDefs:
        for end in (*signature.inputs, *signature.outputs):
            model.subgraphs[signature.subgraphIndex].tensors[end.tensorIndex].name = end.name
    return packed(model, len(content))


def _pad_points_as_tensorflow(model: Any) -> None:
    """Let convolutions of 1x1 kernels be padded SAME, which adds nothing and is what is not stored. In place."""
    from ai_edge_litert import schema_py_generated as schema

    for graph in model.subgraphs:
        for operator in graph.operators:
            if isinstance(operator.builtinOptions, schema.Conv2DOptionsT):
                kernel = graph.tensors[operator.inputs[1]].shape[1:3]
                if max(kernel) == 1:
                    operator.builtinOptions.padding = schema.Padding.SAME


def _says_nothing(steps: Any) -> bool:
    """Whether the table of a tensor's quantisation is there and empty."""
    parts = (steps.min, steps.max, steps.scale, steps.zeroPoint, steps.details) if steps else ()
    return all(part is None or not len(part) for part in parts)


def _signature(graph: Any) -> Any:
    """By which programs call a network, as litert-torch writes it."""
    from ai_edge_litert import schema_py_generated as schema

    def named(prefix: str, places: Any) -> list[Any]:
        ends = [schema.TensorMapT() for _ in places]
        for number, (end, place) in enumerate(zip(ends, places, strict=True)):
            end.name, end.tensorIndex = f"{prefix}_{number}".encode(), int(place)
        return ends

    signature = schema.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex = b"serving_default", 0
    signature.inputs, signature.outputs = named("args", graph.inputs), named("output", graph.outputs)
    return signature


def _drop_unused(model: Any) -> None:
    """Leave out tensors that no operator reads or writes, and buffers that nothing holds. In place."""
    for number, graph in enumerate(model.subgraphs):
        named = [graph.inputs, graph.outputs, *(side for one in graph.operators for side in _sides(one))]
        kept = sorted({int(place) for places in named for place in places if place >= 0})
        new = {-1: -1, **{old: place for place, old in enumerate(kept)}}
        graph.tensors = [graph.tensors[place] for place in kept]
        graph.inputs, graph.outputs = (_placed(places, new) for places in (graph.inputs, graph.outputs))
        for operator in graph.operators:
            operator.inputs, operator.outputs = _placed(operator.inputs, new), _placed(operator.outputs, new)
            if operator.intermediates is not None:
                operator.intermediates = _placed(operator.intermediates, new)
        for signature in model.signatureDefs or ():
            if signature.subgraphIndex == number:
                for end in (*signature.inputs, *signature.outputs):
                    end.tensorIndex = new[end.tensorIndex]
    holders = [*(tensor for graph in model.subgraphs for tensor in graph.tensors), *(model.metadata or ())]
    held = sorted({0, *(one.buffer for one in holders)})  # the first is the empty one, by the format's rule
    for one in holders:
        one.buffer = held.index(one.buffer)
    model.buffers = [model.buffers[place] for place in held]


def _sides(operator: Any) -> tuple[Any, Any, Any]:
    """The tensors an operator reads, writes and uses within."""
    inner = operator.intermediates if operator.intermediates is not None else ()
    return operator.inputs, operator.outputs, inner


def _placed(places: Any, new: dict[int, int]) -> Any:
    return np.array([new[int(place)] for place in places], np.int32)
