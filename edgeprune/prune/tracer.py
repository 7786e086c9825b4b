"""Tracer: what has been found so far while labels flow through a program."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import fx

from edgeprune.channels import FIXED, Labels, varying
from edgeprune.program import Program, layer_of, module_of, operator_of
from edgeprune.prune.labels import Ties, along, fixed, on_axis
from edgeprune.prune.views import matrix, origin


def layer_name(weight: str) -> str:
    """The layer that holds a weight: its module's path, or the weight's own name where a module holds several."""
    return weight.removesuffix(".weight")


@dataclass(frozen=True, eq=False)
class LayerRow:
    """A convolution or linear layer as met: see `edgeprune.channels.Layer`."""

    node: fx.Node
    source: fx.Node
    weight: fx.Node
    bias: fx.Node | None
    unit_macs: int
    outputs: Labels
    inputs: Labels
    output_axis: int
    groups: int


@dataclass(frozen=True, eq=False)
class Even:
    """Label arrays that must stay equally long.

    Attributes:
        parts: one array for each part, all of one length.
        reason: what asks for it, for messages.
        needed: whether the network cannot be cut otherwise; else only the user's own class could not run it.
    """

    parts: tuple[Labels, ...]
    reason: str
    needed: bool


@dataclass
class Tracer:
    """Collects filters, ties, slots, protections and layers; the rules of `edgeprune.prune.operators` write into it.

    Attributes:
        program: what is traced.
        ties: which filters go together.
        found: node -> its labels.
        slots: (stored tensor, axis) -> labels, an array that broadcasts against the tensor.
        reasons: filter -> why it is protected.
        producers: first filter -> (layer, count), in the order met.
        layers: rows for counting.
        sums: filters that are added to filters of another layer.
        evens: parts that must stay equally long.
        parts: label arrays of which something must stay.
        grids: labels that change along several axes.
        choices: placeholder -> labels of the axis that its numbers choose from.
        widths: layer that has its width as an attribute only -> labels of the channels that it takes.
        loose: filters of no layer, which stand for stored numbers that are calculated with before they meet channels.
        noted: (stored tensor, axis) of the node being followed whose labels are known.
    """

    program: Program
    ties: Ties = field(default_factory=Ties)
    found: dict[str, Labels] = field(default_factory=dict)
    slots: dict[tuple[str, int], Labels] = field(default_factory=dict)
    reasons: dict[int, str] = field(default_factory=dict)
    producers: dict[int, tuple[str, int]] = field(default_factory=dict)
    layers: list[LayerRow] = field(default_factory=list)
    sums: set[int] = field(default_factory=set)
    evens: list[Even] = field(default_factory=list)
    parts: list[Labels] = field(default_factory=list)
    grids: list[Labels] = field(default_factory=list)
    choices: dict[str, Labels] = field(default_factory=dict)
    widths: dict[str, Labels] = field(default_factory=dict)
    loose: set[int] = field(default_factory=set)
    noted: set[tuple[str, int]] = field(default_factory=set)

    def shape(self, node: Any) -> tuple[int, ...]:
        """Shape of a node's value for the example batch."""
        return self.program.shapes.get(node.name, ())

    def layer(self, node: fx.Node) -> str:
        """Module path of a node."""
        return layer_of(node)

    def argument(self, node: fx.Node, place: int, name: str) -> Any:
        """An argument given by place or by name; None if not given."""
        return node.args[place] if len(node.args) > place else node.kwargs.get(name)

    def given(self, node: fx.Node, name: str) -> Any:
        """An argument by the name that the operator's own signature gives it; its default if not given."""
        arguments = node.target._schema.arguments if isinstance(node.target, torch._ops.OpOverload) else ()
        for place, argument in enumerate(arguments):
            if argument.name == name:
                return node.args[place] if len(node.args) > place else node.kwargs.get(name, argument.default_value)
        return None

    def axis(self, node: fx.Node) -> int:
        """The axis, counted from the front, that an operator's argument `dim` names in what it reads first."""
        return int(self.given(node, "dim")) % len(self.shape(node.args[0]))

    def module_kind(self, node: fx.Node) -> str:
        """Class name of the module a node comes from; empty where it comes from none."""
        return module_of(node)[1].rpartition(".")[2]

    def stored(self, node: Any) -> str | None:
        """Name of the stored tensor a node stands for; None if it is computed or absent."""
        return self.program.stored.get(node.name) if isinstance(node, fx.Node) else None

    def origin(self, node: fx.Node) -> fx.Node:
        """See `edgeprune.prune.views.origin`."""
        return origin(self.program, node)

    def matrix(self, operand: Any) -> tuple[fx.Node | None, bool]:
        """See `edgeprune.prune.views.matrix`."""
        return matrix(self.program, operand)

    def labels(self, node: Any) -> Labels:
        """Labels of a node's value; a stored tensor, constant or image has none."""
        return self.found.get(node.name, fixed(len(self.shape(node))))

    def channels(self, node: Any, axis: int) -> Labels | None:
        """The filter of each index of one axis, or None if the channels lie on another.

        Of a grid all other axes keep their length.
        """
        labels = self.labels(node)
        if axis in varying(labels):
            for other in varying(labels):
                labels = labels if other == axis else self.pin(labels, other)
        return on_axis(labels, axis, self.shape(node)[axis])

    def carries(self, node: Any, axis: int) -> bool:
        """Whether an axis of a node's value carries channels, or may: a single one lies on no axis for certain."""
        labels = self.labels(node)
        single = labels.size == 1 and self.shape(node)[axis] == 1
        return labels.shape[axis] > 1 or (single and bool((labels != FIXED).all()))

    def filters(self, weight: str, count: int) -> Labels:
        """New filters, made by the layer that holds `weight`."""
        atoms = self.ties.new(count)
        self.producers[int(atoms[0])] = (layer_name(weight), count)
        return atoms

    def slot(self, operand: Any, axis: int, channels: Labels) -> None:
        """Note what an axis of an operand carries, by one channel for each index."""
        if isinstance(operand, fx.Node):
            self.slot_of_labels(operand, axis, along(channels, axis, len(self.shape(operand))))

    def slot_of_labels(self, operand: fx.Node, axis: int, labels: Labels) -> None:
        """Note what an axis of an operand carries, by labels that broadcast against it.

        A stored tensor that is used twice ties its two uses; channels that meet a computed one stay.
        """
        source = self.origin(operand)
        if source is not operand:
            self._slot_of_view(operand, source, axis, labels)
            return
        tensor = self.stored(operand)
        if tensor is None:
            self.protect(labels, f"meets a computed tensor that cannot be cut ({self.layer(operand)}: {operand.name})")
            return
        self.noted.add((tensor, axis))
        known = self.slots.setdefault((tensor, axis), labels)
        if known is not labels:
            one, other = np.broadcast_arrays(known, labels)
            mixed = (one == FIXED) != (other == FIXED)
            self.protect(np.where(one == FIXED, other, one)[mixed], f"{tensor} is used twice in different ways")
            self.ties.tie(one, other)
            if one.shape != known.shape:
                self.slots[tensor, axis] = np.where(one == FIXED, other, one)

    def width(self, node: fx.Node, channels: Labels) -> None:
        """Note the channels that a layer without tensors takes; one that is used twice ties its two uses."""
        known = self.widths.setdefault(self.layer(node), channels)
        if known.shape == channels.shape:
            mixed = (known == FIXED) != (channels == FIXED)
            self.protect(np.where(known == FIXED, channels, known)[mixed], f"{self.layer(node)} is used twice")
            self.ties.tie(known, channels)

    def _slot_of_view(self, view: fx.Node, source: fx.Node, axis: int, labels: Labels) -> None:
        """Note what an axis of a view of a stored tensor carries."""
        places = [place for place, length in enumerate(self.shape(source)) if length > 1]
        kept = [place for place, length in enumerate(self.shape(view)) if length > 1]
        shape = [1] * len(self.shape(source))
        for place, own in zip(places, kept, strict=True):
            shape[place] = labels.shape[own]
        self.found[view.name] = labels
        self.slot_of_labels(source, places[kept.index(axis)], labels.reshape(shape))

    def read_whole(self, node: fx.Node) -> None:
        """Every axis of a stored tensor that this node reads, and that no rule has noted, is read whole."""
        if self.origin(node) is node and self.matrix(node)[0] is None:  # else it is read where the view is
            for operand in node.all_input_nodes:
                self.read_all(self.matrix(operand)[0] or self.origin(operand))
            self.noted.clear()

    def read_all(self, operand: fx.Node) -> None:
        """A stored tensor is read along every axis that is not noted."""
        for axis, length in enumerate(self.shape(operand) if self.stored(operand) else ()):
            if (self.stored(operand), axis) not in self.noted:
                self.slot(operand, axis, np.full(length, FIXED, dtype=np.int64))

    def tie(self, left: Labels, right: Labels) -> None:
        """Tie two label arrays of one shape."""
        self.ties.tie(left, right)

    def protect(self, labels: Labels, reason: str) -> None:
        """Keep these filters whole; the first reason given is the one told."""
        for atom in np.unique(labels[labels != FIXED]).tolist():
            self.reasons.setdefault(atom, reason)

    def refuse(self, node: fx.Node, why: str) -> Labels | None:
        """Protect all channels that a node reads, saying what becomes of them there; what a rule then returns."""
        reason = f"{why} by operator {operator_of(node)} ({self.layer(node)}: {node.name})"
        for argument in node.all_input_nodes:
            self.protect(self.labels(argument), reason)
        return None

    def pin(self, labels: Labels, axis: int) -> Labels:
        """Keep the length of one axis of a grid of labels, by tying everything along it; the labels along the rest."""
        first = labels.take([0], axis=axis)
        self.ties.tie(*np.broadcast_arrays(labels, first))
        mixed = (labels == FIXED) != (first == FIXED)
        if mixed.any():
            self.protect(labels, "channels and constants side by side")
        return first

    def alone(self, node: fx.Node, labels: Labels) -> Labels:
        """A single filter that meets many channels stays, so that it does not tie them all together."""
        if labels.size > 1:
            return labels
        self.protect(labels, f"one filter that all channels meet ({self.layer(node)}: {node.name})")
        return fixed(labels.ndim)

    def is_grid(self, node: Any) -> bool:
        """Whether the labels of a node's value change along several axes."""
        return len(varying(self.labels(node))) > 1

    def is_loose(self, labels: Labels) -> bool:
        """Whether labels stand for stored numbers only, and for some."""
        return bool((labels != FIXED).any()) and self.loose.issuperset(labels[labels != FIXED].tolist())

    @cached_property
    def from_stored(self) -> frozenset[fx.Node]:
        """Nodes that stand for stored tensors and constants, or are calculated from these alone."""
        known = self.program.stored.keys() | self.program.constants.keys()
        found = {node for node in self.program.graph.nodes if node.name in known}
        for node in self.program.nodes:
            if node.all_input_nodes and found.issuperset(node.all_input_nodes):
                found.add(node)
        return frozenset(found)

    def follows(self, other: fx.Node, labels: Labels, ndim: int) -> bool:
        """Whether an operand without channels can stand beside `labels` when they are cut.

        It can where it has length 1 on their axis, or where it is a stored tensor, which is then cut along. Of a grid
        it may have some axes, which then keep their length; along a stored one that has one number for each of many
        groups whole groups go.
        """
        shape = self.shape(other)
        offset = ndim - len(shape)
        axes = [axis for axis in varying(labels) if axis >= offset and shape[axis - offset] > 1]
        if not axes:
            return True
        stored = self.stored(self.origin(other)) is not None
        rest = [axis for axis in varying(labels) if axis not in axes]
        if rest and (not stored or len(axes) > 1 or labels.shape[axes[0]] < max(labels.shape[axis] for axis in rest)):
            for axis in axes:
                labels = self.pin(labels, axis)
            return True
        for axis in rest:
            labels = self.pin(labels, axis)
        channels = on_axis(labels, axes[0], shape[axes[0] - offset])
        if not stored or len(axes) > 1 or channels is None:
            return False
        self.slot(other, axes[0] - offset, channels)
        return True
