"""Which layer of a file is which of the model's: by the names of their weights, or by order and size."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import reduce

import torch
from torch import Tensor, fx

from edgeprune.export.layers import FileLayer

aten = torch.ops.aten
_CONVOLUTIONS = (aten.conv2d.default, aten.conv2d.padding, aten.conv_transpose2d.input)
_FOLDED = (aten.batch_norm.default, aten.mul.Tensor, aten.add.Tensor, aten.sub.Tensor, aten.div.Tensor)
"""What converters work into the weights of the layer before it, if its other operand is stored."""


@dataclass(frozen=True, eq=False)
class NamedLayer:
    """An operator with weights in a model's graph.

    Attributes:
        node: the operator.
        name: of the layer.
        weight: name of its weights.
        weights: how many there are.
        size: how many values it puts out for an image.
    """

    node: fx.Node
    name: str
    weight: str
    weights: int
    size: int

    @property
    def channels_first(self) -> bool:
        """Whether its channels are on axis 1, as those of a convolution; else they are the last axis."""
        return self.node.target in _CONVOLUTIONS


def layers_in(graph: fx.GraphModule) -> list[NamedLayer]:
    """The layers of a graph from `edgeprune.export.graph.inference_graph`, in the order they run."""
    return [
        _named(graph, node)
        for node in graph.graph.nodes
        if node.target in (*_CONVOLUTIONS, aten.linear.default) and _is_stored(node.args[1])
    ]


def paired(layers: Sequence[NamedLayer], inside: Sequence[FileLayer]) -> list[tuple[NamedLayer, FileLayer]]:
    """Layers of a model with those of a file that must put out the same.

    A format that keeps the names of weights tells by these; else layers of as many weights and values, in the same
    order, are the same. Layers that converters work further operators into are left out: theirs put out something else.
    """
    known = {layer.weight for layer in layers}
    alike = _by_name if all(one.weight in known for one in inside) else _by_order
    return [(one, other) for one, other in alike(layers, inside) if not _takes_more_in(one.node)]


def _by_name(layers: Sequence[NamedLayer], inside: Sequence[FileLayer]) -> list[tuple[NamedLayer, FileLayer]]:
    waiting: dict[str, list[FileLayer]] = defaultdict(list)
    for one in inside:
        waiting[one.weight].append(one)
    chosen = [(layer, waiting[layer.weight].pop(0)) for layer in layers if waiting[layer.weight]]
    return [(layer, one) for layer, one in chosen if layer.size == one.size]


def _by_order(layers: Sequence[NamedLayer], inside: Sequence[FileLayer]) -> list[tuple[NamedLayer, FileLayer]]:
    own, theirs = [(one.size, one.weights) for one in layers], [(one.size, one.weights) for one in inside]
    blocks = SequenceMatcher(None, own, theirs, autojunk=False).get_matching_blocks()
    return [(layers[block.a + at], inside[block.b + at]) for block in blocks for at in range(block.size)]


def _named(graph: fx.GraphModule, node: fx.Node) -> NamedLayer:
    holder = node.args[1]
    assert isinstance(holder, fx.Node)
    weight = str(holder.target)
    tensor: Tensor = reduce(getattr, weight.split("."), graph)  # type: ignore[assignment]
    size = node.meta["val"][0].numel()
    return NamedLayer(node, weight.rpartition(".")[0] or weight, weight, tensor.numel(), int(size))


def _takes_more_in(node: fx.Node) -> bool:
    """Whether an operator that reads a layer may have become part of its weights."""
    return any(
        user.target in _FOLDED
        and all(other is node or _is_stored(other) or isinstance(other, int | float) for other in user.args[:2])
        for user in node.users
    )


def _is_stored(argument: object) -> bool:
    return isinstance(argument, fx.Node) and argument.op == "get_attr"
