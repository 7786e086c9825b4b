"""rewrite: a model's graph of operators with every width in it made true for a cut.

A captured graph has sizes written into it (`view(n, 2, 32, h, w)`, `split([16, 48])`, the groups of a depthwise
convolution). The labels of every value say how long each of its axes will be.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx

from edgeprune.channels import FIXED, ChannelMap, Labels
from edgeprune.program import Program, operator_of
from edgeprune.prune.operators import CONVOLUTIONS, TRANSPOSED


@dataclass(frozen=True, eq=False)
class Cutting:
    """A program about to be cut.

    Attributes:
        program: of the uncut model.
        channel_map: of the uncut model.
        alive: which channels stay, bool [channels of the map].
    """

    program: Program
    channel_map: ChannelMap
    alive: NDArray[np.bool_]

    def stays(self, node: Any, axis: int) -> NDArray[np.bool_] | None:
        """Which indices of one axis of a node's value stay; None if the axis keeps its length."""
        labels = self.channel_map.labels.get(node.name)
        if labels is None or labels.shape[axis] == 1:
            return None
        stays = ((labels == FIXED) | self.alive[labels]).reshape(-1)
        return None if stays.all() else stays

    def shape(self, node: Any) -> tuple[int, ...]:
        """The shape of a node's value before the cut."""
        return self.program.shapes[node.name]

    def length(self, node: Any, axis: int) -> int:
        """How long an axis of a node's value will be."""
        stays = self.stays(node, axis)
        return self.program.shapes[node.name][axis] if stays is None else int(stays.sum())

    def axis(self, node: fx.Node, place: int = 1) -> int:
        """The axis that an operator works along, counted from the front; its argument number `place`, by default 0."""
        given = node.args[place] if len(node.args) > place else node.kwargs.get("dim", 0)
        assert isinstance(given, int)
        return given % len(self.shape(node.args[0]))


def rewritten(cutting: Cutting) -> fx.Graph:
    """A copy of the program's graph for the cut model; nodes keep their names."""
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    graph.output(graph.graph_copy(cutting.program.graph, copies))
    for node in cutting.program.nodes:
        rule = _RULES.get(operator_of(node))
        if rule is not None and node.name in cutting.program.shapes:
            rule(cutting, node, copies[node])
    return graph


def renumbered(cutting: Cutting) -> dict[str, Tensor]:
    """The program's constants, with channels counted as they are after the cut.

    Those that stay where a slice takes channels in steps are no longer told by a step, but by a constant of their own.
    """
    constants = dict(cutting.program.constants)
    for choice in cutting.channel_map.choices:
        if choice.constant:
            constants[choice.constant] = renumber(constants[choice.constant], choice.labels, cutting.alive)
    for node in cutting.program.nodes:
        stays = _taken_in_steps(cutting, node)
        if stays is not None:
            start, end, step = (*node.args[2:], *[None] * 3)[:3]
            taken = torch.arange(len(stays))[start:end:step]
            constants[_places(node)] = _new_numbers(taken, stays)
    return constants


def renumber(numbers: Tensor, labels: Labels, alive: NDArray[np.bool_]) -> Tensor:
    """Numbers that choose channels: those of the chosen ones that stay, counted among all that stay.

    Args:
        numbers: whole, [chosen]; negative ones count from the end.
        labels: the channel of each index that they choose from.
        alive: which channels stay.
    """
    return _new_numbers(numbers, (labels == FIXED) | alive[labels])


def _new_numbers(numbers: Tensor, stays: NDArray[np.bool_]) -> Tensor:
    old = numbers.numpy(force=True) % len(stays)
    new = (np.cumsum(stays) - 1)[old[stays[old]]]
    return torch.from_numpy(new).to(numbers)


def _taken_in_steps(cutting: Cutting, node: fx.Node) -> NDArray[np.bool_] | None:
    """Which channels stay of those that a slice takes in steps; None for any other operator."""
    if operator_of(node) != "slice" or len(node.args) < 5 or node.args[4] == 1:
        return None
    return cutting.stays(node.args[0], cutting.axis(node))


def _places(node: fx.Node) -> str:
    """What the constant is called that stands for the step of a slice."""
    return f"places_of_{node.name}"


def _sizes(cutting: Cutting, node: fx.Node, copy: fx.Node) -> None:
    """The sizes that a view or an expansion names; one that is calculated is left to be found out."""
    given = copy.args[1]
    assert isinstance(given, list | tuple)
    sizes = list(given)
    for axis, size in enumerate(sizes):
        length = cutting.length(node, axis)
        if length != cutting.program.shapes[node.name][axis] and size != -1:
            sizes[axis] = length if isinstance(size, int) else -1
    copy.update_arg(1, sizes)


