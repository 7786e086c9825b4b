"""How a TFLite file lies in memory: short names, and weights where kernels want them."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgeprune.export.tflite_slices import joined_slices

_LARGEST = 2**31 - 1
"""Flatbuffers end there; in longer files weights lie behind the tables."""
_ALIGNMENT = 16
"""Of the first byte of a weight, which kernels read in place: `force_align` of Buffer.data in TFLite's schema."""


def laid_out(content: bytes) -> bytes:
    """The same file as TensorFlow would lay it out.

    litert-torch puts module paths into the name of every tensor, and neither it nor ai-edge-quantizer aligns weights.
    Inner tensors are called `t0`, `t1`, ... then; inputs and outputs keep their names. Slices of slices become one.

    Raises:
        ValueError: there is nothing in it.
    """
    if not content:
        raise ValueError("the converter wrote an empty file")
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    class Aligned(flatbuffers.Builder):  # type: ignore[misc]
        """Python's code from the schema leaves `force_align` out."""

        def StartVector(self, size: int, count: int, alignment: int) -> Any:  # noqa: N802 (its name there)
            return super().StartVector(size, count, _ALIGNMENT if size == 1 else alignment)

    if len(content) > _LARGEST:
        return content
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    for buffer in model.buffers:
        if buffer.offset > 1:  # it lies behind the tables
            buffer.data = np.frombuffer(content, np.uint8, buffer.size, buffer.offset)
            buffer.offset = buffer.size = 0
    joined_slices(model)
    _drop_unused(model)
    for graph in model.subgraphs:
        ends = {*graph.inputs, *graph.outputs}
        for place, tensor in enumerate(graph.tensors):
            if place not in ends:
                tensor.name = f"t{place}".encode()
    builder = Aligned(len(content))
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


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
