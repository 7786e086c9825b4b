"""Labels: for every element of a tensor, the filter that must stay alive for the element to stay.

A label array broadcasts against its tensor: an axis along which the label does not change has length 1. So the output
of a convolution [N, C, H, W] has labels [1, C, 1, 1], concatenating tensors concatenates labels, flattening flattens
them, and no operator needs to know how its channels came about. `FIXED` marks what is never cut.
"""

from __future__ import annotations

import numpy as np

from edgeprune.channels import FIXED, Labels, varying


def fixed(ndim: int) -> Labels:
    """Labels of a tensor without channels."""
    return np.full((1,) * ndim, FIXED, dtype=np.int64)


def along(atoms: Labels, axis: int, ndim: int) -> Labels:
    """Labels of a tensor whose channels lie on one axis."""
    shape = [1] * ndim
    shape[axis] = len(atoms)
    return atoms.reshape(shape)


def on_axis(labels: Labels, axis: int, length: int) -> Labels | None:
    """The label of each index of one axis, or None if labels change along another axis too."""
    if any(other != axis for other in varying(labels)):
        return None
    return np.broadcast_to(labels.reshape(-1), (length,)).copy()


def compress(labels: Labels, but: int | None = None) -> Labels:
    """The same labels with length 1 on every axis, `but` one, along which they do not change."""
    for axis in varying(labels):
        first = labels.take([0], axis=axis)
        if axis != but and (labels == first).all():
            labels = first
    return labels


def reshaped(labels: Labels, before: tuple[int, ...], after: tuple[int, ...]) -> Labels:
    """Labels of a tensor of shape `before` viewed as shape `after`."""
    if (labels == FIXED).all():
        return fixed(len(after))
    return compress(np.broadcast_to(labels, before).reshape(after))


class Ties:
    """Which filters must go together: a union-find over filter numbers, of many pairs at once."""

    def __init__(self) -> None:
        self._parent = np.arange(0, dtype=np.int64)

    def new(self, count: int) -> Labels:
        """Numbers for `count` new filters."""
        first = len(self._parent)
        atoms = np.arange(first, first + count, dtype=np.int64)
        self._parent = np.append(self._parent, atoms)
        return atoms

    def _rooted(self, atoms: Labels) -> Labels:
        """The lowest filter tied to each of these; the ways there become shorter."""
        while True:
            above = self._parent[atoms]
            further = self._parent[above]
            if np.array_equal(above, further):
                return above
            self._parent[atoms] = further

    def tie(self, left: Labels, right: Labels) -> None:
        """Tie the filters of two label arrays of equal shape, element by element; `FIXED` ties nothing."""
        both = (left != FIXED) & (right != FIXED) & (left != right)
        one, other = left[both], right[both]
        while len(one):
            one, other = self._rooted(one), self._rooted(other)
            apart = one != other
            one, other = one[apart], other[apart]
            # Of several that are to stand for one filter the lowest does; the next turn ties it to the others.
            np.minimum.at(self._parent, np.maximum(one, other), np.minimum(one, other))

    def roots(self) -> Labels:
        """For every filter number the lowest filter it is tied to."""
        return self._rooted(np.arange(len(self._parent)))
