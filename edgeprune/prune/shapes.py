"""shapes: what the layers of a network compute, and how much of it at which widths of its spaces."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from torch import fx

from edgeprune.channels import FIXED, ChannelMap, Kept, Labels, Layer
from edgeprune.program import Program, operator_of

_FUSED = frozenset({"relu", "relu6", "hardtanh", "hardswish", "hardsigmoid", "silu", "sigmoid", "add", "mul", "clamp"})
"""Operators that runtimes may execute together with the layer before them."""


@dataclass(frozen=True)
class Side:
    """How many channels a layer reads, or makes: a line in the widths of spaces.

    Attributes:
        fixed: that no cut changes.
        each: space name -> channels for each of its filters.
    """

    fixed: float
    each: Mapping[str, float]

    def count(self, widths: Mapping[str, float]) -> float:
        """Channels at some widths."""
        return self.fixed + sum(each * widths[name] for name, each in self.each.items())


@dataclass(frozen=True)
class LayerAt:
    """A layer at some widths.

    Attributes:
        shape: what it computes but for its widths: "conv2d 3x3 56x56 to 28x28 relu".
        inputs: channels it reads; 1 for a depthwise layer.
        outputs: channels it makes.
        macs: multiply-accumulates for one image.
    """

    shape: str
    inputs: int
    outputs: int
    macs: int


@dataclass(frozen=True, eq=False)
class Layered:
    """A layer, its shape and its two sides."""

    layer: Layer
    shape: str
    inputs: Side
    outputs: Side


class Shapes:
    """A network by its layers' shapes.

    Args:
        program: of the uncut network.
        channel_map: of it.
    """

    def __init__(self, program: Program, channel_map: ChannelMap) -> None:
        self._program, self._map = program, channel_map
        self.fingerprint = channel_map.fingerprint
        self.sizes = {space.name: space.size for space in channel_map.spaces}

    @cached_property
    def layers(self) -> tuple[Layered, ...]:
        """The layers, in the order they run."""
        return tuple(
            Layered(
                layer, _shape_of(self._program, layer, self._map), self._side(layer.inputs), self._side(layer.outputs)
            )
            for layer in self._map.layers
        )

    def at(self, widths: Mapping[str, int]) -> tuple[LayerAt, ...]:
        """The layers where spaces have some widths; those not named are whole.

        A layer that reads a part of a space is said to lose its share of what the space loses.
        """
        every = {**self.sizes, **widths}
        return self._with((one.inputs.count(every), one.outputs.count(every)) for one in self.layers)

    def kept(self, keep: Kept) -> tuple[LayerAt, ...]:
        """The layers where some filters stay; spaces not named are whole."""
        alive = np.append(self._map.alive(keep), True)  # FIXED reads the last entry
        return self._with(
            (int(alive[one.layer.inputs].sum()), int(alive[one.layer.outputs].sum())) for one in self.layers
        )

    def _with(self, counts: Iterable[tuple[float, float]]) -> tuple[LayerAt, ...]:
        """The layers with so many inputs and outputs."""
        return tuple(
            LayerAt(one.shape, round(inputs), round(outputs), round(one.layer.macs(outputs, inputs)))
            for one, (inputs, outputs) in zip(self.layers, counts, strict=True)
        )

    def moved_mb(self, widths: Mapping[str, int]) -> tuple[float, ...]:
        """10^6 bytes of fp32 that each layer moves for one image: the maps it reads and writes, and its weights."""
        found = []
        for one, now in zip(self.layers, self.at(widths), strict=True):
            before, after = (math.prod(self._program.shapes[name][2:]) for name in (one.layer.source, one.layer.node))
            read = now.outputs if "depthwise" in now.shape else now.inputs
            found.append(4e-6 * (read * before + now.outputs * after + now.macs / after))
        return tuple(found)

    @cached_property
    def activations(self) -> Side:
        """Bytes of fp32 that all operators put out for one image."""
        fixed, each = 0.0, dict.fromkeys(self.sizes, 0.0)
        for node in self._program.nodes:
            total, labels = float(self._program.image_bytes(node.name)), self._map.labels.get(node.name)
            if labels is None or not labels.size:
                fixed += total
                continue
            side, unit = self._side(labels.reshape(-1)), total / labels.size
            fixed += unit * side.fixed
            for name, count in side.each.items():
                each[name] += unit * count
        return Side(fixed, {name: value for name, value in each.items() if value})

    def activation_mb(self, widths: Mapping[str, float]) -> float:
        """These at some widths, in 10^6 bytes."""
        return self.activations.count({**self.sizes, **widths}) / 1e6

    def _side(self, labels: Labels) -> Side:
        counts = {space.name: int((space.filters_at(labels) != FIXED).sum()) for space in self._map.spaces}
        each = {name: count / self.sizes[name] for name, count in counts.items() if count}
        return Side(float(labels.size - sum(counts.values())), each)


def _shape_of(program: Program, layer: Layer, channel_map: ChannelMap) -> str:
    node, weight = program.nodes[program.position[layer.node]], channel_map.shapes[layer.weight]
    entry, output = program.shapes[layer.source], program.shapes[layer.node]
    taps, before, after = ("x".join(map(str, shape[2:])) for shape in (weight, entry, output))
    depthwise = "depthwise" if len(layer.inputs) == 1 < entry[1] else ""
    groups = f"in {layer.groups} groups" if layer.groups > 1 else ""
    places = before if before == after else f"{before} to {after}"
    parts = [operator_of(node), taps, depthwise, groups, places, *_fused(node)]
    return " ".join(part for part in parts if part)


def _fused(node: fx.Node) -> list[str]:
    """What follows a layer, as long as nothing else reads what is between."""
    names: list[str] = []
    while len(node.users) == 1:
        (node,) = node.users
        name = operator_of(node).rstrip("_")
        if name == "getitem" or "batch_norm" in name:
            continue
        if name not in _FUSED:
            break
        names.append(name)
    return names
