"""What operators that join values and take them apart do to labels: concatenation, split, slice, select, index.

A rule sees the tracer and the node and returns the labels of the node's value, or None where it cannot follow its
channels; the tracer then protects them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from edgeprune.channels import FIXED, Labels, varying
from edgeprune.program import operator_of
from edgeprune.prune.labels import compress, fixed
from edgeprune.prune.tracer import Even, Tracer

COPIES = frozenset({"clone", "contiguous", "alias", "detach", "_to_copy", "to", "lift_fresh_copy"})
"""Operators that return what they are given."""

ALIKE = frozenset({"var_mean", "std_mean"})
"""Operators that return several values with the same labels."""


def concatenation(tracer: Tracer, node: fx.Node) -> Labels | None:
    """Puts channels one after another; along any other axis it ties them."""
    parts = node.args[0]
    assert isinstance(parts, list | tuple)
    nodes = [part for part in parts if isinstance(part, fx.Node) and tracer.shape(part) != (0,)]
    axis = int(tracer.argument(node, 1, "dim") or 0) % len(tracer.shape(node))
    if all(set(varying(tracer.labels(part))) <= {axis} for part in nodes):
        return compress(np.concatenate([whole(tracer, part, axis) for part in nodes], axis=axis))
    if not any(tracer.carries(part, axis) for part in nodes):
        return _beside(tracer, node, nodes)
    grown = [whole(tracer, part, axis) for part in nodes]
    others = np.broadcast_shapes(*[tuple(np.delete(labels.shape, axis)) for labels in grown])
    grown = [np.broadcast_to(labels, np.insert(others, axis, labels.shape[axis])) for labels in grown]
    grid = np.concatenate(grown, axis=axis)
    tracer.grids.append(grid)
    return grid


def whole(tracer: Tracer, source: Any, axis: int) -> Labels:
    """The labels of a value, written out along one axis: that axis as long as the value's."""
    labels = tracer.labels(source)
    return np.broadcast_to(labels, [tracer.shape(source)[d] if d == axis else n for d, n in enumerate(labels.shape)])


def _beside(tracer: Tracer, node: fx.Node, nodes: list[fx.Node]) -> Labels | None:
    """Values with channels on another axis than the one they are joined along: index by index the same channels."""
    first = max((tracer.labels(part) for part in nodes), key=lambda labels: labels.size)
    for part in nodes:
        labels = tracer.labels(part)
        if (labels == FIXED).all():
            if not tracer.follows(part, first, len(tracer.shape(node))):
                return None
        elif labels.shape == first.shape:
            tracer.tie(first, labels)
        else:
            return None
    return first


def stacking(tracer: Tracer, node: fx.Node) -> Labels | None:
    """Joins values along a new axis, which ties them index by index."""
    parts = [part for part in node.args[0] if isinstance(part, fx.Node)]  # type: ignore[union-attr]
    first = tracer.labels(parts[0])
    for part in parts[1:]:
        labels = tracer.labels(part)
        if labels.shape != first.shape or ((first == FIXED) != (labels == FIXED)).any():
            return None
        tracer.tie(first, labels)
    return np.expand_dims(first, int(tracer.argument(node, 1, "dim") or 0) % len(tracer.shape(node)))


def split(tracer: Tracer, node: fx.Node) -> Labels | None:
    """Takes an axis apart; see `item` for the parts. Parts of equal length stay so, if they can."""
    source, axis = node.args[0], tracer.axis(node)
    labels = tracer.labels(source)
    if operator_of(node) == "unbind":
        return _pinned(tracer, node, axis)
    if tracer.carries(source, axis):
        if len(varying(labels)) != 1 or len(node.all_input_nodes) > 1:
            return tracer.refuse(node, "split along channels")
        parts = tuple(_part(tracer, node, labels, place).reshape(-1) for place in range(len(_sizes(tracer, node))))
        tracer.parts.extend(parts)
        if len({len(part) for part in parts}) == 1:
            reason = f"split into {len(parts)} equal parts ({tracer.layer(node)}: {node.name})"
            tracer.evens.append(Even(parts, reason, needed=False))
    return labels


