"""readers: the layers that read a space, what they see on calibration images, and what is lost when filters go."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from edgeprune.channels import FIXED, ChannelMap, Labels, Layer, Space
from edgeprune.criteria.elimination import Reading, errors_of, lowest_first
from edgeprune.distance import distance
from edgeprune.inference import gain_after
from edgeprune.patches import Rows, can_refit, groups_of
from edgeprune.program import Program, run_node
from edgeprune.prune.cost import macs
from edgeprune.resize import all_tensors
from edgeprune.walk import Change, Walk, refuse_infinite

IMAGES = (32, 128)
"""Calibration images for which the outputs are looked at, for each space: fewest, and most."""

_MACS = 2e12
"""What looking at the outputs once may cost, for all spaces together: about a minute on two cores of a PC."""

_DEEPEST = 0.9
"""The largest share of a space's filters without which the outputs are looked at."""
_LOOKS = 3
"""For each space: once without the share that shall go; then without more, with the fewest images."""

_NONE = 1e-12


class Readers:
    """What the layers that read spaces of a model see, found on one walk over the calibration images.

    Args:
        channel_map: of the model.
        program: of the model.
        module: the model.
        walk: over it.
        spaces: how many will be asked about.
    """

    def __init__(
        self, channel_map: ChannelMap, program: Program, module: nn.Module, walk: Walk, spaces: int = 1
    ) -> None:
        self._map, self._program, self._walk = channel_map, program, walk
        self._state = {name: tensor.detach() for name, tensor in all_tensors(module).items()}
        self._found: tuple[str, dict[str, Reading]] = ("", {})
        self._uncut: dict[int, list[tuple[Tensor, ...]]] = {}
        each = spaces * macs(channel_map, np.ones(channel_map.size))
        self._images = int(np.clip(_MACS / max(each, 1.0), *IMAGES))

    def readings(self, space: Space) -> dict[str, Reading]:
        """By the node of each layer that reads the space, what it reads. Those of the last space asked for are kept."""
        if self._found[0] != space.name:
            found = {layer.node: self._reading(layer, space, filters) for layer, filters in self._layers(space)}
            self._found = (space.name, found)
        return self._found[1]

    def damage(self, space: Space, scores: Tensor, errors: Tensor | None, share: float) -> Tensor:
        """How far the outputs move when a space alone is cut, by the number of filters that stay, float64 [n + 1].

        The error of the refitted readers is known for every number of filters; the outputs are looked at for a few, and
        said to move in proportion to the error: to second order both are squares of the same disturbance. Between two
        looks they go with a power of the error, so that a small share that shall go does not tell of a space that then
        loses nearly all of its filters. (That layers are judged by what the output loses is the way of NetAdapt, Yang
        et al. 2018, https://arxiv.org/abs/1804.03230; the rest is our choice, measured in docs/decisions/0011, 0020.)

        Args:
            space: the space.
            scores: float [n]; lower ones go first.
            errors: of the readers, float64 [n + 1], if they are known already.
            share: of the filters that may go: where the outputs are looked at first.
        """
        order = lowest_first(scores)
        if errors is None:
            errors = errors_of(list(self.readings(space).values()), order)
        widths = _looked_at(space.size, share)
        images = [self._images] + [IMAGES[0]] * (len(widths) - 1)
        moved = [
            self._moved(space, order[: space.size - width], count) for width, count in zip(widths, images, strict=True)
        ]
        at, far = errors.clamp_min(_NONE).log(), torch.tensor(moved, dtype=torch.float64).clamp_min(_NONE).log()
        proportion = np.interp(at, at[widths], far - at[widths])
        lost = errors * torch.from_numpy(proportion).exp()
        return lost.flip(0).cummax(0).values.flip(0)  # fewer filters never lose less

    def _moved(self, space: Space, gone: Tensor, images: int) -> float:
        """How far some images' outputs move when filters of a space go and its readers are refitted."""
        keep = torch.ones(space.size, dtype=torch.bool)
        keep[gone] = False
        readings = self.readings(space)
        changed = {
            layer.node: self._change(layer, readings[layer.node], space, keep) for layer, _ in self._layers(space)
        }
        if images not in self._uncut:
            self._uncut[images] = list(self._walk.finish({}, images))
        return float(distance(self._uncut[images], list(self._walk.finish(changed, images))))

    def _layers(self, space: Space) -> list[tuple[Layer, Labels]]:
        """The layers that read a space, and the filter of each of their inputs, `FIXED` for those of other spaces."""
        found = [(layer, space.filters_at(layer.inputs)) for layer in self._map.layers]
        return [(layer, filters) for layer, filters in found if (filters != FIXED).any()]

    def _reading(self, layer: Layer, space: Space, filters: Labels) -> Reading:
        """What a layer reads. Of one that cannot be refitted, only how much of each filter's output it reads."""
        node, stored = self._node(layer), self._state[layer.weight]
        if not self._reads_all(node, stored):
            return self._energies(layer, space, filters)
        rows = Rows(node, tuple(stored.shape), self._walk.images)
        weight = rows.matrix(stored.cpu().double())[0] * self._gain(layer)
        moments, samples = torch.zeros(len(weight) + 1, len(weight) + 1, dtype=torch.float64), 0
        for x in self._walk.stream(layer.source):
            for chunk in rows.inputs(x):
                chunk = F.pad(chunk[0], (0, 1), value=1.0)
                moments += (chunk.T @ chunk).cpu().double()
                samples += len(chunk)
        if not bool(torch.isfinite(moments).all()):
            refuse_infinite(layer.name, (self._walk, [layer.source]))
        owners = torch.from_numpy(filters).repeat_interleave(len(weight) // len(filters))
        return Reading.of(moments / samples, F.pad(weight, (0, 0, 0, 1)), F.pad(owners, (0, 1), value=FIXED), samples)

    def _energies(self, layer: Layer, space: Space, filters: Labels) -> Reading:
        """The mean square of each input and the norm of the weights it meets, as if none made up for another."""
        norms = rows_along(self._state[layer.weight].cpu().double(), layer, layer.input_axis).flatten(1).norm(dim=1)
        source = space.filters_at(self._map.labels[layer.source])
        squares, places = np.zeros(space.size), np.zeros(space.size)
        for x in self._walk.stream(layer.source):
            bins = np.broadcast_to(source, (1, *x.shape[1:])).reshape(-1) - FIXED  # the first for other channels
            sums = x.cpu().double().square().sum(dim=0).flatten().numpy()
            squares += np.bincount(bins, sums, space.size + 1)[1:]
            places += len(x) * np.bincount(bins, minlength=space.size + 1)[1:]
        energies = squares / np.maximum(places, 1)
        mean = torch.from_numpy(np.where(filters == FIXED, 1.0, energies[filters]))
        return Reading(torch.diag(mean + _NONE), torch.diag(norms), torch.from_numpy(filters))

    def _change(self, layer: Layer, reading: Reading, space: Space, keep: Tensor) -> Change:
        """What becomes of a layer's output if only some filters stay: refitted where that can be done, else masked."""
        node, stored = self._node(layer), self._state[layer.weight]
        if not self._reads_all(node, stored):
            return self._masked(layer, space, keep)
        fitted = (reading.refitted(keep) / self._gain(layer)).float().to(stored.device)
        rows = Rows(node, tuple(stored.shape), self._walk.images)
        state = {**self._state, layer.weight: rows.weight(fitted[:-1].unsqueeze(0))}
        bias = fitted[-1].reshape(-1, *[1] * (stored.ndim - 2))
        return lambda values: run_node(self._program, node, values, state) + bias

    def _masked(self, layer: Layer, space: Space, keep: Tensor) -> Change:
        """What becomes of a layer's output if it reads zeros in place of the filters that go."""
        node, filters = self._node(layer), space.filters_at(self._map.labels[layer.source])
        stays = torch.from_numpy((filters == FIXED) | keep.numpy()[filters]).to(self._state[layer.weight].device)

        def run(values: Mapping[str, Any]) -> Any:
            return run_node(self._program, node, {**values, layer.source: values[layer.source] * stays}, self._state)

        return run

    @staticmethod
    def _reads_all(node: fx.Node, stored: Tensor) -> bool:
        """Whether each output of a layer can make up for any input with all the others: not so in groups."""
        return can_refit(node, tuple(stored.shape)) and groups_of(node) == 1

    def _node(self, layer: Layer) -> fx.Node:
        return self._program.nodes[self._program.position[layer.node]]

    def _gain(self, layer: Layer) -> Tensor:
        """What a normalisation makes of each output of a layer, float64 [outputs]; ones where none follows."""
        gain = gain_after(self._program, self._state, self._node(layer), len(layer.outputs)).double().abs()
        return gain.clamp_min(1e-6 * float(gain.max()) or 1.0)


def _looked_at(size: int, share: float) -> list[int]:
    """How many of a space's filters stay where the outputs are looked at, the most first; even ratios of what goes."""
    shares = np.geomspace(np.clip(share, 1 / size, _DEEPEST), _DEEPEST, _LOOKS)
    return sorted({min(max(1, round(size * (1 - one))), size - 1) for one in shares}, reverse=True)


def rows_along(weight: Tensor, layer: Layer, axis: int) -> Tensor:
    """A layer's weights with a row for each of its outputs or inputs, whichever lie on an axis."""
    if axis == 0:
        return weight
    # Every group stores those of the second axis side by side; group comes after group.
    return weight.reshape(layer.groups, -1, *weight.shape[1:]).transpose(1, 2).flatten(0, 1)
