"""trace: a model's program -> its ChannelMap. See README.md in this folder for the idea and a picture."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
from torch import fx

from edgeprune.channels import FIXED, ChannelMap, Labels, Layer, Slot, Space
from edgeprune.program import Program, layer_of, operator_of
from edgeprune.prune.labels import fixed, on_axis
from edgeprune.prune.operators import ACTIVATIONS, CONVOLUTIONS, IDENTITIES, POOLS, REDUCTIONS, RULES, TRANSPOSED, VIEWS
from edgeprune.prune.tracer import LayerRow, Tracer, layer_name

_AFTER_ACTIVATION = IDENTITIES | POOLS | REDUCTIONS | VIEWS


def trace(program: Program) -> ChannelMap:
    """Find which axes of which stored tensors must be cut together.

    What an operator does to channels is known for the operators in `edgeprune.prune.operators`; the channels that reach
    any other are protected, with its name as the reason.
    """
    tracer = Tracer(program)
    for node in program.nodes:
        if node.name in program.shapes:
            tracer.found[node.name] = _labels(tracer, node)
        tracer.read_whole(node)
    for node in program.outputs:
        tracer.protect(tracer.labels(node), "network output")
    return _channel_map(tracer)


def _labels(tracer: Tracer, node: fx.Node) -> Labels:
    """The labels of one node's value, by its operator's rule."""
    name = operator_of(node)
    rule = RULES.get(name)
    labels = rule(tracer, node) if rule else None
    if labels is not None:
        return labels
    for argument in node.all_input_nodes:
        why = "is not supported" if rule is None else "is used in a way that is not supported"
        tracer.protect(tracer.labels(argument), f"operator {name} {why} ({layer_of(node)}: {node.name})")
    return fixed(len(tracer.shape(node)))


def _channel_map(tracer: Tracer) -> ChannelMap:
    """Number the filters space by space and rewrite everything found in those numbers."""
    roots = tracer.ties.roots()
    members = _spaces(tracer, roots)
    table = np.full(len(roots) + 1, FIXED, dtype=np.int64)  # the last entry is what FIXED reads
    first = 0
    for atoms in members:
        unique = np.unique(roots[atoms])
        table[unique] = np.arange(first, first + len(unique))
        first += len(unique)
    table[:-1] = table[roots]

    def channels(labels: Labels) -> Labels:
        return table[labels]

    layers = tuple(_layer(tracer, row, channels(row.outputs), channels(row.inputs)) for row in tracer.layers)
    flat = {
        name: on_axis(labels, 1, tracer.program.shapes[name][1])
        for name, labels in tracer.found.items()
        if labels.ndim > 1
    }
    labels = {name: channels(found) for name, found in flat.items() if found is not None and (found != FIXED).any()}
    spaces = tuple(_space(tracer, atoms, channels(atoms), layers, labels) for atoms in members)
    return ChannelMap(
        spaces=spaces,
        slots=tuple(
            Slot(tensor, axis, channels(found))
            for (tensor, axis), found in tracer.slots.items()
            if (found != FIXED).any()
        ),
        layers=layers,
        labels=labels,
        shapes={
            tensor: tracer.program.shapes[name]
            for name, tensor in tracer.program.stored.items()
            if name.startswith("p_")
        },
    )


def _spaces(tracer: Tracer, roots: Labels) -> list[Labels]:
    """The filters of each space: layers that share any tied filter are decided on together."""
    group = {first: first for first in tracer.producers}
    owner: dict[int, int] = {}

    def top(first: int) -> int:
        while group[first] != first:
            first = group[first]
        return first

    for first, (_, count) in tracer.producers.items():
        for root in set(roots[first : first + count].tolist()):
            other = top(owner.setdefault(root, first))
            low, high = sorted((other, top(first)))
            group[high] = low
    gathered: dict[int, list[int]] = defaultdict(list)
    for first, (_, count) in tracer.producers.items():
        gathered[top(first)].extend(range(first, first + count))
    return [np.array(atoms, dtype=np.int64) for _, atoms in sorted(gathered.items())]


def _layer(tracer: Tracer, row: LayerRow, outputs: Labels, inputs: Labels) -> Layer:
    node = row.node
    bias = tracer.stored(tracer.argument(node, 2, "bias"))
    source, weight = node.args[0], tracer.stored(node.args[1])
    assert isinstance(source, fx.Node)
    assert weight is not None
    return Layer(
        name=layer_name(weight),
        node=node.name,
        source=source.name,
        weight=weight,
        bias=bias or "",
        unit_macs=row.unit_macs,
        outputs=outputs,
        inputs=inputs,
        output_axis=row.output_axis,
    )


def _space(
    tracer: Tracer, atoms: Labels, channels: Labels, layers: tuple[Layer, ...], labels: dict[str, Labels]
) -> Space:
    first, last = int(channels.min()), int(channels.max())
    made_by = [tracer.producers[atom][0] for atom in atoms.tolist() if atom in tracer.producers]
    producers = tuple(dict.fromkeys(made_by))  # a layer that is used twice makes them twice
    consumers = [layer for layer in layers if ((layer.inputs >= first) & (layer.inputs <= last)).any()]
    reason = next((tracer.reasons[atom] for atom in sorted(_tied(tracer, atoms)) if atom in tracer.reasons), "")
    after, before = _taps(tracer, consumers, labels, set(range(first, last + 1)))
    return Space(
        name=producers[0],
        first=first,
        size=last - first + 1,
        producers=producers,
        consumers=tuple(dict.fromkeys(layer.name for layer in consumers)),
        protected=reason or ("" if consumers else "no layer reads it"),
        residual=not tracer.sums.isdisjoint(atoms.tolist()),
        linear=bool(consumers) and all(_is_linear(tracer.program, layer.source) for layer in consumers),
        after=after,
        before=before,
    )


def _is_linear(program: Program, name: str) -> bool:
    """Whether a node's value comes from its layers without an activation or a gate on the way."""
    waiting = [node for node in program.nodes if node.name == name]
    seen = set(waiting)
    while waiting:
        node = waiting.pop()
        if operator_of(node) in ACTIVATIONS or operator_of(node) == "mul":
            return False
        if operator_of(node) not in CONVOLUTIONS | TRANSPOSED | {"linear"}:
            new = [source for source in node.all_input_nodes if source.op == "call_function" and source not in seen]
            seen.update(new)
            waiting += new
    return True