def _sizes(tracer: Tracer, node: fx.Node) -> list[int]:
    """How long the parts are that a split makes."""
    length, given = tracer.shape(node.args[0])[tracer.axis(node)], node.args[1]
    if isinstance(given, list | tuple):
        return [int(size) for size in given]  # type: ignore[arg-type]
    assert isinstance(given, int)
    return [min(given, length - start) for start in range(0, length, given)]


def _part(tracer: Tracer, node: fx.Node, labels: Labels, place: int) -> Labels:
    """The labels of one part."""
    axis, sizes = tracer.axis(node), _sizes(tracer, node)
    start = sum(sizes[:place])
    return labels if labels.shape[axis] == 1 else labels.take(range(start, start + sizes[place]), axis=axis)


def item(tracer: Tracer, node: fx.Node) -> Labels | None:
    """One value of an operator that returns several: its part of a split, any where all are alike, else the first."""
    source, place = node.args
    assert isinstance(source, fx.Node)
    assert isinstance(place, int)
    if operator_of(source) in ("split", "split_with_sizes"):
        return _part(tracer, source, tracer.labels(source), place)
    if operator_of(source) == "unbind":
        return tracer.labels(source).squeeze(tracer.axis(source))
    if place == 0 or operator_of(source) in ALIKE:
        return tracer.labels(source)
    return None if node.users else fixed(len(tracer.shape(node)))


def _pinned(tracer: Tracer, node: fx.Node, axis: int) -> Labels | None:
    """The labels of what an operator reads by places along one axis, which must keep its length."""
    source = node.args[0]
    if tracer.carries(source, axis):
        if not tracer.is_grid(source):
            return tracer.refuse(node, "taken apart along channels")
        return tracer.pin(tracer.labels(source), axis)
    return tracer.labels(source)


def gated_half(tracer: Tracer, node: fx.Node) -> Labels | None:
    """Weighs one half of an axis with the other (`glu`): of channels, it ties the halves."""
    source, axis = node.args[0], tracer.axis(node)
    if not tracer.carries(source, axis):
        return tracer.labels(source)
    if tracer.is_grid(source):
        return tracer.refuse(node, "split along channels")
    one, other = np.split(tracer.labels(source), 2, axis=axis)
    if ((one == FIXED) != (other == FIXED)).any():
        return tracer.refuse(node, "split along channels")
    tracer.tie(one, other)
    return one


def slicing(tracer: Tracer, node: fx.Node) -> Labels | None:
    """Takes a part of an axis."""
    source = node.args[0]
    labels = tracer.labels(source)
    axis = int(tracer.argument(node, 1, "dim") or 0) % labels.ndim
    length = tracer.shape(source)[axis]
    if length == tracer.shape(node)[axis] or labels.shape[axis] == 1:
        return labels
    start, end, step = (tracer.given(node, name) for name in ("start", "end", "step"))
    if len(varying(labels)) > 1 or len(node.all_input_nodes) > 1:
        return tracer.refuse(node, "taken from a calculated place along channels")
    chosen = labels.take(range(length)[start:end:step], axis=axis)
    tracer.parts.append(chosen.reshape(-1))
    return chosen


