"""What layers with stored weights do to labels: convolutions, linear layers, normalisations, `prelu`.

A rule sees the tracer and the node and returns the labels of the node's value, or None where it cannot follow its
channels; the tracer then protects them.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from torch import fx

from edgeprune.channels import FIXED, Labels, varying
from edgeprune.program import operator_of
from edgeprune.prune.labels import along
from edgeprune.prune.tracer import Even, LayerRow, Tracer


def convolution(tracer: Tracer, node: fx.Node, *, transposed: bool = False) -> Labels | None:
    """Makes new filters; a depthwise one passes its channels on.

    A weight is stored [out, in / groups, ...], that of a transposed convolution [in, out / groups, ...].
    """
    source, weight = node.args[0], node.args[1]
    groups = tracer.argument(node, 6, "groups") or 1
    stored, incoming = tracer.stored(weight), tracer.channels(source, 1)
    ndim = len(tracer.shape(node))
    if incoming is None:
        return tracer.refuse(node, "convolved along channels")
    if stored is None or ndim != len(tracer.shape(weight)) or not isinstance(groups, int):
        return None
    rows, per_group = tracer.shape(weight)[:2]
    count = per_group * groups if transposed else rows
    depthwise = groups == len(incoming) > 1
    outgoing = np.repeat(incoming, count // groups) if depthwise else tracer.filters(stored, count)
    if not depthwise:
        _even(tracer, node, incoming, groups)
        _even(tracer, node, outgoing, groups)
        _columns(tracer, weight, outgoing if transposed else incoming, rows // groups, groups)
    tracer.slot(weight, 0, incoming if transposed else outgoing)
    tracer.slot(tracer.argument(node, 2, "bias"), 0, outgoing)
    # A transposed one spreads every input position over all taps: what counts is where it reads, not where it writes.
    unit = _unit_macs(tracer, source if transposed else node, weight)
    reads = np.full(1, FIXED, dtype=np.int64) if depthwise else incoming
    row = _row(tracer, node, unit, outgoing, reads, groups=1 if depthwise else groups)
    tracer.layers.append(replace(row, output_axis=int(transposed and not depthwise)))
    return along(outgoing, 1, ndim)


def _columns(tracer: Tracer, weight: Any, channels: Labels, rows: int, groups: int) -> None:
    """Notes what the columns of a weight carry: the rows of each group their own group of channels."""
    grid = np.repeat(channels.reshape(groups, -1), rows if groups > 1 else 1, axis=0)
    tracer.slot_of_labels(weight, 1, grid.reshape(*grid.shape, *[1] * (len(tracer.shape(weight)) - 2)))


def _even(tracer: Tracer, node: fx.Node, channels: Labels, groups: int) -> None:
    """Groups of equal width must stay of equal width."""
    if groups > 1:
        width = len(channels) // groups
        reason = f"read or made in {groups} groups of {width} ({tracer.layer(node)}: {node.name})"
        tracer.evens.append(Even(tuple(channels.reshape(groups, width)), reason, needed=True))


def _row(tracer: Tracer, node: fx.Node, unit_macs: int, outputs: Labels, inputs: Labels, groups: int) -> LayerRow:
    source, weight = node.args[:2]
    assert isinstance(source, fx.Node)
    assert isinstance(weight, fx.Node)
    return LayerRow(node, source, weight, tracer.argument(node, 2, "bias"), unit_macs, outputs, inputs, 0, groups)


def count_whole(tracer: Tracer, node: fx.Node) -> None:
    """Notes the MACs of a convolution or linear layer that cannot be followed, and so stays as it is."""
    name = operator_of(node)
    convolution = name.removeprefix("conv")[:1].isdecimal()
    if not convolution and name != "linear":
        return
    weight = node.args[1]
    if tracer.stored(weight) is None:
        return
    made, read = (np.full(length, FIXED, dtype=np.int64) for length in tracer.shape(weight)[:2])
    positions = math.prod(tracer.shape(node)[:-1]) // tracer.program.batch
    unit = _unit_macs(tracer, node, weight) if convolution else positions
    tracer.layers.append(_row(tracer, node, unit, made, read, groups=1))


def _unit_macs(tracer: Tracer, positions: Any, weight: Any) -> int:
    """MACs of one pair of channels for one image: positions of a value times taps of the kernel."""
    shape = tracer.shape(positions)
    return shape[0] * math.prod(shape[2:]) // tracer.program.batch * math.prod(tracer.shape(weight)[2:])


def linear(tracer: Tracer, node: fx.Node) -> Labels | None:
    """Makes new filters from the last axis."""
    return _mixed(tracer, node, node.args[0], node.args[1], tracer.argument(node, 2, "bias"), output_axis=0)


def matrix_product(tracer: Tracer, node: fx.Node) -> Labels | None:
    """A linear layer where one side is a stored matrix; else channels pass that it does not sum over."""
    left, right = node.args[0], node.args[1]
    (first, first_turned), (second, second_turned) = (tracer.matrix(side) for side in (left, right))
    if second is not None and first is None:
        return _mixed(tracer, node, left, second, None, output_axis=1 - second_turned)
    if first is not None and second is None and len(tracer.shape(right)) > 1:
        return _mixed(tracer, node, right, first, None, output_axis=int(first_turned), axis=-2)
    ndim = len(tracer.shape(left))
    if (
        ndim < 2
        or len(tracer.shape(right)) != ndim
        or tracer.carries(left, ndim - 1)
        or tracer.carries(right, ndim - 2)
    ):
        return tracer.refuse(node, "multiplied as matrices")
    sides = [tracer.alone(node, tracer.labels(side)) for side in (left, right)]
    for labels, beside, other in ((sides[0], sides[1], right), (sides[1], sides[0], left)):
        clear = all(tracer.shape(other)[axis] == 1 for axis in varying(labels) if axis < ndim - 2)
        if clear and (beside == FIXED).all():
            return labels
    return tracer.refuse(node, "multiplied as matrices")


def bias_and_product(tracer: Tracer, node: fx.Node) -> Labels | None:
    """`addmm`: a linear layer whose stored matrix lies [in, out]."""
    weight, turned = tracer.matrix(node.args[2])
    if weight is None or len(tracer.shape(node.args[0])) != 1:
        return tracer.refuse(node, "multiplied as matrices")
    return _mixed(tracer, node, node.args[1], weight, node.args[0], output_axis=1 - turned)


def _mixed(
    tracer: Tracer, node: fx.Node, source: Any, weight: Any, bias: Any, output_axis: int, axis: int = -1
) -> Labels | None:
    """A layer that mixes one axis of what it reads, the last one or the one before it, by a stored matrix."""
    stored, shape = tracer.stored(weight), tracer.shape(node)
    mixed = len(tracer.shape(source)) + axis
    if stored is not None and varying(tracer.labels(source)) and not tracer.carries(source, mixed):
        return _positions(tracer, node, source, weight)
    incoming = tracer.channels(source, mixed)
    if stored is None or incoming is None:
        return None
    tracer.slot(weight, 1 - output_axis, incoming)
    outgoing = tracer.filters(stored, tracer.shape(weight)[output_axis])
    tracer.slot(weight, output_axis, outgoing)
    tracer.slot(bias, 0, outgoing)
    positions = math.prod(shape) // shape[axis] // tracer.program.batch
    tracer.layers.append(LayerRow(node, source, weight, bias, positions, outgoing, incoming, output_axis, groups=1))
    return along(outgoing, len(shape) + axis, len(shape))


def _positions(tracer: Tracer, node: fx.Node, source: Any, weight: Any) -> Labels:
    """A layer that mixes positions, of each channel alike: it passes the channels on."""
    labels = tracer.labels(source)
    channels = np.broadcast_to(labels, [n if d in varying(labels) else 1 for d, n in enumerate(tracer.shape(source))])
    others = math.prod(tracer.shape(source)[:-1]) // tracer.program.batch // channels.size or 1
    unit, reads = others * math.prod(tracer.shape(weight)), np.full(1, FIXED, dtype=np.int64)
    tracer.layers.append(LayerRow(node, source, weight, None, unit, channels.reshape(-1), reads, 0, groups=1))
    return labels


def batch_norm(tracer: Tracer, node: fx.Node) -> Labels | None:
    """Scales each channel by its own stored numbers."""
    channels = tracer.channels(node.args[0], 1)
    if channels is None:
        return None
    if len(node.all_input_nodes) == 1:
        _bare(tracer, node, channels)
    for argument in node.args[1:5]:
        tracer.slot(argument, 0, channels)
    return along(channels, 1, len(tracer.shape(node)))


def _bare(tracer: Tracer, node: fx.Node, channels: Labels) -> None:
    """Notes the width of a layer of torch's own that stores no numbers to tell it."""
    if "Norm" in tracer.module_kind(node):
        tracer.width(node, channels)


