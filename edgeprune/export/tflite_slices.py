"""Slices of slices in a TFLite file, as one: litert-torch writes `x[:, :, ::2, ::2]` as two, each a copy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np

_Bounds = tuple[list[int], list[int], list[int]]
"""Begin, end and step of each axis."""


def joined_slices(model: Any) -> None:
    """Join each slice with the one that alone reads it, where no axis is sliced by both. In place.

    Args:
        model: ModelT of TFLite's schema, of a converter: constants lie in its own buffers.
    """
    for graph in model.subgraphs:
        slices = dict(_slices(model, graph))
        readers = Counter(place for operator in graph.operators for place in operator.inputs)
        readers.update(graph.outputs)
        makers = {graph.operators[at].outputs[0]: at for at in slices}
        gone = set()
        for at, bounds in slices.items():
            before = makers.get(graph.operators[at].inputs[0])
            if before is None or before in gone or readers[graph.operators[at].inputs[0]] != 1:
                continue
            shapes = [_shape(graph, graph.operators[one]) for one in (before, at)]
            joined = _joined(slices[before], bounds, shapes[0], shapes[1])
            if joined is not None:
                slices[at] = joined
                source = graph.operators[before].inputs[0]
                graph.operators[at].inputs = np.array([source, *_constants(model, graph, joined)], np.int32)
                gone.add(before)
        graph.operators = [operator for at, operator in enumerate(graph.operators) if at not in gone]


def _slices(model: Any, graph: Any) -> Iterator[tuple[int, _Bounds]]:
    """Place and bounds of each STRIDED_SLICE whose bounds are constants and none of whose axes is special."""
    from ai_edge_litert import schema_py_generated as schema

    for at, operator in enumerate(graph.operators):
        code, options = model.operatorCodes[operator.opcodeIndex], operator.builtinOptions
        if code.builtinCode != schema.BuiltinOperator.STRIDED_SLICE or operator.outputs[0] in graph.outputs:
            continue
        masks = (options.beginMask, options.endMask, options.ellipsisMask, options.newAxisMask, options.shrinkAxisMask)
        stored = [model.buffers[graph.tensors[place].buffer].data for place in operator.inputs[1:]]
        if any(masks) or options.offset or any(data is None or not len(data) for data in stored):
            continue
        begin, end, step = (np.asarray(data, np.uint8).view(np.int32).tolist() for data in stored)
        if min(step) > 0 and min(begin) >= 0:
            yield at, (begin, end, step)


def _shape(graph: Any, operator: Any) -> list[int]:
    """Of what a slice is taken."""
    return [int(size) for size in graph.tensors[operator.inputs[0]].shape]


def _joined(first: _Bounds, second: _Bounds, before: list[int], between: list[int]) -> _Bounds | None:
    rows = []
    for one, other, size, left in zip(
        zip(*first, strict=True), zip(*second, strict=True), before, between, strict=True
    ):
        if one[0] == 0 and one[1] >= size and one[2] == 1:
            rows.append(other)
        elif other[0] == 0 and other[1] >= left and other[2] == 1:
            rows.append(one)
        else:
            return None
    begin, end, step = (list(column) for column in zip(*rows, strict=True))
    return begin, end, step


def _constants(model: Any, graph: Any, bounds: _Bounds) -> list[int]:
    """New tensors that hold these bounds."""
    from ai_edge_litert import schema_py_generated as schema

    places = []
    for values in bounds:
        data = np.array(values, np.int32)
        buffer, tensor = schema.BufferT(), schema.TensorT()
        buffer.data = data.view(np.uint8)
        model.buffers.append(buffer)
        tensor.shape, tensor.type = np.array(data.shape, np.int32), schema.TensorType.INT32
        tensor.buffer, tensor.name = len(model.buffers) - 1, b""
        graph.tensors.append(tensor)
        places.append(len(graph.tensors) - 1)
    return places
