"""trace: a model's program -> its ChannelMap. See README.md in this folder for the idea and a picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import fx

from edgeprune.channels import FIXED, ChannelMap, Choice, Labels, Layer, Slot, Space
from edgeprune.program import Program, layer_of, operator_of
from edgeprune.prune.labels import compress, fixed
from edgeprune.prune.layers import count_whole
from edgeprune.prune.operators import RULES
from edgeprune.prune.spaces import Members, find_spaces
from edgeprune.prune.taps import find_taps, is_linear
from edgeprune.prune.tracer import LayerRow, Tracer, layer_name


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
        tracer.read_all(node)
    return _channel_map(tracer, find_spaces(tracer))


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
    count_whole(tracer, node)
    return fixed(len(tracer.shape(node)))


def _channel_map(tracer: Tracer, members: Sequence[Members]) -> ChannelMap:
    """Number the filters space by space and rewrite everything found in those numbers."""
    roots = tracer.ties.roots()
    table = np.full(len(roots) + 1, FIXED, dtype=np.int64)  # the last entry is what FIXED reads
    first = 0
    for found in members:
        table[found.roots] = np.arange(first, first + len(found.roots))
        first += len(found.roots)
    table[:-1] = table[roots]

    def channels(labels: Labels) -> Labels:
        return table[labels]

    layers = tuple(_layer(tracer, row, channels(row.outputs), channels(row.inputs)) for row in tracer.layers)
    written = {name: channels(found) for name, found in tracer.found.items() if (found != FIXED).any()}
    labels = {name: compress(found) for name, found in written.items() if (found != FIXED).any()}
    names = _names(members)
    slots = [Slot(tensor, axis, compress(channels(found), axis)) for (tensor, axis), found in tracer.slots.items()]
    return ChannelMap(
        spaces=tuple(
            _space(tracer.program, name, found, channels(found.roots), layers, labels, tracer.sums)
            for name, found in zip(names, members, strict=True)
        ),
        slots=tuple(slot for slot in slots if (slot.labels != FIXED).any()),
        layers=layers,
        labels=labels,
        shapes={
            tensor: tracer.program.shapes[name]
            for name, tensor in tracer.program.stored.items()
            if name.startswith("p_")
        },
        widths={layer: channels(taken) for layer, taken in tracer.widths.items()},
        choices=tuple(
            _choice(tracer.program, name, chosen_from)
            for name, chosen_from in ((name, channels(found)) for name, found in tracer.choices.items())
            if (chosen_from != FIXED).any()
        ),
    )


def _choice(program: Program, name: str, chosen_from: Labels) -> Choice:
    tensor = program.stored.get(name, "")
    return Choice("" if tensor else name, tensor, chosen_from)


def _names(members: Sequence[Members]) -> list[str]:
    """A name for each space: that of its first layer, with a number if a space before it has that name too."""
    names: list[str] = []
    for found in members:
        same = sum(other.producers[0] == found.producers[0] for other in members[: len(names)])
        names.append(f"{found.producers[0]}#{same + 1}" if same else found.producers[0])
    return names


def _layer(tracer: Tracer, row: LayerRow, outputs: Labels, inputs: Labels) -> Layer:
    weight = tracer.stored(row.weight)
    assert weight is not None
    return Layer(
        name=layer_name(weight),
        node=row.node.name,
        source=row.source.name,
        weight=weight,
        bias=tracer.stored(row.bias) or "",
        unit_macs=row.unit_macs,
        outputs=outputs,
        inputs=inputs,
        output_axis=row.output_axis,
        groups=row.groups,
    )


def _unread(members: Members) -> str:
    """Why nothing is gained by cutting a space that is no layer's input."""
    single = any(len(part) == 1 for part in members.parts)
    return "layers read only single filters of it" if single else "no layer reads it"


def _space(
    program: Program,
    name: str,
    members: Members,
    channels: Labels,
    layers: tuple[Layer, ...],
    labels: dict[str, Labels],
    sums: set[int],
) -> Space:
    first, last = int(channels.min()), int(channels.max())
    consumers = [layer for layer in layers if ((layer.inputs >= first) & (layer.inputs <= last)).any()]
    after, before = find_taps(program, consumers, labels, np.arange(first, last + 1))
    return Space(
        name=name,
        first=first,
        size=last - first + 1,
        producers=members.producers,
        consumers=tuple(dict.fromkeys(layer.name for layer in consumers)),
        protected=members.protected or ("" if consumers else _unread(members)),
        residual=not sums.isdisjoint(members.atoms.tolist()),
        linear=bool(consumers) and all(is_linear(program, layer.source) for layer in consumers),
        after=after,
        before=before,
        cells=members.cells,
        parts=members.parts,
        repeat=members.repeat,
    )
