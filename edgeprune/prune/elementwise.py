"""What operators that compute element by element do to labels: they tie the channels of their operands.

A rule sees the tracer and the node and returns the labels of the node's value, or None where it cannot follow its
channels; the tracer then protects them.
"""

from __future__ import annotations

import numpy as np
from torch import fx

from edgeprune.channels import FIXED, Labels, varying
from edgeprune.program import operator_of
from edgeprune.prune.labels import along, fixed
from edgeprune.prune.tracer import Tracer

SUMS = frozenset({"add", "sub", "rsub"})


def unchanged(tracer: Tracer, node: fx.Node) -> Labels | None:
    """Treats every element alike; bounds given as tensors are operands."""
    if len(node.all_input_nodes) == 1:
        return _operand(tracer, node, node.all_input_nodes[0])
    return elementwise(tracer, node) if operator_of(node) in ("clamp", "clamp_min", "clamp_max") else None


def elementwise(tracer: Tracer, node: fx.Node) -> Labels | None:
    """Ties the channels of its operands; a stored operand is cut along."""
    ndim = len(tracer.shape(node))
    operands = [
        argument for argument in node.args if isinstance(argument, fx.Node) and argument.name in tracer.program.shapes
    ]
    sides = [_operand(tracer, node, operand) for operand in operands]
    sides = [side.reshape((1,) * (ndim - side.ndim) + side.shape) for side in sides]
    if len(sides) == 1:
        return sides[0]
    if any(varying(side) for side in sides):
        sides = [tracer.alone(node, side) for side in sides]
    if not _let_go(tracer, node, sides):
        return None
    whole = np.broadcast_shapes(*[side.shape for side in sides])
    sides = [np.broadcast_to(side, whole) for side in sides]
    merged = fixed(ndim)
    for side in sorted(sides, key=tracer.is_loose):
        merged = np.where(merged == FIXED, side, merged)
    for side, operand in zip(sides, operands, strict=True):
        alone = (side == FIXED) & (merged != FIXED)
        if alone.any() and not tracer.follows(operand, merged, ndim):
            place = f"({tracer.layer(node)}: {node.name})"
            tracer.protect(merged[alone], f"meets a tensor whose channels cannot be cut {place}")
        if operator_of(node) in SUMS and not tracer.is_loose(side):
            different = (side != FIXED) & (merged != FIXED) & (side != merged)
            tracer.sums.update(np.unique(np.concatenate([side[different], merged[different]])).tolist())
        tracer.tie(side, merged)
    return merged


def _operand(tracer: Tracer, node: fx.Node, operand: fx.Node) -> Labels:
    """The labels of an operand.

    A stored row of numbers that is calculated with before it meets channels (the scale of a frozen batch norm) gets
    labels of its own: filters of no layer, which go with those that they are tied to.
    """
    if tracer.stored(tracer.origin(operand)) is None:
        return tracer.labels(operand)
    shape = tracer.shape(operand)
    axes = [axis for axis, length in enumerate(shape) if length > 1]
    if node in tracer.from_stored and len(axes) == 1 and (tracer.labels(operand) == FIXED).all():
        atoms = tracer.ties.new(shape[axes[0]])
        tracer.loose.update(atoms.tolist())
        tracer.found[operand.name] = along(atoms, axes[0], len(shape))
    labels = tracer.labels(operand)
    for axis in varying(labels):
        tracer.slot_of_labels(operand, axis, labels)
    return labels


def _let_go(tracer: Tracer, node: fx.Node, sides: list[Labels]) -> bool:
    """Take back the labels of stored numbers that turn out to lie along another axis than the channels; in place.

    False where there are no channels to tell.
    """
    axes = {axis for side in sides if not tracer.is_loose(side) for axis in varying(side)}
    for place, side in enumerate(sides):
        if axes and not axes.issuperset(varying(side)):
            tracer.protect(side, f"one number for each position ({tracer.layer(node)}: {node.name})")
            sides[place] = fixed(side.ndim)
    return len({varying(side) for side in sides if varying(side)}) <= 1 or bool(axes)