def group_norm(tracer: Tracer, node: fx.Node) -> Labels | None:
    """Shares its statistics among the channels of a group, which go or stay together."""
    source, groups = node.args[0], int(tracer.given(node, "num_groups"))
    channels = tracer.channels(source, 1)
    if channels is None:
        return None
    if groups == 1:
        return tracer.refuse(node, "normalised over channels")
    grid = channels.reshape(groups, -1)
    tracer.pin(grid, 1)
    if len(node.all_input_nodes) == 1:
        _bare(tracer, node, channels)
    for name in ("weight", "bias"):
        tracer.slot(tracer.given(node, name), 0, channels)
    return along(channels, 1, len(tracer.shape(source)))


def layer_norm(tracer: Tracer, node: fx.Node) -> Labels | None:
    """Normalises over the last axes; where they carry channels, the statistics would change with every cut."""
    source, normalised = node.args[0], node.args[1]
    assert isinstance(normalised, list | tuple)
    ndim = len(tracer.shape(source))
    if any(tracer.carries(source, axis) for axis in range(ndim - len(normalised), ndim)):
        return tracer.refuse(node, "normalised over channels")
    return tracer.labels(source)


def prelu(tracer: Tracer, node: fx.Node) -> Labels | None:
    """Bends each channel by its own stored slope, or all by one."""
    channels = tracer.channels(node.args[0], 1)
    if channels is None:
        return None
    if tracer.shape(node.args[1]) != (1,):
        tracer.slot(node.args[1], 0, channels)
    return along(channels, 1, len(tracer.shape(node)))
