"""What each operator does to labels: one table, and the small rules of pooling, reductions and the like.

A rule sees the tracer and the node and returns the labels of the node's value, or None where it cannot follow its
channels; the tracer then protects them. Rules for layers with weights are in `layers`, those for operators that compute
element by element in `elementwise`, that move elements in `rearrange`, that join values or take them apart in `parts`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any

from torch import fx

from edgeprune.channels import FIXED, Labels, varying
from edgeprune.program import operator_of
from edgeprune.prune import layers, parts, rearrange
from edgeprune.prune.elementwise import elementwise, unchanged
from edgeprune.prune.labels import along
from edgeprune.prune.tracer import Tracer

Rule = Callable[[Tracer, fx.Node], Labels | None]

IDENTITIES = parts.COPIES | {"dropout"}
ACTIVATIONS = frozenset(
    {"relu", "relu6", "hardtanh", "sigmoid", "silu", "hardswish", "hardsigmoid", "gelu", "tanh", "leaky_relu"}
    | {"elu", "selu", "celu", "softplus", "mish", "prelu", "clamp", "clamp_min", "clamp_max", "threshold", "rrelu"}
    | {"log_sigmoid", "hardshrink", "softshrink"}
)
ARITHMETIC = frozenset(
    {"neg", "abs", "sqrt", "rsqrt", "exp", "log", "square", "reciprocal", "sign", "floor", "ceil", "round", "trunc"}
    | {"nan_to_num", "isnan", "isinf", "isfinite", "full_like"}
    | {"erf", "sin", "cos", "exp2", "expm1", "log1p", "log2", "logical_not", "bitwise_not", "zeros_like", "ones_like"}
)
ELEMENTWISE = frozenset(
    {"add", "sub", "rsub", "mul", "div", "maximum", "minimum", "pow", "gt", "ge", "lt", "le", "eq", "ne", "where"}
    | {"masked_fill", "addcmul", "addcdiv", "lerp", "logical_and", "logical_or", "bitwise_and", "bitwise_or"}
    | {"fmod", "remainder", "atan2", "copy"}
)
POOLS = frozenset(
    {f"{kind}_pool{d}d" for kind in ("avg", "max", "adaptive_avg", "adaptive_max") for d in (1, 2, 3)}
    | {f"max_pool{d}d_with_indices" for d in (2, 3)}
    | {f"{kind}{d}d" for kind in ("upsample_nearest", "_upsample_nearest_exact") for d in (1, 2, 3)}
    | {"upsample_linear1d", "upsample_bilinear2d", "upsample_bicubic2d", "upsample_trilinear3d"}
    | {"_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa", "_upsample_lanczos2d_aa"}
)
REDUCTIONS = frozenset(
    {"mean", "sum", "amax", "amin", "max", "min", "prod", "logsumexp", "linalg_vector_norm"}
    | {
        "std",
        "var",
        "std_mean",
        "var_mean",
        "median",
        "nanmedian",
        "kthvalue",
        "mode",
        "argmax",
        "argmin",
        "any",
        "all",
    }
)
VIEWS = frozenset({"view", "reshape", "flatten", "unsqueeze", "squeeze", "_unsafe_view"})
NORMS = frozenset({"_native_batch_norm_legit_no_training", "_native_batch_norm_legit", "batch_norm", "instance_norm"})
CONVOLUTIONS = frozenset({"conv1d", "conv2d", "conv3d"})
TRANSPOSED = frozenset({"conv_transpose1d", "conv_transpose2d", "conv_transpose3d"})


def pooling(tracer: Tracer, node: fx.Node) -> Labels | None:
    """Works inside each channel of a batch of maps."""
    source = node.args[0]
    dimensions = re.search(r"(\d)d", operator_of(node))
    assert dimensions is not None
    if len(tracer.shape(source)) != int(dimensions[1]) + 2 or len(node.all_input_nodes) > 1:
        return None  # without a batch axis the maps lie elsewhere
    channels = tracer.channels(source, 1)
    return None if channels is None else along(channels, 1, len(tracer.shape(node)))


def filled(tracer: Tracer, node: fx.Node) -> Labels | None:
    """Gives every element one number, in which no channel has a part."""
    known = all((tracer.labels(argument) == FIXED).all() for argument in node.all_input_nodes[1:])
    return tracer.labels(node.args[0]) if known else None


def sampling(tracer: Tracer, node: fx.Node) -> Labels | None:
    """Reads maps at places that another value tells."""
    source, places = node.args[:2]
    if varying(tracer.labels(places)):
        return None
    channels = tracer.channels(source, 1)
    return None if channels is None else along(channels, 1, len(tracer.shape(node)))


def reduction(tracer: Tracer, node: fx.Node) -> Labels | None:
    """Removes axes that carry no channels."""
    source = node.args[0]
    labels = tracer.labels(source)
    if len(node.all_input_nodes) > 1:
        return elementwise(tracer, node) if operator_of(node) in ("max", "min") else None
    dims = tracer.given(node, "dim")
    dims = [dims] if isinstance(dims, int) else dims or range(labels.ndim)
    axes = {int(d) % labels.ndim for d in dims}
    for axis in sorted(axes):
        if tracer.carries(source, axis):
            if len(axes.intersection(varying(labels))) == len(varying(labels)) or labels.size == 1:
                return tracer.refuse(node, "reduced over channels")
            labels = tracer.pin(labels, axis)
    if tracer.given(node, "keepdim"):
        return labels
    return labels.reshape([n for d, n in enumerate(labels.shape) if d not in axes])


def within_axis(tracer: Tracer, node: fx.Node, *, why: str) -> Labels | None:
    """Mixes the elements along one axis, which must not carry channels; of a grid, it keeps its length."""
    source, axis = node.args[0], tracer.axis(node)
    if tracer.carries(source, axis):
        if not tracer.is_grid(source):
            return tracer.refuse(node, why)
        return tracer.pin(tracer.labels(source), axis)
    return tracer.labels(source)


def refused(tracer: Tracer, node: fx.Node, *, why: str) -> Labels | None:
    """Is known not to be followed."""
    return tracer.refuse(node, why)


def _table() -> dict[str, Rule]:
    softmax = partial(within_axis, why="normalised over channels")
    accumulation = partial(within_axis, why="accumulated over channels")
    groups: list[tuple[Any, Rule]] = [
        (CONVOLUTIONS, layers.convolution),
        (TRANSPOSED, partial(layers.convolution, transposed=True)),
        (NORMS, layers.batch_norm),
        (IDENTITIES | ACTIVATIONS | ARITHMETIC, unchanged),
        (ELEMENTWISE, elementwise),
        (POOLS, pooling),
        (REDUCTIONS, reduction),
        (VIEWS, rearrange.view),
        ({"layer_norm", "native_layer_norm", "rms_norm"}, layers.layer_norm),
        ({"matmul", "mm", "bmm"}, layers.matrix_product),
        ({"split", "split_with_sizes", "unbind"}, parts.split),
        ({"flip", "roll"}, rearrange.reordering),
        ({"index", "index_select"}, parts.indexing),
        ({"pad", "constant_pad_nd"}, rearrange.padding),
        ({"softmax", "log_softmax", "_softmax", "_log_softmax"}, softmax),
        ({"cumsum", "cumprod", "cummax", "cummin", "logcumsumexp"}, accumulation),
        ({"sort", "topk"}, partial(within_axis, why="sorted along channels")),
        ({"baddbmm", "einsum", "scaled_dot_product_attention"}, partial(refused, why="multiplied as matrices")),
    ]
    table = {name: rule for names, rule in groups for name in names}
    singles: dict[str, Rule] = {
        "linear": layers.linear,
        "prelu": layers.prelu,
        "cat": parts.concatenation,
        "expand": rearrange.expansion,
        "permute": rearrange.permutation,
        "transpose": rearrange.transposition,
        "slice": parts.slicing,
        "slice_scatter": parts.scattering,
        "select": parts.selection,
        "getitem": parts.item,
        "glu": parts.gated_half,
        "unfold": rearrange.windows,
        "fill": filled,
        "im2col": rearrange.patches,
        "repeat_interleave": rearrange.repetition_of_each,
        "grid_sampler": sampling,
        "addmm": layers.bias_and_product,
        "group_norm": layers.group_norm,
        "stack": parts.stacking,
        "repeat": rearrange.repetition,
        "pixel_shuffle": rearrange.channels_to_positions,
        "pixel_unshuffle": rearrange.positions_to_channels,
        "channel_shuffle": rearrange.channel_shuffle,
        "native_channel_shuffle": rearrange.channel_shuffle,
    }
    return {**table, **singles}


RULES = _table()
