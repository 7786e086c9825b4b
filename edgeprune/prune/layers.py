"""What layers with stored weights do to labels: convolutions, linear layers, normalisations, `prelu`.

A rule sees the tracer and the node and returns the labels of the node's value, or None where it cannot follow its
channels; the tracer then protects them.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from torch import fx

from edgeprune.channels import FIXED, Labels
from edgeprune.prune.labels import along
from edgeprune.prune.tracer import Tracer


def convolution(tracer: Tracer, node: fx.Node) -> Labels | None:
    """Makes new filters; a depthwise one passes its channels on."""
    source, weight = node.args[0], node.args[1]
    groups = int(tracer.argument(node, 6, "groups") or 1)
    stored = tracer.stored(weight)
    incoming = tracer.channels(source, 1)
    ndim = len(tracer.shape(node))
    if stored is None or incoming is None or ndim != len(tracer.shape(weight)):
        return None
    count, per_group = tracer.shape(weight)[:2]
    if groups == 1:
        tracer.slot(weight, 1, incoming)
        outgoing = tracer.filters(stored, count)
    elif groups == len(incoming) and per_group == 1:
        outgoing = np.repeat(incoming, count // groups)
    else:
        outgoing = _grouped(tracer, node, incoming, tracer.filters(stored, count), groups)
    tracer.slot(weight, 0, outgoing)
    tracer.slot(tracer.argument(node, 2, "bias"), 0, outgoing)
    reads = incoming if groups == 1 else np.full(per_group, FIXED, dtype=np.int64)
    tracer.layer_row(node, _unit_macs(tracer, node, weight), outgoing, reads)
    return along(outgoing, 1, ndim)


def transposed_convolution(tracer: Tracer, node: fx.Node) -> Labels | None:
    """Makes new filters, stored along axis 1 of its weight; a depthwise one passes its channels on."""
    source, weight = node.args[0], node.args[1]
    groups = int(tracer.argument(node, 6, "groups") or 1)
    stored = tracer.stored(weight)
    incoming = tracer.channels(source, 1)
    ndim = len(tracer.shape(node))
    if stored is None or incoming is None or ndim != len(tracer.shape(weight)):
        return None
    per_group = tracer.shape(weight)[1]
    if groups == 1:
        outgoing = tracer.filters(stored, per_group)
        tracer.slot(weight, 1, outgoing)
    elif groups == len(incoming) and per_group == 1:
        outgoing = incoming
    else:
        outgoing = _grouped(tracer, node, incoming, tracer.filters(stored, per_group * groups), groups)
    tracer.slot(weight, 0, incoming)
    tracer.slot(tracer.argument(node, 2, "bias"), 0, outgoing)
    reads = incoming if groups == 1 else np.full(len(incoming) // groups, FIXED, dtype=np.int64)
    # Every input position is spread over all taps: what counts is where it reads, not where it writes.
    tracer.layer_row(node, _unit_macs(tracer, source, weight), outgoing, reads, output_axis=int(groups == 1))
    return along(outgoing, 1, ndim)


def _grouped(tracer: Tracer, node: fx.Node, incoming: Labels, outgoing: Labels, groups: int) -> Labels:
    """Protects what groups of equal width read and make: a cut would have to take as many from each."""
    place = f"({tracer.layer(node)}: {node.name})"
    tracer.protect(incoming, f"read by a grouped convolution, {groups} groups of {len(incoming) // groups} {place}")
    tracer.protect(outgoing, f"made by a grouped convolution, {groups} groups of {len(outgoing) // groups} {place}")
    return outgoing


def _unit_macs(tracer: Tracer, positions: Any, weight: Any) -> int:
    """MACs of one pair of channels for one image: positions of a value times taps of the kernel."""
    shape = tracer.shape(positions)
    return shape[0] * math.prod(shape[2:]) // tracer.program.batch * math.prod(tracer.shape(weight)[2:])


def linear(tracer: Tracer, node: fx.Node) -> Labels | None:
    """Makes new filters from the last axis."""
    source, weight = node.args[0], node.args[1]
    stored = tracer.stored(weight)
    shape = tracer.shape(node)
    incoming = tracer.channels(source, len(shape) - 1)
    if stored is None or incoming is None:
        return None
    tracer.slot(weight, 1, incoming)
    outgoing = tracer.filters(stored, tracer.shape(weight)[0])
    tracer.slot(weight, 0, outgoing)
    tracer.slot(tracer.argument(node, 2, "bias"), 0, outgoing)
    tracer.layer_row(node, math.prod(shape[:-1]) // tracer.program.batch, outgoing, incoming)
    return along(outgoing, len(shape) - 1, len(shape))


def batch_norm(tracer: Tracer, node: fx.Node) -> Labels | None:
    """Scales each channel by its own stored numbers."""
    channels = tracer.channels(node.args[0], 1)
    if channels is None:
        return None
    for argument in node.args[1:5]:
        tracer.slot(argument, 0, channels)
    return along(channels, 1, len(tracer.shape(node)))


def instance_norm(tracer: Tracer, node: fx.Node) -> Labels | None:
    """Normalises each channel of each image by itself, and scales it by its own stored numbers."""
    if tracer.module_kind(node).startswith("InstanceNorm") and len(node.all_input_nodes) == 1:
        return tracer.refuse(node, "normalised by a layer that stores no numbers to tell its width")
    return batch_norm(tracer, node)


def group_norm(tracer: Tracer, node: fx.Node) -> Labels | None:
    """Shares its statistics among the channels of a group, which may therefore not change."""
    return tracer.refuse(node, "normalised in groups")


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
