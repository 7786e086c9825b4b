"""ChannelMap: which axes of which stored tensors must be cut together.

Every filter that may go has a number, a *channel*. A channel belongs to one *space*: the filters that one decision is
about. Each axis of a stored tensor that carries channels is a *slot*: for every index of the axis, the channel it
belongs to, or `FIXED`. Cutting is then one index-select per slot.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from edgeprune.errors import EdgepruneError
from edgeprune.files import sha256_of_json

FIXED = -1
"""The label of an index that is never cut."""

Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Space:
    """Filters that are decided on together.

    Attributes:
        name: the first layer that makes them.
        first: number of the space's first channel; the space has channels `first ... first + size - 1`.
        size: number of channels.
        producers: layers whose filters these are; several where an addition or multiplication ties them.
        consumers: layers that mix these channels.
        protected: why the space must stay whole; empty if it may be cut.
        residual: filters of several layers are added to each other, as in a residual stream; a gate only multiplies.
        linear: no activation between the filters and the layers that read them (the bottleneck of MobileNet-V2).
        after: node whose value shows the feature maps after normalisation and activation, before pooling.
        before: the same before the activation.
    """

    name: str
    first: int
    size: int
    producers: tuple[str, ...]
    consumers: tuple[str, ...]
    protected: str = ""
    residual: bool = False
    linear: bool = False
    after: str = ""
    before: str = ""


@dataclass(frozen=True, eq=False)
class Slot:
    """One axis of a stored tensor, and the channel of each of its indices (`FIXED` where none)."""

    tensor: str
    axis: int
    channels: Labels


@dataclass(frozen=True, eq=False)
class Layer:
    """A convolution or linear layer, for counting and refitting.

    Attributes:
        name: module path.
        node: the operator in the program.
        source: the node whose value it reads.
        weight: name of the stored weight [out, in / groups, ...]; [in, out, ...] in a transposed convolution.
        bias: name of the stored bias, empty if none.
        unit_macs: MACs of one (output channel, input channel) pair for one image: output positions times kernel taps.
        outputs: channel of each output.
        inputs: channel of each input that one output reads; a depthwise layer reads one, which is `FIXED` here.
        output_axis: the axis of the weight that its outputs lie on: 0, or 1 in a transposed convolution.
    """

    name: str
    node: str
    source: str
    weight: str
    bias: str
    unit_macs: int
    outputs: Labels
    inputs: Labels
    output_axis: int = 0

    @property
    def input_axis(self) -> int:
        """The axis of the weight that its inputs lie on."""
        return 1 - self.output_axis


@dataclass(frozen=True, eq=False)
class ChannelMap:
    """The channel spaces of a model.

    Attributes:
        spaces: all spaces, protected ones included, in the order of the network.
        slots: every stored axis that carries channels, one per (tensor, axis).
        layers: convolutions and linear layers, in the order they run.
        labels: node -> the channels along its axis 1, for nodes whose channels lie on that axis alone.
        shapes: stored tensor -> its uncut shape; parameters only.
    """

    spaces: tuple[Space, ...]
    slots: tuple[Slot, ...]
    layers: tuple[Layer, ...]
    labels: Mapping[str, Labels]
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    @cached_property
    def size(self) -> int:
        """Number of channels in all spaces together."""
        return sum(space.size for space in self.spaces)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the spaces and slots: equal for equal architectures, whatever the weights."""
        spaces = [[space.name, space.first, space.size, bool(space.protected)] for space in self.spaces]
        slots = [[slot.tensor, slot.axis, slot.channels.tolist()] for slot in self.slots]
        return sha256_of_json([spaces, slots])

    def space(self, name: str) -> Space:
        """The space of that name.

        Raises:
            EdgepruneError: there is none.
        """
        for space in self.spaces:
            if space.name == name:
                return space
        raise EdgepruneError(f"the model has no channel space {name!r}")

    def alive(self, keep: Mapping[str, tuple[int, ...]]) -> NDArray[np.bool_]:
        """Which channels stay, bool [size], if each named space keeps the given indices and the others stay whole."""
        alive = np.ones(self.size, dtype=bool)
        for name, kept in keep.items():
            space = self.space(name)
            alive[space.first : space.first + space.size] = False
            alive[[space.first + index for index in kept]] = True
        return alive


def kept_indices(channels: Labels, alive: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The indices of a slot that stay: those that are `FIXED` or whose channel is alive."""
    return np.flatnonzero((channels == FIXED) | alive[channels])
