"""ChannelMap: which axes of which stored tensors must be cut together.

Every filter that may go has a number, a *channel*. A channel belongs to one *space*: the filters that one decision is
about. Each axis of a stored tensor that carries channels is a *slot*: for every index of the axis, the channel it
belongs to, or `FIXED`. Cutting is then one selection per slot.
"""

from __future__ import annotations

import hashlib
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

Kept = Mapping[str, tuple[int, ...]]
"""Channel space -> the indices of its filters that stay, ascending; spaces that are not named stay whole."""


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
        cells: for each filter the number of its cell; equally many filters must stay in every cell (the groups of a
            grouped convolution). Empty if any number may stay anywhere.
        parts: sets of filters (indices in the space) of which at least one must stay.
        repeat: how many channels of its narrowest producer one filter stands for; more than one where filters of a
            layer are tied to each other, as by a channel shuffle.
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
    cells: tuple[int, ...] = ()
    parts: tuple[tuple[int, ...], ...] = ()
    repeat: int = 1

    def filters_at(self, labels: Labels) -> Labels:
        """The filter of the space that each label stands for, 0 to size - 1; `FIXED` where it stands for none."""
        filters: Labels = np.where(
            (labels >= self.first) & (labels < self.first + self.size), labels - self.first, FIXED
        )
        return filters


@dataclass(frozen=True, eq=False)
class Slot:
    """What one axis of a stored tensor carries.

    Attributes:
        tensor: its name.
        axis: the axis along which elements go.
        labels: the channel of each element (`FIXED` where none), broadcast against the tensor. It changes along `axis`
            and, in a grouped convolution, whose groups read different channels, also along the axis of its outputs.
    """

    tensor: str
    axis: int
    labels: Labels

    @property
    def channels(self) -> Labels:
        """The labels along `axis`, of the first group where groups differ: int64 [length of the axis]."""
        first = self.labels[tuple(slice(None) if axis == self.axis else 0 for axis in range(self.labels.ndim))]
        return np.atleast_1d(first)


@dataclass(frozen=True, eq=False)
class Choice:
    """Numbers by which a forward pass chooses channels, as `x[:, [2, 0, 1]]` and `x[:, self.order]` do.

    Attributes:
        constant: the placeholder of the numbers, whole ones [chosen], if the forward pass has them written into it.
        tensor: the name of the buffer that holds them; empty if none does.
        labels: the channels that they choose from, one for each index.
    """

    constant: str
    tensor: str
    labels: Labels


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
        inputs: channel of each input; a depthwise layer reads one each, which is `FIXED` here.
        output_axis: the axis of the weight that its outputs lie on: 0, or 1 in a transposed convolution.
        groups: in how many groups inputs are read; each output reads those of one group. 1 for a depthwise layer.
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
    groups: int = 1

    def macs(self, outputs: float, inputs: float) -> float:
        """MACs for one image, if it has so many outputs and inputs."""
        return self.unit_macs * outputs * inputs / self.groups

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
        labels: node -> the channel of each element of its value, an array that broadcasts against it; only nodes whose
            values have channels.
        shapes: stored tensor -> its uncut shape; parameters only.
        choices: the constants whose values count channels.
        widths: layer that says how many channels it takes and stores no tensor that tells -> the label of each.
    """

    spaces: tuple[Space, ...]
    slots: tuple[Slot, ...]
    layers: tuple[Layer, ...]
    labels: Mapping[str, Labels]
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    choices: tuple[Choice, ...] = ()
    widths: Mapping[str, Labels] = field(default_factory=dict)

    @cached_property
    def size(self) -> int:
        """Number of channels in all spaces together."""
        return sum(space.size for space in self.spaces)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the spaces and slots: equal for equal architectures, whatever the weights."""
        spaces = [[space.name, space.first, space.size, bool(space.protected), space.cells] for space in self.spaces]
        # Hashed as bytes: written out, the labels of one wide grouped convolution are megabytes of text.
        slots = [[slot.tensor, slot.axis, slot.labels.shape, _hashed(slot.labels)] for slot in self.slots]
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

    def alive(self, keep: Kept) -> NDArray[np.bool_]:
        """Which channels stay, bool [size], if each named space keeps the given indices and the others stay whole."""
        alive = np.ones(self.size, dtype=bool)
        for name, kept in keep.items():
            space = self.space(name)
            alive[space.first : space.first + space.size] = False
            alive[[space.first + index for index in kept]] = True
        return alive


def _hashed(labels: Labels) -> str:
    return hashlib.sha256(labels.astype("<i8").tobytes()).hexdigest()


def varying(labels: Labels) -> tuple[int, ...]:
    """The axes along which labels change."""
    return tuple(axis for axis, length in enumerate(labels.shape) if length > 1)


def kept_indices(channels: Labels, alive: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The indices of a slot that stay: those that are `FIXED` or whose channel is alive."""
    return np.flatnonzero((channels == FIXED) | alive[channels])