def scattering(tracer: Tracer, node: fx.Node) -> Labels | None:
    """Writes a value over a part of another one, as `x[:, :8] += y` does: the part ties to what it is written with."""
    whole_value, written = node.args[:2]
    labels, ndim = tracer.labels(whole_value), len(tracer.shape(node))
    axis = tracer.axis(node)
    start, end, step = (tracer.given(node, name) for name in ("start", "end", "step"))
    if len(node.all_input_nodes) > 2:
        return tracer.refuse(node, "written over from a calculated place")
    places = range(tracer.shape(whole_value)[axis])[start:end]
    part = labels if labels.shape[axis] == 1 else labels.take(places, axis=axis)
    other = tracer.labels(written)
    if (step not in (None, 1) and part is not labels) or part.ndim != other.ndim or not varying(labels):
        return None if varying(other) or varying(labels) else labels
    if part is not labels:
        tracer.parts.append(part.reshape(-1))
    one, two = np.broadcast_arrays(part, other)
    if ((one == FIXED) != (two == FIXED)).any() or one.ndim != ndim:
        return tracer.refuse(node, "written over with something else")
    tracer.tie(one, two)
    return labels


def selection(tracer: Tracer, node: fx.Node) -> Labels | None:
    """Takes one index of an axis; one channel that is taken by itself stays."""
    source, axis = node.args[0], tracer.axis(node)
    if tracer.carries(source, axis) and not tracer.is_grid(source):
        index = node.args[2]
        assert isinstance(index, int)
        chosen = np.broadcast_to(tracer.labels(source).reshape(-1), tracer.shape(source)[axis])[index]
        if chosen != FIXED:
            tracer.parts.append(np.array([chosen]))
        return fixed(len(tracer.shape(node)))
    labels = _pinned(tracer, node, axis)
    return None if labels is None else labels.squeeze(axis)


def indexing(tracer: Tracer, node: fx.Node) -> Labels | None:
    """Chooses along one axis by a list of places (`index`, `index_select`); channels only by one that is known."""
    source = node.args[0]
    labels = tracer.labels(source)
    places: Any
    if operator_of(node) == "index_select":
        axis, places = tracer.axis(node), node.args[2]
    else:
        given = node.args[1]
        assert isinstance(given, list | tuple)
        named = [axis for axis, places in enumerate(given) if places is not None]
        axis, places = named[0], given[named[0]]
        if len(named) > 1 or len(tracer.shape(places)) != 1:
            return None
    carries, chooser = tracer.carries(source, axis), _uncopied(places)
    values = _numbers(tracer, chooser)
    if values is None or len(varying(labels)) > 1 or not all(map(_chooses, _readers(chooser))):
        return tracer.refuse(node, "chosen along channels") if carries else labels
    chosen_from = np.broadcast_to(labels.reshape(-1) if carries else FIXED, tracer.shape(source)[axis])
    known = tracer.choices.setdefault(chooser.name, chosen_from)
    if known.shape != chosen_from.shape or ((known == FIXED) != (chosen_from == FIXED)).any():
        tracer.protect(known, f"chosen along channels by numbers that choose along another axis, too ({chooser.name})")
        return tracer.refuse(node, "chosen along channels") if carries else labels
    tracer.tie(known, chosen_from)
    if not carries:
        return labels
    chosen = labels.take(values.numpy(), axis=axis)
    tracer.parts.append(chosen.reshape(-1))
    return chosen


def _uncopied(node: fx.Node) -> fx.Node:
    """The node that a node is a copy of; else itself."""
    while node.op == "call_function" and operator_of(node) in COPIES:
        node = node.all_input_nodes[0]
    return node


def _readers(node: fx.Node) -> Iterator[fx.Node]:
    """The nodes that read a node or a copy of it."""
    for user in node.users:
        if user.op == "call_function" and operator_of(user) in COPIES:
            yield from _readers(user)
        else:
            yield user


def _chooses(node: fx.Node) -> bool:
    return node.op == "call_function" and operator_of(node) in ("index", "index_select")


def _numbers(tracer: Tracer, node: fx.Node) -> Tensor | None:
    """The whole numbers that a node stands for, if they are known: written into the code, or in a buffer."""
    values = tracer.program.constants.get(node.name, tracer.program.places.get(node.name))
    return None if values is None or values.dtype == torch.bool else values
