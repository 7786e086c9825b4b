"""What each operator does to labels: one small rule an operator, in one table.

A rule sees the tracer and the node and returns the labels of the node's value, or None where it cannot follow its
channels; the tracer then protects them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from torch import fx

from edgeprune.channels import FIXED, Labels
from edgeprune.prune.labels import along, fixed, reshaped, varying
from edgeprune.prune.tracer import Tracer

Rule = Callable[[Tracer, fx.Node], Labels | None]

IDENTITIES = frozenset({"clone", "dropout", "contiguous", "alias", "detach", "_to_copy", "to", "lift_fresh_copy"})
ACTIVATIONS = frozenset(
    {"relu", "relu6", "hardtanh", "sigmoid", "silu", "hardswish", "hardsigmoid", "gelu", "tanh", "leaky_relu"}
    | {"elu", "selu", "celu", "softplus", "mish", "prelu", "clamp", "clamp_min", "clamp_max"}
)
ARITHMETIC = frozenset({"neg", "abs", "sqrt", "rsqrt", "exp", "log", "square", "reciprocal"})
BINARY = frozenset({"add", "sub", "rsub", "mul", "div", "maximum", "minimum", "pow"})
POOLS = frozenset(
    {"adaptive_avg_pool1d", "adaptive_avg_pool2d", "avg_pool1d", "avg_pool2d", "max_pool1d", "max_pool2d"}
    | {"adaptive_max_pool2d", "upsample_nearest2d", "upsample_bilinear2d"}
)
REDUCTIONS = frozenset({"mean", "sum", "amax", "amin"})
VIEWS = frozenset({"view", "reshape", "flatten", "unsqueeze", "squeeze", "_unsafe_view"})
NORMS = frozenset({"_native_batch_norm_legit_no_training", "batch_norm"})
CONVOLUTIONS = frozenset({"conv1d", "conv2d", "conv3d"})


def convolution(tracer: Tracer, node: fx.Node) -> Labels | None:
    """Makes new filters; a depthwise one passes its channels on."""
    source, weight = node.args[0], node.args[1]
    bias = tracer.argument(node, 2, "bias")
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
        tracer.protect(incoming, f"read by a grouped convolution ({tracer.layer(node)})")
        outgoing = tracer.filters(stored, count)
        tracer.protect(outgoing, f"made by a grouped convolution ({tracer.layer(node)})")
    tracer.slot(weight, 0, outgoing)
    tracer.slot(bias, 0, outgoing)
    shape = tracer.shape(node)
    unit = shape[0] * math.prod(shape[2:]) // tracer.program.batch * math.prod(tracer.shape(weight)[2:])
    reads = incoming if groups == 1 else np.full(per_group, FIXED, dtype=np.int64)
    tracer.layer_row(node, unit, outgoing, reads)
    return along(outgoing, 1, ndim)


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


def prelu(tracer: Tracer, node: fx.Node) -> Labels | None:
    """Bends each channel by its own stored slope, or all by one."""
    channels = tracer.channels(node.args[0], 1)
    if channels is None:
        return None
    if tracer.shape(node.args[1]) != (1,):
        tracer.slot(node.args[1], 0, channels)
    return along(channels, 1, len(tracer.shape(node)))


def unchanged(tracer: Tracer, node: fx.Node) -> Labels | None:
    """Treats every element alike."""
    return tracer.labels(node.args[0]) if len(node.all_input_nodes) == 1 else None


def binary(tracer: Tracer, node: fx.Node) -> Labels | None:
    """Ties the channels of its two operands; a stored operand is cut along."""
    left, right = node.args[0], node.args[1]
    if not isinstance(left, fx.Node) or not isinstance(right, fx.Node):
        return tracer.labels(left if isinstance(left, fx.Node) else right)
    ndim = len(tracer.shape(node))
    sides = [tracer.operand(side, ndim) for side in (left, right)]
    if varying(sides[0]) or varying(sides[1]):
        sides = [_alone(tracer, side) for side in sides]
    whole = np.broadcast_shapes(sides[0].shape, sides[1].shape)
    a, b = (np.broadcast_to(side, whole) for side in sides)
    for mine, other, node_of_other in ((a, b, right), (b, a, left)):
        alone = (mine != FIXED) & (other == FIXED)
        if alone.any() and not tracer.follows(node_of_other, mine, ndim):
            tracer.protect(
                mine[alone], f"meets a tensor whose channels cannot be cut ({tracer.layer(node)}: {node.name})"
            )
    tracer.tie(a, b)
    return np.where(a == FIXED, b, a)


def _alone(tracer: Tracer, labels: Labels) -> Labels:
    """A single filter that meets many channels stays, so that it does not tie them all together."""
    if labels.size > 1:
        return labels
    tracer.protect(labels, "one filter that all channels meet")
    return fixed(labels.ndim)


def concatenation(tracer: Tracer, node: fx.Node) -> Labels | None:
    """Puts channels one after another; along any other axis it ties them."""
    parts = node.args[0]
    assert isinstance(parts, list | tuple)
    nodes = [part for part in parts if isinstance(part, fx.Node)]
    ndim = len(tracer.shape(node))
    axis = int(tracer.argument(node, 1, "dim") or 0) % ndim
    labels = [tracer.labels(part) for part in nodes]
    if all(label.shape[axis] == 1 for label in labels) and all(varying(label) for label in labels):
        for label in labels[1:]:
            if label.shape != labels[0].shape:
                return None
            tracer.tie(labels[0], label)
        return labels[0]
    lengths = [tracer.shape(part)[axis] for part in nodes]
    others = np.broadcast_shapes(*[tuple(1 if d == axis else n for d, n in enumerate(label.shape)) for label in labels])
    if math.prod(others) > 1:
        return None
    grown = [
        np.broadcast_to(label, [n if d == axis else 1 for d in range(ndim)])
        for label, n in zip(labels, lengths, strict=True)
    ]
    return np.concatenate(grown, axis=axis)


def pooling(tracer: Tracer, node: fx.Node) -> Labels | None:
    """Works inside each channel."""
    channels = tracer.channels(node.args[0], 1)
    return None if channels is None or len(node.all_input_nodes) > 1 else along(channels, 1, len(tracer.shape(node)))


def reduction(tracer: Tracer, node: fx.Node) -> Labels | None:
    """Removes axes that carry no channels."""
    labels = tracer.labels(node.args[0])
    dims = tracer.argument(node, 1, "dim")
    if not dims:
        return None if varying(labels) else fixed(len(tracer.shape(node)))
    axes = tuple(int(d) % labels.ndim for d in (dims if isinstance(dims, list | tuple) else [dims]))
    if set(axes) & set(varying(labels)):
        return None
    keep = bool(tracer.argument(node, 2, "keepdim"))
    return labels if keep else labels.reshape([n for d, n in enumerate(labels.shape) if d not in axes])


def view(tracer: Tracer, node: fx.Node) -> Labels | None:
    """Merges axes; a channel axis that it splits cannot be followed."""
    source = node.args[0]
    labels = reshaped(tracer.labels(source), tracer.shape(source), tracer.shape(node))
    return labels if len(varying(labels)) <= 1 else None


def expansion(tracer: Tracer, node: fx.Node) -> Labels | None:
    """Repeats along axes of length 1."""
    return tracer.operand(node.args[0], len(tracer.shape(node)))


def permutation(tracer: Tracer, node: fx.Node) -> Labels | None:
    """Moves axes."""
    labels = tracer.labels(node.args[0])
    order = [int(d) % labels.ndim for d in node.args[1]]  # type: ignore[union-attr, arg-type]
    return labels.transpose(order)


def transposition(tracer: Tracer, node: fx.Node) -> Labels | None:
    """Swaps two axes."""
    return np.swapaxes(tracer.labels(node.args[0]), int(node.args[1]), int(node.args[2]))  # type: ignore[arg-type]


def slicing(tracer: Tracer, node: fx.Node) -> Labels | None:
    """Takes a part of an axis that carries no channels, or all of one that does."""
    source = node.args[0]
    labels = tracer.labels(source)
    axis = int(tracer.argument(node, 1, "dim") or 0) % labels.ndim
    whole = tracer.shape(source)[axis] == tracer.shape(node)[axis]
    return labels if whole or labels.shape[axis] == 1 else None


def selection(tracer: Tracer, node: fx.Node) -> Labels | None:
    """Takes one index of an axis that carries no channels."""
    labels = tracer.labels(node.args[0])
    axis = int(node.args[1]) % labels.ndim  # type: ignore[arg-type]
    return labels.squeeze(axis) if labels.shape[axis] == 1 else None


def padding(tracer: Tracer, node: fx.Node) -> Labels | None:
    """Adds constants around; on the channel axis they are `FIXED` channels."""
    labels = tracer.labels(node.args[0])
    pads = [int(p) for p in node.args[1]]  # type: ignore[union-attr, arg-type]
    widths = [(0, 0)] * labels.ndim
    for k in range(len(pads) // 2):
        axis = labels.ndim - 1 - k
        if labels.shape[axis] > 1:
            widths[axis] = (pads[2 * k], pads[2 * k + 1])
    if any(low < 0 or high < 0 for low, high in widths):
        return None
    if any(low or high for low, high in widths):
        tracer.protect(labels, f"padded with constant channels ({tracer.layer(node)}: {node.name})")
    return np.pad(labels, widths, constant_values=FIXED)


def item(tracer: Tracer, node: fx.Node) -> Labels | None:
    """The first value of an operator that returns several."""
    source = node.args[0]
    if node.args[1] == 0:
        return tracer.labels(source)
    return None if node.users else fixed(len(tracer.shape(node)))


def _table() -> dict[str, Rule]:
    groups: list[tuple[Any, Rule]] = [
        (CONVOLUTIONS, convolution),
        (NORMS, batch_norm),
        (IDENTITIES | ACTIVATIONS | ARITHMETIC, unchanged),
        (BINARY, binary),
        (POOLS, pooling),
        (REDUCTIONS, reduction),
        (VIEWS, view),
    ]
    table = {name: rule for names, rule in groups for name in names}
    singles: dict[str, Rule] = {
        "linear": linear,
        "cat": concatenation,
        "expand": expansion,
        "prelu": prelu,
        "permute": permutation,
        "transpose": transposition,
        "slice": slicing,
        "select": selection,
        "pad": padding,
        "constant_pad_nd": padding,
        "getitem": item,
        "max_pool2d_with_indices": pooling,
    }
    return {**table, **singles}


RULES = _table()
