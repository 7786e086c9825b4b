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
    """Which filters must go together: a union-find over filter numbers."""

    def __init__(self) -> None:
        self._parent: list[int] = []

    def new(self, count: int) -> Labels:
        """Numbers for `count` new filters."""
        first = len(self._parent)
        self._parent.extend(range(first, first + count))
        return np.arange(first, first + count, dtype=np.int64)

    def root(self, atom: int) -> int:
        """The lowest filter tied to this one."""
        while self._parent[atom] != atom:
            self._parent[atom] = self._parent[self._parent[atom]]
            atom = self._parent[atom]
        return atom

    def tie(self, left: Labels, right: Labels) -> None:
        """Tie the filters of two label arrays of equal shape, element by element; `FIXED` ties nothing."""
        both = (left != FIXED) & (right != FIXED) & (left != right)
        for a, b in set(zip(left[both].tolist(), right[both].tolist(), strict=True)):
            low, high = sorted((self.root(a), self.root(b)))
            self._parent[high] = low

    def roots(self) -> Labels:
        """For every filter number the lowest filter it is tied to."""
        roots = np.array(self._parent, dtype=np.int64)
        while (further := roots[roots]).tolist() != roots.tolist():
            roots = further
        return roots
