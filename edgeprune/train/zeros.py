"""Filters at zero: which numbers of a network that takes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import torch
from torch import Tensor, fx, nn

from edgeprune.channels import FIXED, ChannelMap, Slot
from edgeprune.inference import norm_after
from edgeprune.program import Program
from edgeprune.resize import all_tensors
from edgeprune.train.order import Zero


def everything(channel_map: ChannelMap, keep: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Every stored number that belongs to the filters that are not kept, also those they are read with.

    Args:
        channel_map: of the network.
        keep: space -> the filters that stay; spaces not named stay whole.

    Returns:
        Stored tensor -> bool, broadcasts against it; tensors of which none go are absent.
    """
    return _numbers(channel_map, keep, channel_map.slots)


def recoverable(
    channel_map: ChannelMap, program: Program, keep: Mapping[str, tuple[int, ...]], zero: Zero
) -> dict[str, Tensor]:
    """Numbers that keep a filter that is to go from putting anything out, but from which it may recover.

    Running statistics and the weights that read the filter are left as they are.

    Args:
        channel_map: of the network.
        program: of the network.
        keep: space -> the filters that stay; spaces not named stay whole.
        zero: "scales": scale and offset of the normalisation after the filter, and whatever else is one number a
            channel; the filter's own weights only where no normalisation with a scale follows. "weights": the filter's
            weights and bias, as in soft filter pruning; a normalisation then puts out its offset.

    Returns:
        As `everything`.
    """
    uses = [(layer, norm_after(program, program.nodes[program.position[layer.node]])) for layer in channel_map.layers]
    bare = {layer.weight for layer, norm in uses if norm is None or not isinstance(norm.args[1], fx.Node)}
    reading = {(layer.weight, layer.input_axis) for layer, _ in uses}
    own = {name for layer, _ in uses for name in (layer.weight, layer.bias)}
    scaled = {name for layer, _ in uses if layer.weight not in bare for name in (layer.weight, layer.bias)}

    def is_zero(slot: Slot) -> bool:
        if (slot.tensor, slot.axis) in reading or slot.tensor not in channel_map.shapes:
            return False
        return slot.tensor in own if zero == "weights" else slot.tensor not in scaled

    return _numbers(channel_map, keep, filter(is_zero, channel_map.slots))


def set_to_zero(module: nn.Module, numbers: Mapping[str, Tensor]) -> None:
    """Set numbers of a network to zero, in place, on whatever device they are."""
    tensors = all_tensors(module)
    with torch.no_grad():
        for name, mask in numbers.items():
            tensors[name].masked_fill_(mask, 0)


def _numbers(channel_map: ChannelMap, keep: Mapping[str, tuple[int, ...]], slots: Iterable[Slot]) -> dict[str, Tensor]:
    alive = channel_map.alive(keep)
    found: dict[str, Tensor] = {}
    for slot in slots:
        gone = (slot.labels != FIXED) & ~alive[slot.labels]
        if gone.any():
            mask = torch.from_numpy(np.ascontiguousarray(gone))
            found[slot.tensor] = found[slot.tensor] | mask if slot.tensor in found else mask
    return found
