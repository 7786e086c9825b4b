"""How many filters of each space stay, from a word.

- "10/17/24": of ResNet's three stages, each block's first convolution.
- "keep 0.5": so much of every space that may be cut.
- "expand 0.6": so much of every expansion of MobileNet-V2; stem and last convolution stay whole.
- "apssf 0.4": what APSSF gives up by itself when 0.4 of all filters are to go.
- "as apssf 0.4": the same share of every space, so that as many MACs stay as with "apssf 0.4".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from edgeprune.channels import ChannelMap, Space
from edgeprune.prune.allocate import Scored, left_whole
from edgeprune.prune.cost import macs

Widths = dict[str, int]

_GOLDEN = 0.6180339887498949  # its multiples, less their whole parts, are spread evenly


def spaces_of(channel_map: ChannelMap) -> list[Space]:
    """The spaces that may be cut, by the rule of the papers: inside blocks."""
    whole = left_whole(channel_map)
    return [space for space in channel_map.spaces if space.name not in whole]


def widths_of(word: str, channel_map: ChannelMap, apssf: Callable[[str], Scored]) -> Widths:
    """Space name -> how many filters stay.

    Args:
        word: see above.
        channel_map: of the uncut network.
        apssf: gives the scores of APSSF for a rate.
    """
    spaces = spaces_of(channel_map)
    kind, _, number = word.rpartition(" ")
    if kind == "apssf":
        return _own(apssf(number), spaces)
    if kind == "as apssf":
        return _like(channel_map, spaces, _share(channel_map, _own(apssf(number), spaces)))
    if kind == "expand":
        spaces = spaces[1:-1]
    if kind:
        return _even(spaces, float(number))
    stages = [int(width) for width in word.split("/")]
    sizes = sorted({space.size for space in spaces})
    return {space.name: stages[sizes.index(space.size)] for space in spaces}


def _own(scored: Scored, spaces: list[Space]) -> Widths:
    return {space.name: space.size - scored.removed[space.name] for space in spaces}


def _even(spaces: list[Space], share: float) -> Widths:
    return {space.name: max(1, round(share * space.size)) for space in spaces}


def _share(channel_map: ChannelMap, widths: Mapping[str, int]) -> float:
    there = np.ones(channel_map.size)
    for name, width in widths.items():
        space = channel_map.space(name)
        there[space.first + width : space.first + space.size] = 0
    return macs(channel_map, there) / macs(channel_map, np.ones(channel_map.size))


def _like(channel_map: ChannelMap, spaces: list[Space], share: float) -> Widths:
    """The even widths whose MACs come nearest to a share; which are rounded up is spread over the network."""
    up = [place * _GOLDEN % 1 for place in range(len(spaces))]
    tried = [
        {space.name: max(1, int(thousandth / 1000 * space.size + more)) for space, more in zip(spaces, up, strict=True)}
        for thousandth in range(1, 1001)
    ]
    return min(tried, key=lambda widths: abs(_share(channel_map, widths) - share))
