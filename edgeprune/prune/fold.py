"""fold: weights that a forward pass calculates, held as numbers.

Weight standardisation and weight normalisation calculate a layer's weights from stored tensors at every call.
Cutting what such a layer reads would change what it calculates; a weight that is held as numbers can be cut.
"""

from __future__ import annotations

import copy
from collections.abc import Collection
from dataclasses import replace

import torch
from torch import Tensor, fx, nn

from edgeprune.graph import GraphNetwork, perform
from edgeprune.model import Model
from edgeprune.program import Program, capture, layer_of, may_take_any_size, operator_of
from edgeprune.prune.operators import CONVOLUTIONS, TRANSPOSED
from edgeprune.resize import all_tensors

_READERS = CONVOLUTIONS | TRANSPOSED | {"linear"}


def calculated_weights(program: Program) -> dict[fx.Node, str]:
    """The nodes that calculate a layer's weight or bias from stored tensors alone, and whose: "stem.conv.weight"."""
    stored = {node for node in program.graph.nodes if node.name in program.stored}
    found: dict[fx.Node, str] = {}
    for node in program.nodes:
        if node.all_input_nodes and stored.issuperset(node.all_input_nodes):
            stored.add(node)
        elif operator_of(node) in _READERS:
            for argument, kind in zip(node.args[1:3], ("weight", "bias"), strict=False):
                if isinstance(argument, fx.Node) and argument in stored and argument.op == "call_function":
                    found.setdefault(argument, f"{layer_of(node)}.{kind}")
    return found


def fold_weights(model: Model, program: Program) -> Model:
    """The same model with calculated weights held as numbers, as a graph of operators; the model itself if it has none.

    Other tensors keep their names; those that only served to calculate weights are gone.

    Args:
        model: not changed.
        program: of the model.
    """
    if not calculated_weights(program):
        return model
    if may_take_any_size(program):
        program = capture(model.module, model.input_shapes, any_size=True)
    found = calculated_weights(program)
    values = _values(program, model.module, found)
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    graph.output(graph.graph_copy(program.graph, copies))
    start = next(iter(graph.nodes))
    holders: dict[str, fx.Node] = {}
    for node in found:
        with graph.inserting_before(start):
            holder = graph.placeholder(f"p_{node.name}")
        copies[node].replace_all_uses_with(holder)
        holders[holder.name] = node
    graph.eliminate_dead_code()
    stored = dict(program.stored)
    for node in graph.find_nodes(op="placeholder"):
        if node.name in stored and not node.users:
            graph.erase_node(node)
            del stored[node.name]
    tensors = all_tensors(model.module)
    gone = set(program.stored.values()) - set(stored.values())
    kept = {name: tensor for name, tensor in tensors.items() if name not in gone}
    for holder_name, node in holders.items():
        name = found[node]
        while name in kept:
            name += "_"
        kept[name] = nn.Parameter(values[node])
        stored[holder_name] = name
    network = GraphNetwork(
        graph,
        stored,
        copy.deepcopy(kept),
        program.constants,
        program.inputs,
        program.result,
        _unsaved(model.module),
        program.conditions,
    )
    layers = dict.fromkeys(name.rpartition(".")[0] for name in found.values())
    return replace(
        model,
        module=network,
        rewritten=f"its forward calculates the weights of {len(layers)} layers ({next(iter(layers))})",
    )


def _values(program: Program, module: nn.Module, wanted: Collection[fx.Node]) -> dict[fx.Node, Tensor]:
    """The values of nodes that read stored tensors only."""
    state, values = all_tensors(module), {}
    for node in program.graph.nodes:
        if node.name in program.stored:
            values[node] = state[program.stored[node.name]]
        elif node.op == "call_function" and node.all_input_nodes and values.keys() >= set(node.all_input_nodes):
            with torch.no_grad():
                values[node] = perform(node, values.__getitem__)
    return {node: values[node].detach().clone() for node in wanted}


def _unsaved(module: nn.Module) -> set[str]:
    """The buffers that `state_dict` leaves out."""
    return dict(module.named_buffers(remove_duplicate=False)).keys() - module.state_dict().keys()
