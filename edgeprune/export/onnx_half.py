"""ONNX in fp16: weights and arithmetic in half precision, float32 images in and float32 outputs out."""

from __future__ import annotations

import heapq
from typing import Any

LARGEST = 65504.0
"""The largest number of IEEE 754 half precision; what lies beyond it becomes this."""


def half(proto: Any) -> tuple[Any, list[str]]:
    """The same network in fp16, by ONNX Runtime's converter, its nodes in an order that onnx's checker takes.

    Args:
        proto: a ModelProto in float32, which is not changed.

    Returns:
        The new ModelProto, and what to warn of: weights that fp16 cannot hold.
    """
    import numpy as np
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    copied = onnx.ModelProto()
    copied.CopyFrom(proto)
    beyond = 0
    for tensor in proto.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        if values.dtype == np.float32:
            beyond += int((np.abs(values) > LARGEST).sum())
    converted = convert_float_to_float16(copied, keep_io_types=True)
    _sort(converted.graph)
    warnings = [f"{beyond} weights are beyond {LARGEST:.0f}, the most that fp16 holds, and were cut off"]
    return converted, warnings if beyond else []


def _sort(graph: Any) -> None:
    """Put each node after those it reads, else in the order they have: the converter puts its casts last."""
    made_by = {name: at for at, node in enumerate(graph.node) for name in node.output}
    readers: list[list[int]] = [[] for _ in graph.node]
    waits = [0] * len(graph.node)
    for at, node in enumerate(graph.node):
        for source in {made_by[name] for name in node.input if name in made_by}:
            readers[source].append(at)
            waits[at] += 1
    ready, order = [at for at, count in enumerate(waits) if count == 0], []
    while ready:
        order.append(heapq.heappop(ready))
        for reader in readers[order[-1]]:
            waits[reader] -= 1
            if waits[reader] == 0:
                heapq.heappush(ready, reader)
    nodes = [graph.node[at] for at in order]
    copies = [type(node).FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)
