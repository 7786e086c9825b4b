"""spaces: what a tracer has found -> which filters are decided on together, and under what conditions."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from edgeprune.channels import FIXED, Labels, varying
from edgeprune.prune.labels import Ties, compress
from edgeprune.prune.tracer import Even, Tracer


@dataclass(frozen=True, eq=False)
class Members:
    """The filters of one space, each told by the lowest number of those that are tied to it.

    Attributes:
        roots: their numbers, ascending.
        atoms: the numbers of all filters tied to these.
        producers: layers that make them, in the order met.
        protected: why they must stay; empty if they may go.
        cells: see `edgeprune.channels.Space`; so are
        parts: and
        repeat: .
    """

    roots: Labels
    atoms: Labels
    producers: tuple[str, ...]
    protected: str
    cells: tuple[int, ...]
    parts: tuple[tuple[int, ...], ...]
    repeat: int


def settle_grids(tracer: Tracer) -> None:
    """Tie the channels of every grid so that whole lines of it go, and what is left is a grid again.

    A grid is a value whose channels lie on several axes, as when a channel shuffle views [n, 32, h, w] as
    [n, 2, 16, h, w]. If no other tie has decided which axis is to become shorter, it is the last: code that splits
    channels writes the number of groups first, and calculates their width.
    """
    for labels in tracer.grids:
        lines = compress(_rooted(tracer.ties.roots(), labels))
        for axis in varying(lines)[:-1]:
            lines = tracer.pin(lines, axis)


def find_spaces(tracer: Tracer) -> list[Members]:
    """All spaces, in the order of the network."""
    settle_grids(tracer)
    roots = tracer.ties.roots()
    groups = _groups(tracer, roots)
    reasons: dict[int, str] = {}
    for atom, reason in tracer.reasons.items():
        reasons.setdefault(int(roots[atom]), reason)
    made: dict[int, list[int]] = {}
    for first, (_, count) in tracer.producers.items():
        for group in np.unique(groups[first : first + count]).tolist():
            made.setdefault(group, []).append(first)
    return [_members(tracer, roots, groups, group, firsts, reasons) for group, firsts in sorted(made.items())]


def _rooted(roots: Labels, labels: Labels) -> Labels:
    """Labels in which tied filters are the same."""
    return np.append(roots, FIXED)[labels]


def _groups(tracer: Tracer, roots: Labels) -> Labels:
    """For every filter the lowest one that it is decided on together with: one that the same layers make.

    A layer has filters in several spaces where others make some of them only, as in ResNets whose shortcuts add zeros:
    a filter that all stages have costs other time, and other accuracy, than one that only the last stage has. What is
    to stay equally wide is one space all the same.
    """
    groups, makers = Ties(), dict[int, tuple[int, ...]]()
    groups.new(len(roots))
    groups.tie(np.arange(len(roots)), roots)
    for first, (_, count) in tracer.producers.items():
        for root in np.unique(roots[first : first + count]).tolist():
            makers[root] = (*makers.get(root, ()), first)
    alike: dict[tuple[int, ...], int] = {}
    for root, firsts in makers.items():
        groups.tie(np.array([root]), np.array([alike.setdefault(firsts, root)]))
    connected = _connected(tracer, roots)
    for atoms in map(_channels_of, tracer.evens):
        if len(np.unique(connected[atoms])) == 1:
            groups.tie(atoms, np.full(len(atoms), atoms[0]))
    return groups.roots()


def _connected(tracer: Tracer, roots: Labels) -> Labels:
    """For every filter the lowest one that it is connected to: by a layer that makes both, or because it must be."""
    groups = Ties()
    groups.new(len(roots))
    groups.tie(np.arange(len(roots)), roots)
    for first, (_, count) in tracer.producers.items():
        groups.tie(np.arange(first, first + count), np.full(count, first))
    for even in tracer.evens:
        atoms = _channels_of(even)
        if even.needed and len(atoms):
            groups.tie(atoms, np.full(len(atoms), atoms[0]))
    return groups.roots()


def _channels_of(even: Even) -> Labels:
    """The filters that some parts consist of."""
    atoms = np.concatenate(even.parts)
    return np.asarray(atoms[atoms != FIXED])


def _members(
    tracer: Tracer, roots: Labels, groups: Labels, group: int, firsts: list[int], reasons: dict[int, str]
) -> Members:
    every = [np.arange(first, first + tracer.producers[first][1]) for first in firsts]
    made = [atoms[groups[atoms] == group] for atoms in every]
    mine = np.unique(roots[np.concatenate(made)])
    everything = np.flatnonzero(groups == group)
    protected = next((reasons[root] for root in np.unique(roots[everything]).tolist() if root in reasons), "")
    cells, uneven = _cells([even for even in tracer.evens if _within(even, roots, roots[everything])], roots, mine)
    if len(np.unique(roots[everything])) > len(mine):
        uneven = "constant channels among groups that must stay equally wide"
    return Members(
        roots=mine,
        atoms=everything,
        # A layer that is used twice makes its filters twice.
        producers=tuple(dict.fromkeys(tracer.producers[first][0] for first in firsts)),
        protected=protected
        or uneven
        or ("" if len(mine) > max(1, len(set(cells))) else "none of its filters can go alone"),
        cells=cells,
        parts=_parts([*made, *tracer.parts], roots, mine),
        repeat=math.gcd(*[len(atoms) // len(np.unique(roots[atoms])) for atoms in made]),
    )


def _within(even: Even, roots: Labels, mine: Labels) -> bool:
    """Whether all channels of the parts are filters of one space."""
    found = np.isin(_rooted(roots, _channels_of(even)), mine)
    return bool(len(found)) and bool(found.all())


def _cells(evens: list[Even], roots: Labels, mine: Labels) -> tuple[tuple[int, ...], str]:
    """The cell of each filter, and why there can be none. Wishes are given up where they cannot all be met."""
    for chosen in (evens, [even for even in evens if even.needed]):
        codes, reason = [], ""
        for even in chosen:
            code = _code(even, roots, mine)
            if code is None:
                reason = even.reason
            elif code.any():
                codes.append(code)
        if not codes and not reason:
            return (), ""
        if codes and not reason:
            _, cells, counts = np.unique(np.stack(codes), axis=1, return_inverse=True, return_counts=True)
            if len(set(counts.tolist())) == 1:
                return tuple(cells.reshape(-1).tolist()), ""
            reason = chosen[-1].reason
    return (), f"{reason}, which no cut can keep equally wide"


def _code(even: Even, roots: Labels, mine: Labels) -> Labels | None:
    """For each filter the number of the part that it is in, from 1, or 0 if it is in none.

    All 0 if any cut keeps the parts equal; None if the parts overlap.
    """
    counts = np.zeros((len(even.parts), len(mine) + 1), dtype=np.int64)
    for row, part in zip(counts, even.parts, strict=True):
        found = _rooted(roots, part)
        np.add.at(row, np.where(found == FIXED, len(mine), np.searchsorted(mine, found)), 1)
    if (counts == counts[0]).all():
        return np.zeros(len(mine), dtype=np.int64)
    constants, counts = counts[:, -1], counts[:, :-1]
    once = (counts > 0).sum(axis=0)
    if (constants != constants[0]).any() or (once > 1).any() or len(np.unique(counts[counts > 0])) > 1:
        return None
    return np.where(once > 0, counts.argmax(axis=0) + 1, 0)


def _parts(parts: list[Labels], roots: Labels, mine: Labels) -> tuple[tuple[int, ...], ...]:
    """Of each part that is made of some filters of the space only, their indices in it."""
    found: dict[tuple[int, ...], None] = {}
    for part in parts:
        labels = np.unique(_rooted(roots, part))
        inside = np.isin(labels, mine)
        if inside.any() and inside[0] and FIXED not in labels and inside.sum() < len(mine):
            found[tuple(np.searchsorted(mine, labels[inside]).tolist())] = None
    return tuple(found)
