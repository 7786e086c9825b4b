"""What operators that move elements do to labels: joining, splitting, viewing, slicing, padding.

A rule sees the tracer and the node and returns the labels of the node's value, or None where it cannot follow its
channels; the tracer then protects them.
"""

from __future__ import annotations

import math

import numpy as np
from torch import fx

from edgeprune.channels import FIXED, Labels
from edgeprune.program import operator_of
from edgeprune.prune.labels import fixed, reshaped, varying
from edgeprune.prune.tracer import Tracer

ALIKE = frozenset({"split", "split_with_sizes", "unbind", "var_mean", "std_mean"})
"""Operators that return several values with the same labels."""


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


def split(tracer: Tracer, node: fx.Node) -> Labels | None:
    """Takes an axis that carries no channels apart: all parts have the same labels."""
    source = node.args[0]
    axis = tracer.axis(node)
    if tracer.carries(source, axis):
        return tracer.refuse(node, "split along channels")
    labels = tracer.labels(source)
    return labels.squeeze(axis) if operator_of(node) == "unbind" else labels


def view(tracer: Tracer, node: fx.Node) -> Labels | None:
    """Merges axes; a channel axis that it splits cannot be followed."""
    source = node.args[0]
    labels = reshaped(tracer.labels(source), tracer.shape(source), tracer.shape(node))
    return labels if len(varying(labels)) <= 1 else tracer.refuse(node, "channels split over several axes")


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


def reordering(tracer: Tracer, node: fx.Node) -> Labels | None:
    """Flips or rolls along axes that carry no channels."""
    source, axes = node.args[0], tracer.given(node, "dims")
    if not axes:
        return None
    if any(tracer.carries(source, int(axis)) for axis in axes):
        return tracer.refuse(node, "channels put in another order")
    return tracer.labels(source)


def slicing(tracer: Tracer, node: fx.Node) -> Labels | None:
    """Takes a part of an axis that carries no channels, or all of one that does."""
    source = node.args[0]
    labels = tracer.labels(source)
    axis = int(tracer.argument(node, 1, "dim") or 0) % labels.ndim
    if tracer.shape(source)[axis] == tracer.shape(node)[axis] or not tracer.carries(source, axis):
        return labels
    return tracer.refuse(node, "split along channels")


def selection(tracer: Tracer, node: fx.Node) -> Labels | None:
    """Takes one index of an axis that carries no channels."""
    axis = tracer.axis(node)
    if tracer.carries(node.args[0], axis):
        return tracer.refuse(node, "split along channels")
    return tracer.labels(node.args[0]).squeeze(axis)


def padding(tracer: Tracer, node: fx.Node) -> Labels | None:
    """Adds constants around; on the channel axis they are `FIXED` channels."""
    labels = tracer.labels(node.args[0])
    pads = [int(p) for p in node.args[1]]  # type: ignore[union-attr, arg-type]
    widths = [(0, 0)] * labels.ndim
    for k in range(len(pads) // 2):
        axis = labels.ndim - 1 - k
        if tracer.carries(node.args[0], axis):
            widths[axis] = (pads[2 * k], pads[2 * k + 1])
    if any(low < 0 or high < 0 for low, high in widths):
        return None
    if any(low or high for low, high in widths):
        tracer.protect(labels, f"padded with constant channels ({tracer.layer(node)}: {node.name})")
    return np.pad(labels, widths, constant_values=FIXED)


def item(tracer: Tracer, node: fx.Node) -> Labels | None:
    """One value of an operator that returns several: any of them where all are alike, else the first."""
    source, place = node.args
    assert isinstance(source, fx.Node)
    if place == 0 or operator_of(source) in ALIKE:
        return tracer.labels(source)
    return None if node.users else fixed(len(tracer.shape(node)))
