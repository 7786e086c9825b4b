"""What each operator does to labels: one table, and the small rules of operators that compute element by element.

A rule sees the tracer and the node and returns the labels of the node's value, or None where it cannot follow its
channels; the tracer then protects them. Rules for layers with weights are in `layers`, those for operators that move
elements in `rearrange`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from torch import fx

from edgeprune.channels import FIXED, Labels
from edgeprune.program import operator_of
from edgeprune.prune import layers, rearrange
from edgeprune.prune.labels import along, fixed, varying
from edgeprune.prune.tracer import Tracer

Rule = Callable[[Tracer, fx.Node], Labels | None]

IDENTITIES = frozenset({"clone", "dropout", "contiguous", "alias", "detach", "_to_copy", "to", "lift_fresh_copy"})
ACTIVATIONS = frozenset(
    {"relu", "relu6", "hardtanh", "sigmoid", "silu", "hardswish", "hardsigmoid", "gelu", "tanh", "leaky_relu"}
    | {"elu", "selu", "celu", "softplus", "mish", "prelu", "clamp", "clamp_min", "clamp_max", "threshold", "rrelu"}
    | {"log_sigmoid", "hardshrink", "softshrink"}
)
ARITHMETIC = frozenset(
    {"neg", "abs", "sqrt", "rsqrt", "exp", "log", "square", "reciprocal", "sign", "floor", "ceil", "round", "trunc"}
    | {"erf", "sin", "cos", "exp2", "expm1", "log1p", "log2"}
)
BINARY = frozenset(
    {"add", "sub", "rsub", "mul", "div", "maximum", "minimum", "pow", "gt", "ge", "lt", "le", "eq", "ne"}
)
SUMS = frozenset({"add", "sub", "rsub"})
POOLS = frozenset(
    {f"{kind}_pool{d}d" for kind in ("avg", "max", "adaptive_avg", "adaptive_max") for d in (1, 2, 3)}
    | {f"max_pool{d}d_with_indices" for d in (2, 3)}
    | {f"{kind}{d}d" for kind in ("upsample_nearest", "_upsample_nearest_exact") for d in (1, 2, 3)}
    | {"upsample_linear1d", "upsample_bilinear2d", "upsample_bicubic2d", "upsample_trilinear3d"}
    | {"_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa", "_upsample_lanczos2d_aa"}
)
REDUCTIONS = frozenset(
    {"mean", "sum", "amax", "amin", "max", "min", "prod", "logsumexp", "linalg_vector_norm"}
    | {"std", "var", "std_mean", "var_mean"}
)
VIEWS = frozenset({"view", "reshape", "flatten", "unsqueeze", "squeeze", "_unsafe_view"})
NORMS = frozenset({"_native_batch_norm_legit_no_training", "batch_norm"})
CONVOLUTIONS = frozenset({"conv1d", "conv2d", "conv3d"})
TRANSPOSED = frozenset({"conv_transpose1d", "conv_transpose2d", "conv_transpose3d"})


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
        sides = [_alone(tracer, node, side) for side in sides]
    whole = np.broadcast_shapes(sides[0].shape, sides[1].shape)
    a, b = (np.broadcast_to(side, whole) for side in sides)
    for mine, other, node_of_other in ((a, b, right), (b, a, left)):
        alone = (mine != FIXED) & (other == FIXED)
        if alone.any() and not tracer.follows(node_of_other, mine, ndim):
            tracer.protect(
                mine[alone], f"meets a tensor whose channels cannot be cut ({tracer.layer(node)}: {node.name})"
            )
    if operator_of(node) in SUMS:
        tracer.sums.update(np.unique(np.concatenate([side[(a != FIXED) & (b != FIXED) & (a != b)] for side in (a, b)])))
    tracer.tie(a, b)
    return np.where(a == FIXED, b, a)


def _alone(tracer: Tracer, node: fx.Node, labels: Labels) -> Labels:
    """A single filter that meets many channels stays, so that it does not tie them all together."""
    if labels.size > 1:
        return labels
    tracer.protect(labels, f"one filter that all channels meet ({tracer.layer(node)}: {node.name})")
    return fixed(labels.ndim)


def pooling(tracer: Tracer, node: fx.Node) -> Labels | None:
    """Works inside each channel of a batch of maps."""
    source = node.args[0]
    dimensions = re.search(r"(\d)d", operator_of(node))
    assert dimensions is not None
    if len(tracer.shape(source)) != int(dimensions[1]) + 2 or len(node.all_input_nodes) > 1:
        return None  # without a batch axis the maps lie elsewhere
    channels = tracer.channels(source, 1)
    return None if channels is None else along(channels, 1, len(tracer.shape(node)))


def reduction(tracer: Tracer, node: fx.Node) -> Labels | None:
    """Removes axes that carry no channels."""
    source = node.args[0]
    labels = tracer.labels(source)
    if len(node.all_input_nodes) > 1:
        return None
    dims = tracer.given(node, "dim")
    dims = [dims] if isinstance(dims, int) else dims or range(labels.ndim)
    axes = {int(d) % labels.ndim for d in dims}
    if any(tracer.carries(source, axis) for axis in axes):
        return tracer.refuse(node, "reduced over channels")
    if tracer.given(node, "keepdim"):
        return labels
    return labels.reshape([n for d, n in enumerate(labels.shape) if d not in axes])


def within_axis(tracer: Tracer, node: fx.Node, *, why: str) -> Labels | None:
    """Mixes the elements along one axis, which must not carry channels."""
    if tracer.carries(node.args[0], tracer.axis(node)):
        return tracer.refuse(node, why)
    return tracer.labels(node.args[0])


def refused(tracer: Tracer, node: fx.Node, *, why: str) -> Labels | None:
    """Is known not to be followed."""
    return tracer.refuse(node, why)


def _table() -> dict[str, Rule]:
    softmax = partial(within_axis, why="normalised over channels")
    accumulation = partial(within_axis, why="accumulated over channels")
    matrices = partial(refused, why="multiplied as matrices")
    groups: list[tuple[Any, Rule]] = [
        (CONVOLUTIONS, layers.convolution),
        (TRANSPOSED, layers.transposed_convolution),
        (NORMS, layers.batch_norm),
        (IDENTITIES | ACTIVATIONS | ARITHMETIC, unchanged),
        (BINARY, binary),
        (POOLS, pooling),
        (REDUCTIONS, reduction),
        (VIEWS, rearrange.view),
        ({"layer_norm", "native_layer_norm", "rms_norm"}, layers.layer_norm),
        ({"group_norm", "native_group_norm"}, layers.group_norm),
        ({"split", "split_with_sizes", "unbind"}, rearrange.split),
        ({"flip", "roll"}, rearrange.reordering),
        ({"pad", "constant_pad_nd"}, rearrange.padding),
        ({"softmax", "log_softmax", "_softmax", "_log_softmax"}, softmax),
        ({"cumsum", "cumprod"}, accumulation),
        ({"matmul", "bmm", "mm", "baddbmm", "einsum"}, matrices),
        ({"pixel_shuffle", "pixel_unshuffle"}, partial(refused, why="channels traded for positions")),
    ]
    table = {name: rule for names, rule in groups for name in names}
    singles: dict[str, Rule] = {
        "linear": layers.linear,
        "instance_norm": layers.instance_norm,
        "prelu": layers.prelu,
        "cat": rearrange.concatenation,
        "expand": rearrange.expansion,
        "permute": rearrange.permutation,
        "transpose": rearrange.transposition,
        "slice": rearrange.slicing,
        "select": rearrange.selection,
        "getitem": rearrange.item,
        "glu": partial(within_axis, why="split along channels"),
        "channel_shuffle": partial(refused, why="channels put in another order"),
    }
    return {**table, **singles}


RULES = _table()
