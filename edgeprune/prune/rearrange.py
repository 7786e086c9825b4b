"""What operators that move elements do to labels: views, transposes, padding, repeating, shuffling.

A rule sees the tracer and the node and returns the labels of the node's value, or None where it cannot follow its
channels; the tracer then protects them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import fx

from edgeprune.channels import FIXED, Labels, varying
from edgeprune.program import operator_of
from edgeprune.prune.labels import along, reshaped
from edgeprune.prune.parts import whole
from edgeprune.prune.tracer import Tracer


def view(tracer: Tracer, node: fx.Node) -> Labels | None:
    """Merges and splits axes; channels that come to lie on several axes form a grid, of which whole lines go."""
    source = node.args[0]
    labels = reshaped(tracer.labels(source), tracer.shape(source), tracer.shape(node))
    if len(varying(labels)) > 1:
        tracer.grids.append(labels)
    return labels


def expansion(tracer: Tracer, node: fx.Node) -> Labels | None:
    """Repeats along axes of length 1."""
    labels = tracer.labels(node.args[0])
    return labels.reshape((1,) * (len(tracer.shape(node)) - labels.ndim) + labels.shape)


def permutation(tracer: Tracer, node: fx.Node) -> Labels | None:
    """Moves axes."""
    labels = tracer.labels(node.args[0])
    order = [int(d) % labels.ndim for d in node.args[1]]  # type: ignore[union-attr, arg-type]
    return labels.transpose(order)


def transposition(tracer: Tracer, node: fx.Node) -> Labels | None:
    """Swaps two axes."""
    return np.swapaxes(tracer.labels(node.args[0]), int(node.args[1]), int(node.args[2]))  # type: ignore[arg-type]


def reordering(tracer: Tracer, node: fx.Node) -> Labels | None:
    """Flips or rolls."""
    source, axes = node.args[0], tracer.given(node, "dims")
    if not axes or len(node.all_input_nodes) > 1:
        return None
    labels = tracer.labels(source)
    if operator_of(node) == "roll":
        return np.roll(labels, tracer.given(node, "shifts"), axes)
    return np.flip(labels, axes)


def padding(tracer: Tracer, node: fx.Node) -> Labels | None:
    """Adds constants around. On the channel axis they count as filters of no layer: tied to a layer's, they may go."""
    labels = tracer.labels(node.args[0])
    pads: list[Any] = list(node.args[1])  # type: ignore[arg-type]
    for k in range(len(pads) // 2):
        axis = labels.ndim - 1 - k
        low, high = pads[2 * k : 2 * k + 2]
        if not tracer.carries(node.args[0], axis) or (low, high) == (0, 0):
            continue
        if isinstance(low, fx.Node) or isinstance(high, fx.Node):
            return tracer.refuse(node, "padded by a calculated amount along channels")
        if low < 0 or high < 0 or len(varying(labels)) > 1:
            return tracer.refuse(node, "trimmed along channels")
        before, after = (along(tracer.ties.new(width), axis, labels.ndim) for width in (low, high))
        labels = np.concatenate([before, whole(tracer, node.args[0], axis), after], axis=axis)
    return labels


def repetition(tracer: Tracer, node: fx.Node) -> Labels | None:
    """Repeats a value along its axes, as a whole (`repeat`)."""
    source = node.args[0]
    times = list(tracer.given(node, "repeats"))
    labels = tracer.labels(source)
    labels = labels.reshape((1,) * (len(times) - labels.ndim) + labels.shape)
    counts = [count if labels.shape[axis] > 1 else 1 for axis, count in enumerate(times)]
    single = labels.size == 1 and (labels != FIXED).all() and any(count != 1 for count in times)
    calculated = any(isinstance(count, fx.Node) for count in counts)
    return None if single or calculated else np.tile(labels, counts)


def repetition_of_each(tracer: Tracer, node: fx.Node) -> Labels | None:
    """Repeats every index of one axis, the same number of times each (`repeat_interleave`)."""
    source, times, axis = node.args[0], tracer.given(node, "repeats"), tracer.given(node, "dim")
    if not isinstance(times, int) or axis is None:
        return None
    labels = tracer.labels(source)
    if labels.shape[axis] == 1:
        return None if tracer.carries(source, axis) else labels
    return np.repeat(labels, times, axis=axis)


def windows(tracer: Tracer, node: fx.Node) -> Labels | None:
    """Takes windows of one axis, which must not carry channels, on a new last axis (`Tensor.unfold`)."""
    source, axis = node.args[0], int(tracer.given(node, "dimension")) % len(tracer.shape(node.args[0]))
    if tracer.carries(source, axis):
        return tracer.refuse(node, "taken in windows along channels")
    return tracer.labels(source)[..., None]


def patches(tracer: Tracer, node: fx.Node) -> Labels | None:
    """Takes every channel's window around each position as channels (`F.unfold`)."""
    source = node.args[0]
    if len(tracer.shape(source)) != 4:
        return None
    channels = tracer.channels(source, 1)
    return None if channels is None else along(np.repeat(channels, tracer.shape(node)[1] // len(channels)), 1, 3)


def channels_to_positions(tracer: Tracer, node: fx.Node) -> Labels | None:
    """`pixel_shuffle`: one channel out of every r x r, which go or stay together."""
    source, size = node.args[0], int(node.args[1]) ** 2  # type: ignore[arg-type]
    ndim = len(tracer.shape(source))
    channels = tracer.channels(source, ndim - 3)
    return None if channels is None else along(tracer.pin(channels.reshape(-1, size), 1).reshape(-1), ndim - 3, ndim)


def positions_to_channels(tracer: Tracer, node: fx.Node) -> Labels | None:
    """`pixel_unshuffle`: r x r channels out of every one."""
    source, size = node.args[0], int(node.args[1]) ** 2  # type: ignore[arg-type]
    ndim = len(tracer.shape(source))
    channels = tracer.channels(source, ndim - 3)
    return None if channels is None else along(np.repeat(channels, size), ndim - 3, ndim)


def channel_shuffle(tracer: Tracer, node: fx.Node) -> Labels | None:
    """Deals channels out in turn from every group; of all groups the same places go."""
    source, groups = node.args[0], int(node.args[1])  # type: ignore[arg-type]
    channels = tracer.channels(source, 1)
    if channels is None:
        return None
    grid = channels.reshape(groups, -1)
    tracer.pin(grid, 0)
    return along(grid.T.reshape(-1), 1, len(tracer.shape(source)))