def _split(cutting: Cutting, node: fx.Node, copy: fx.Node) -> None:
    """How long the parts of a split are."""
    axis = cutting.axis(node, 2)
    stays = cutting.stays(node.args[0], axis)
    if stays is None:
        return
    given: Any = node.args[1]
    length = len(stays)
    sizes = given if isinstance(given, list | tuple) else [given] * -(-length // given)
    ends = np.minimum(np.cumsum(sizes), length)
    copy.target = torch.ops.aten.split_with_sizes.default
    copy.update_arg(1, [int(part.sum()) for part in np.split(stays, ends[:-1])])


def _slice(cutting: Cutting, node: fx.Node, copy: fx.Node, first: int = 1) -> None:
    """Where a slice starts and ends; its axis, start and end are the arguments from number `first` on."""
    if _taken_in_steps(cutting, node) is not None:
        with copy.graph.inserting_before(next(iter(copy.graph.nodes))):
            places = copy.graph.placeholder(_places(node))
        copy.target, copy.args = torch.ops.aten.index_select.default, (copy.args[0], cutting.axis(node), places)
        return
    stays = cutting.stays(node.args[0], cutting.axis(node, first))
    if stays is not None:
        for place, default in ((first + 1, 0), (first + 2, len(stays))):
            if len(node.args) > place:
                given = node.args[place]
                index = default if given is None else given
                assert isinstance(index, int)
                copy.update_arg(place, int(stays[:index].sum()))


def _roll(cutting: Cutting, node: fx.Node, copy: fx.Node) -> None:
    """By how much channels are rolled: as many as stay of those that come to the other end."""
    given: Any = node.args[1:]
    shifts = list(given[0])
    now: dict[int, NDArray[np.bool_]] = {}
    for place, axis in enumerate(given[1]):
        stays = now.get(axis, cutting.stays(node.args[0], axis % len(cutting.shape(node))))
        if stays is not None:
            now[axis] = np.roll(stays, shift := shifts[place])
            shifts[place] = int(stays[len(stays) - shift % len(stays) :].sum())
    copy.update_arg(1, shifts)


def _select(cutting: Cutting, node: fx.Node, copy: fx.Node) -> None:
    """Which index is taken of an axis that has become shorter."""
    stays = cutting.stays(node.args[0], cutting.axis(node))
    if stays is not None:
        copy.update_arg(2, int(stays[: node.args[2]].sum()))


def _pad(cutting: Cutting, node: fx.Node, copy: fx.Node) -> None:
    """How many constant channels stand before and after."""
    pads: list[Any] = list(copy.args[1])  # type: ignore[arg-type]
    ndim = len(cutting.program.shapes[node.name])
    for place in range(0, len(pads), 2):
        stays = cutting.stays(node, ndim - 1 - place // 2)
        if stays is not None:
            low, high = pads[place : place + 2]
            pads[place : place + 2] = [int(stays[:low].sum()), int(stays[len(stays) - high :].sum())]
    copy.update_arg(1, pads)


def _groups(cutting: Cutting, node: fx.Node, copy: fx.Node) -> None:
    """The groups of a depthwise convolution, transposed or not, are its channels."""
    channels = cutting.shape(node.args[0])[1]
    if len(node.args) > 6 and node.args[6] == channels:
        copy.update_arg(6, cutting.length(node.args[0], 1))


def _norm_groups(cutting: Cutting, node: fx.Node, copy: fx.Node) -> None:
    """How many groups of channels are normalised together."""
    groups, channels = node.args[1], cutting.program.shapes[node.name][1]
    assert isinstance(groups, int)
    copy.update_arg(1, groups * cutting.length(node, 1) // channels)


_RULES: dict[str, Callable[[Cutting, fx.Node, fx.Node], None]] = {
    **dict.fromkeys(("view", "reshape", "_unsafe_view", "expand"), _sizes),
    **dict.fromkeys(("split", "split_with_sizes"), _split),
    **dict.fromkeys(("constant_pad_nd", "pad"), _pad),
    **dict.fromkeys(CONVOLUTIONS | TRANSPOSED, _groups),
    "slice": _slice,
    "slice_scatter": partial(_slice, first=2),
    "select": _select,
    "roll": _roll,
    "group_norm": _norm_groups,
}