def _tied(tracer: Tracer, atoms: Labels) -> set[int]:
    return set(atoms.tolist()) | {tracer.ties.root(atom) for atom in atoms.tolist()}


def _taps(tracer: Tracer, consumers: list[Layer], labels: dict[str, Labels], wanted: set[int]) -> tuple[str, str]:
    """The nodes that show all of a space's feature maps after and before the activation; empty where none does."""
    nodes = {node.name: node for node in tracer.program.nodes}

    def shows(node: Any) -> bool:
        return isinstance(node, fx.Node) and wanted <= set(labels.get(node.name, ()))

    def back(node: fx.Node | None, through: frozenset[str]) -> fx.Node | None:
        """The first node, going back, whose operator is neither one of `through` nor a concatenation with others."""
        while node is not None and (operator_of(node) in through or operator_of(node) == "cat"):
            source = node.args[0]
            if isinstance(source, list | tuple):
                source = next(filter(shows, source), None)
                if source is None:
                    return node
            node = source if isinstance(source, fx.Node) and source.op == "call_function" else None
        return node

    for layer in consumers:
        after = back(nodes.get(layer.source), _AFTER_ACTIVATION)
        before = back(after, _AFTER_ACTIVATION | ACTIVATIONS)
        if after is not None and before is not None and shows(after) and shows(before):
            return after.name, before.name
    return "", ""
