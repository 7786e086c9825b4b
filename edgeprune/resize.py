"""A copy of a network with other tensors in it, possibly of other sizes."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd


def with_tensors(
    module: nn.Module, tensors: Mapping[str, Tensor], widths: Mapping[str, int] = MappingProxyType({})
) -> nn.Module:
    """A deep copy of `module` in which each named parameter or buffer is replaced.

    The size attributes of PyTorch's own layers (`out_channels`, `num_features`, ...) are kept true to their tensors. A
    depthwise convolution stays one: its groups follow its channels. Data type, `requires_grad` and sharing are kept:
    two names given the same tensor object share one parameter afterwards.

    Args:
        module: any network; not changed.
        tensors: full name ("layer1.0.conv1.weight") to the new tensor, of the same rank as the old; copied.
        widths: path of a layer without tensors (see `bare_widths`) to the number of channels that it takes.

    Returns:
        The copy, on the class of `module`, in the same mode (eval or training).

    Raises:
        KeyError: no parameter or buffer has that name.
        ValueError: the rank differs, or a depthwise convolution is left with a part of a channel's filters.
    """
    owned = all_tensors(module)
    for name, tensor in tensors.items():
        if name not in owned:
            raise KeyError(name)
        if owned[name].ndim != tensor.ndim:
            raise ValueError(f"{name}: rank {tensor.ndim} given, {owned[name].ndim} wanted")
    kinds = {(id(tensor), owned[name].dtype): (owned[name], tensor) for name, tensor in tensors.items()}
    made = {key: _like(old, tensor) for key, (old, tensor) in kinds.items()}
    new = {name: made[id(tensor), owned[name].dtype] for name, tensor in tensors.items()}
    kept = {id(old) for name, old in owned.items() if name not in new}
    # What is replaced need not be copied first: half the time of cutting a large network.
    changed = copy.deepcopy(
        module, {id(owned[name]): tensor for name, tensor in new.items() if id(owned[name]) not in kept}
    )
    owners: dict[str, nn.Module] = {}
    for name, tensor in new.items():
        path, _, attribute = name.rpartition(".")
        owners[path] = owner = changed.get_submodule(path)
        setattr(owner, attribute, tensor)
    for owner in owners.values():
        for kind, mend in _SIZES:
            if isinstance(owner, kind):
                mend(owner)
    for path, width in widths.items():
        _mend_bare(changed.get_submodule(path), width)
    return changed


def all_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Every parameter and buffer by name, those that `state_dict` leaves out and shared ones included; not copied."""
    parameters = dict(module.named_parameters(remove_duplicate=False))
    return {**parameters, **dict(module.named_buffers(remove_duplicate=False))}


def own_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Every parameter and buffer by the first of its names; not copied."""
    first: dict[int, str] = {}
    tensors = all_tensors(module)
    return {name: one for name, one in tensors.items() if first.setdefault(id(one), name) == name}


def copy_tensors(source: nn.Module, module: nn.Module) -> None:
    """Copy the numbers of one network into another of the same architecture, in place, on whatever device they are."""
    numbers = all_tensors(source)
    with torch.no_grad():
        for name, tensor in all_tensors(module).items():
            tensor.copy_(numbers[name])


def bare_widths(module: nn.Module) -> dict[str, int]:
    """Path -> channels of each normalisation that has that number as an attribute only: it stores no tensors."""
    return {
        path: getattr(layer, _width_of(layer))
        for path, layer in module.named_modules(remove_duplicate=False)
        if isinstance(layer, _NormBase | nn.GroupNorm) and not all_tensors(layer)
    }


def _width_of(layer: nn.Module) -> str:
    return "num_channels" if isinstance(layer, nn.GroupNorm) else "num_features"


def _mend_bare(layer: Any, width: int) -> None:
    if isinstance(layer, nn.GroupNorm):
        _set_groups(layer, width)
    else:
        layer.num_features = width


def _like(old: Tensor, tensor: Tensor) -> Tensor:
    new = tensor.detach().to(old.dtype).clone(memory_format=torch.contiguous_format)
    return nn.Parameter(new, requires_grad=old.requires_grad) if isinstance(old, nn.Parameter) else new


def _mend_conv(layer: Any) -> None:
    first, second = layer.weight.shape[:2]
    if isinstance(layer, _ConvTransposeNd):
        if layer.groups == layer.in_channels > 1:
            layer.groups = first
        layer.in_channels, layer.out_channels = first, second * layer.groups
        return
    if layer.groups == layer.in_channels > 1 and second == 1:
        multiplier = layer.out_channels // layer.in_channels
        if first % multiplier:
            raise ValueError(f"{first} filters in a depthwise convolution of {multiplier} filters a channel")
        layer.groups = first // multiplier
    layer.in_channels, layer.out_channels = second * layer.groups, first


def _mend_linear(layer: Any) -> None:
    layer.out_features, layer.in_features = layer.weight.shape


def _mend_norm(layer: Any) -> None:
    sized = layer.weight if layer.weight is not None else layer.running_mean
    layer.num_features = sized.shape[0]


def _mend_group_norm(layer: Any) -> None:
    _set_groups(layer, layer.weight.shape[0])


def _set_groups(layer: nn.GroupNorm, channels: int) -> None:
    width = layer.num_channels // layer.num_groups
    if channels % width:
        raise ValueError(f"{channels} channels normalised in groups of {width}")
    layer.num_channels, layer.num_groups = channels, channels // width


def _mend_layer_norm(layer: Any) -> None:
    layer.normalized_shape = tuple(layer.weight.shape)


def _mend_prelu(layer: Any) -> None:
    layer.num_parameters = layer.weight.numel()


_SIZES: tuple[tuple[type[nn.Module], Callable[[Any], None]], ...] = (
    (_ConvNd, _mend_conv),
    (nn.Linear, _mend_linear),
    (_NormBase, _mend_norm),
    (nn.GroupNorm, _mend_group_norm),
    (nn.LayerNorm, _mend_layer_norm),
    (nn.RMSNorm, _mend_layer_norm),
    (nn.PReLU, _mend_prelu),
)
"""Layers whose size attributes are read when they run or are exported, and how to make them true."""
