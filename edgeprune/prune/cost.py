"""cost: what a model costs, counted on its program, and what it would cost after a cut."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import nn

from edgeprune.channels import ChannelMap, Labels
from edgeprune.plan import Cost
from edgeprune.program import Program


def cost(program: Program, channel_map: ChannelMap, module: nn.Module) -> Cost:
    """The cost of a model as it is, for one image."""
    return Cost(
        macs=round(macs(channel_map, np.ones(channel_map.size))),
        parameters=sum(parameter.numel() for parameter in module.parameters()),
        peak_activation_bytes=program.peak_bytes,
    )


def macs(channel_map: ChannelMap, share: NDArray[np.float64]) -> float:
    """MACs of convolutions and linear layers for one image, if of each channel only a `share` (0 to 1) is there.

    Args:
        channel_map: of the uncut model.
        share: float64 [channels of the map]; 0 and 1 for a real cut, between for a width still to be rounded.
    """
    shares = np.append(share, 1.0)  # FIXED reads the last entry

    def width(channels: Labels) -> float:
        return float(shares[channels].sum())

    return sum(layer.macs(width(layer.outputs), width(layer.inputs)) for layer in channel_map.layers)
