"""describe: ChannelMap -> what a person wants to know: who is tied to whom, what may go, why the rest may not."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from edgeprune.channels import FIXED, ChannelMap, Labels, Layer, Space
from edgeprune.plan import Cost
from edgeprune.prune.allocate import Scope, left_whole
from edgeprune.prune.cost import macs

SCHEMA = 1


@dataclass(frozen=True)
class SpaceFacts:
    """One channel space.

    Attributes:
        name: the first layer that makes its filters.
        filters: how many.
        producers: layers whose filters these are; if several, the same filters go in all of them.
        consumers: layers that read them.
        protected: whether no scope may cut it.
        left_whole: why it is not cut; empty if its filters are free.
        macs_share: share of the model's MACs that make or read its filters, 0 to 1.
        groups: in how many groups they lie, each of which must keep as many as the others; 1 if any may go.
        channels_each: how many channels of the layer that makes them one filter stands for; more than one where some
            are tied to each other, as by a channel shuffle.
    """

    name: str
    filters: int
    producers: tuple[str, ...]
    consumers: tuple[str, ...]
    protected: bool
    left_whole: str
    macs_share: float
    groups: int = 1
    channels_each: int = 1


@dataclass(frozen=True)
class LayerFacts:
    """One convolution or linear layer; one that is used twice counts twice.

    Attributes:
        name: module path.
        macs: of one image.
        reads: names of the spaces that it mixes; empty if it reads the image, or is depthwise.
        gives: names of the spaces its outputs belong to; it has made them unless it is depthwise.
    """

    name: str
    macs: int
    reads: tuple[str, ...]
    gives: tuple[str, ...]


@dataclass(frozen=True)
class Description:
    """The channel spaces of a model, for people and for scripts.

    Attributes:
        model: short name.
        source: what builds it.
        input: (channels, height, width) of an image.
        scope: which spaces were asked to be free, "inner" or "all".
        fingerprint: of the channel map; a plan's field `model`.
        cost: of the model as it is.
        free_macs_share: share of the MACs that make or read at least one free filter, 0 to 1.
        spaces: all of them, in the order of the network.
        layers: in the order they run.
    """

    model: str
    source: str
    input: tuple[int, int, int]
    scope: Scope
    fingerprint: str
    cost: Cost
    free_macs_share: float
    spaces: tuple[SpaceFacts, ...]
    layers: tuple[LayerFacts, ...]

    @property
    def filters(self) -> int:
        """How many filters all spaces have together; filters that are tied count once."""
        return sum(space.filters for space in self.spaces)

    @property
    def free(self) -> int:
        """How many of them belong to spaces that may be cut."""
        return sum(space.filters for space in self.spaces if not space.left_whole)

    def to_json(self) -> dict[str, Any]:
        """This description as a JSON document."""
        return {"schema": SCHEMA, **asdict(self), "filters": self.filters, "free": self.free}


@dataclass(frozen=True)
class Named:
    """Which model is described: its short name, what builds it, and the (channels, height, width) it was traced at."""

    name: str
    source: str
    input: tuple[int, int, int]


def describe(named: Named, channel_map: ChannelMap, cost: Cost, scope: Scope = "inner") -> Description:
    """Say what may be cut of a model under a scope, and what may not and why."""
    whole = left_whole(channel_map, scope)
    free = [space for space in channel_map.spaces if space.name not in whole]
    return Description(
        model=named.name,
        source=named.source,
        input=named.input,
        scope=scope,
        fingerprint=channel_map.fingerprint,
        cost=cost,
        free_macs_share=_macs_share(channel_map, free),
        spaces=tuple(_space(channel_map, space, whole.get(space.name, "")) for space in channel_map.spaces),
        layers=_layers(channel_map),
    )


def _space(channel_map: ChannelMap, space: Space, reason: str) -> SpaceFacts:
    return SpaceFacts(
        name=space.name,
        filters=space.size,
        producers=space.producers,
        consumers=space.consumers,
        protected=bool(space.protected),
        left_whole=reason,
        macs_share=_macs_share(channel_map, [space]),
        groups=len(set(space.cells)) or 1,
        channels_each=space.repeat,
    )


def _macs_share(channel_map: ChannelMap, spaces: list[Space]) -> float:
    """The share of the MACs that would be gone if none of the spaces' filters were there."""
    share = np.ones(channel_map.size)
    whole = macs(channel_map, share)
    for space in spaces:
        share[space.first : space.first + space.size] = 0
    return 1 - macs(channel_map, share) / whole if whole else 0.0


def _layers(channel_map: ChannelMap) -> tuple[LayerFacts, ...]:
    used: dict[str, list[Layer]] = {}
    for layer in channel_map.layers:
        used.setdefault(layer.name, []).append(layer)
    return tuple(
        LayerFacts(
            name=name,
            macs=round(sum(use.macs(len(use.outputs), len(use.inputs)) for use in uses)),
            reads=_spaces_of(channel_map, np.concatenate([use.inputs for use in uses])),
            gives=_spaces_of(channel_map, np.concatenate([use.outputs for use in uses])),
        )
        for name, uses in used.items()
    )


def _spaces_of(channel_map: ChannelMap, channels: Labels) -> tuple[str, ...]:
    return tuple(space.name for space in channel_map.spaces if (space.filters_at(channels) != FIXED).any())
