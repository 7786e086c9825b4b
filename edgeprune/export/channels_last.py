"""Channels-last graphs without TRANSPOSE: where images end, the order of their values is made not to show."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, fx, nn

aten = torch.ops.aten
_FLATTENS = (aten.flatten.using_ints, aten.reshape.default, aten.view.default)
_EACH_ALIKE = (
    aten.relu.default,
    aten.relu_.default,
    aten.relu6.default,
    aten.hardtanh.default,
    aten.hardtanh_.default,
    aten.hardswish.default,
    aten.hardswish_.default,
    aten.leaky_relu.default,
    aten.sigmoid.default,
    aten.silu.default,
    aten.silu_.default,
    aten.gelu.default,
    aten.tanh.default,
    aten.dropout.default,
    aten.dropout_.default,
    aten.clone.default,
    aten.contiguous.default,
)
"""Operators on one tensor that treat all of its values alike."""


def keep_spatial_axes(module: fx.GraphModule) -> fx.GraphModule:
    """Write `x.mean((2, 3))` (and `amax`) as the same with its axes kept, then flattened. In place.

    The reduction then still has four axes, and litert-torch can turn it to channels-last; else it leaves a TRANSPOSE.
    """
    for node in list(module.graph.nodes):
        if node.target not in (aten.mean.dim, aten.amax.default) or not _drops_spatial_axes(node):
            continue
        node.args = (*node.args[:2], True)
        with module.graph.inserting_after(node):
            flat = module.graph.call_function(aten.flatten.using_ints, (node, 1))
        node.replace_all_uses_with(flat, delete_user_cb=lambda user, flat=flat: user is not flat)
    module.recompile()
    return module


def flatten_channels_last(module: fx.GraphModule) -> fx.GraphModule:
    """Flatten images pixel by pixel instead of channel by channel, and order the linear layers that follow alike.

    Linear layers see the same products in another order. Where anything else reads the flattened images, they stay as
    they are: their order then shows. The weights of the model itself are not touched; the graph gets its own.
    """
    for node in list(module.graph.nodes):
        shape = _flattened(node)
        if shape is None:
            continue
        linears = _linear_readers(node)
        if not linears:
            continue
        (source, *rest) = node.args
        with module.graph.inserting_before(node):
            pixels = module.graph.call_function(aten.permute.default, (source, [0, 2, 3, 1]))
        node.args = (pixels, *rest)
        for linear in linears:
            _order_columns(module, linear, shape)
    module.recompile()
    return module


def _flattened(node: fx.Node) -> tuple[int, int, int] | None:
    """(channels, height, width) of the images a node flattens whole, if they have more than one pixel and channel."""
    source = node.args[0] if node.target in _FLATTENS else None
    before, after = (one.meta.get("val") if isinstance(one, fx.Node) else None for one in (source, node))
    if not (isinstance(before, Tensor) and isinstance(after, Tensor)) or (before.ndim, after.ndim) != (4, 2):
        return None
    channels, height, width = before.shape[1:]
    whole = after.shape[1] == channels * height * width
    return (channels, height, width) if whole and channels > 1 and height * width > 1 else None


def _linear_readers(node: fx.Node) -> list[fx.Node]:
    """The linear layers that read a node, through operators that treat values alike; none where others read it, too."""
    found: list[fx.Node] = []
    for user in node.users:
        if user.target is aten.linear.default and user.args[0] is node and _stored(user.args[1]):
            found.append(user)
        elif user.target in _EACH_ALIKE and (beyond := _linear_readers(user)):
            found += beyond
        else:
            return []
    return found


def _stored(node: object) -> bool:
    return isinstance(node, fx.Node) and node.op == "get_attr"


def _order_columns(module: fx.GraphModule, linear: fx.Node, shape: tuple[int, int, int]) -> None:
    weight_node = linear.args[1]
    assert isinstance(weight_node, fx.Node)
    owner, _, leaf = str(weight_node.target).rpartition(".")
    holder = module.get_submodule(owner)
    weight: Tensor = getattr(holder, leaf).detach()
    ordered = weight.reshape(-1, *shape).permute(0, 2, 3, 1).reshape(weight.shape)
    name = f"{leaf}_{linear.name}"
    setattr(holder, name, nn.Parameter(ordered.contiguous(), requires_grad=False))
    with module.graph.inserting_before(linear):
        new = module.graph.get_attr(f"{owner}.{name}" if owner else name)
    linear.args = (linear.args[0], new, *linear.args[2:])
    if not weight_node.users:
        module.graph.erase_node(weight_node)


def _drops_spatial_axes(node: fx.Node) -> bool:
    source, axes, *keep = node.args
    value = source.meta.get("val") if isinstance(source, fx.Node) else None
    spatial = isinstance(axes, Sequence) and sorted(int(axis) % 4 for axis in axes) == [2, 3]  # type: ignore[arg-type]
    return spatial and isinstance(value, Tensor) and value.ndim == 4 and not any(keep)
