"""The nodes of an ONNX graph in an order that onnx's checker takes: converters put the nodes they add last."""

from __future__ import annotations

import heapq
from typing import Any


def sort_nodes(graph: Any) -> None:
    """Put each node after those it reads, else in the order they have. In place.

    Args:
        graph: a GraphProto without a cycle.
    """
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
