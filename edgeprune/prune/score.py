"""score: a criterion, asked about each space in the order of the network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, fx, nn

from edgeprune.channels import FIXED, ChannelMap, Labels, Layer, Space, varying
from edgeprune.criteria import Criterion, FilterView, Side
from edgeprune.errors import EdgepruneError
from edgeprune.inference import norm_after
from edgeprune.program import Program
from edgeprune.progress import Tick, silent
from edgeprune.prune.allocate import Scored
from edgeprune.resize import all_tensors
from edgeprune.walk import Walk


class Scorer:
    """Scores spaces of one model on one set of calibration images, walking the network once.

    Args:
        channel_map: of the model.
        program: of the model.
        module: the model.
        batches: calibration images, float32 [n, channels, height, width] each.
    """

    def __init__(self, channel_map: ChannelMap, program: Program, module: nn.Module, batches: Sequence[Tensor]) -> None:
        self._map, self._program = channel_map, program
        self._state = all_tensors(module)
        self._module, self._batches = module, batches

    def score(
        self, criterion: Criterion, names: Sequence[str], seed: int = 0, share: float = 0.5, tick: Tick = silent
    ) -> Scored:
        """The scores of the named spaces.

        A criterion with a setting `images` is shown the maps of so many images.

        Args:
            criterion: to ask.
            names: of the spaces.
            seed: for criteria that draw.
            share: what share of the filters shall go, as far as that is known.
            tick: told of each space.

        Raises:
            EdgepruneError: a criterion returned something other than one finite number a filter.
        """
        spaces = sorted(
            (self._map.space(name) for name in names), key=lambda space: self._program.position.get(space.after, 0)
        )
        walk = Walk(self._program, self._module, _first(self._batches, criterion.settings.get("images")))
        scores: dict[str, Tensor] = {}
        removed: dict[str, int] = {}
        for done, space in enumerate(spaces):
            tick(done, len(spaces))
            found = criterion(self._view(space, walk, seed, share))
            scores[space.name], removed[space.name] = _checked(criterion, space, found.scores), found.removed
        tick(len(spaces), len(spaces))
        return Scored(criterion.name, dict(criterion.settings), scores, removed)

    def _view(self, space: Space, walk: Walk, seed: int, share: float) -> FilterView:
        made = [
            made for layer in self._map.layers if layer.name in space.producers for made in self._made(space, layer)
        ]
        read = [read for layer in self._map.layers for read in self._read(space, layer)]
        return FilterView(
            name=space.name,
            size=space.size,
            filters=tuple(filters for filters, _ in made),
            maps=lambda side: self._maps(space, walk, side),
            seed=seed,
            readers=tuple(read),
            gains=tuple(gains for _, gains in made),
            residual=space.residual,
            share=share,
        )

    def _made(self, space: Space, layer: Layer) -> Iterator[tuple[Tensor, Tensor]]:
        """The space's filters in a layer that makes them, and by what a normalisation multiplies them.

        More than once where the layer has several filters of one number.
        """
        rows = self._state[layer.weight].detach().float()
        if layer.output_axis == 1:  # every group stores its filters side by side, below those of the last
            rows = rows.reshape(layer.groups, -1, *rows.shape[1:]).transpose(1, 2).flatten(0, 1)
        gains = self._gains(layer, len(rows))
        for channels, chosen in _turns(layer.outputs, space):
            filters, gain = rows.new_zeros(space.size, *rows.shape[1:]), rows.new_zeros(space.size)
            filters[channels], gain[channels] = rows[chosen], gains[chosen]
            yield filters, gain

    def _gains(self, layer: Layer, count: int) -> Tensor:
        """By what a batch normalisation after the layer multiplies each of its outputs: scale / deviation."""
        node = self._program.nodes[self._program.position[layer.node]]
        norm = norm_after(self._program, node)
        if norm is None:
            return torch.ones(count)
        scale, _, _, variance = (
            self._state[self._program.stored[argument.name]].detach().float() if isinstance(argument, fx.Node) else None
            for argument in norm.args[1:5]
        )
        assert variance is not None
        gains: Tensor = (variance + float(norm.args[6])).rsqrt()  # type: ignore[arg-type]
        return gains * (1.0 if scale is None else scale)

    def _read(self, space: Space, layer: Layer) -> Iterator[Tensor]:
        """The weights that a layer gives to the space's filters, float32 [n, outputs, *kernel]."""
        if not ((layer.inputs >= space.first) & (layer.inputs < space.first + space.size)).any():
            return
        rows = self._state[layer.weight].detach().float()
        if layer.output_axis == 0:  # the inputs of every group lie side by side, each group's below those of the last
            rows = rows.reshape(layer.groups, -1, *rows.shape[1:]).transpose(1, 2).flatten(0, 1)
        parts = []
        for channels, chosen in _turns(layer.inputs, space):
            part = rows.new_zeros(space.size, *rows.shape[1:])
            part[channels] = rows[chosen]
            parts.append(part)
        if rows.ndim == 2:  # a linear layer that reads several positions of each map
            yield torch.cat(parts, dim=1)
        else:
            yield from parts

    def _maps(self, space: Space, walk: Walk, side: Side) -> Iterator[Tensor]:
        """The space's feature maps, one batch after another, float32 [images, n, height, width]."""
        node = space.after if side == "after" else space.before
        (axis,) = varying(self._map.labels[node])
        channels = self._map.labels[node].reshape(-1) - space.first
        channels = np.where((channels >= 0) & (channels < space.size), channels, FIXED)
        turns = int(np.bincount(channels[channels != FIXED]).min())
        places = [_occurrence(channels, turn) for turn in range(turns)]
        whole = turns == 1 and np.array_equal(places[0], np.arange(len(channels)))
        for value in walk.stream(node):
            maps = value.movedim(axis, 1)
            if not whole:  # maps of filters that go together lie one below the other
                maps = torch.stack([maps.index_select(1, torch.from_numpy(chosen)) for chosen in places], dim=2)
            yield maps.reshape(maps.shape[0], space.size, -1, maps.shape[-1] if value.ndim > 3 else 1).float()


def _turns(labels: Labels, space: Space) -> Iterator[tuple[Tensor, Tensor]]:
    """(filters of the space, where they stand): each filter's first place, then the second of those that have one."""
    mine = (labels >= space.first) & (labels < space.first + space.size)
    channels = np.where(mine, labels - space.first, FIXED)
    for turn in range(int(np.bincount(channels[mine]).max()) if mine.any() else 0):
        chosen = _occurrence(channels, turn)
        yield torch.from_numpy(channels[chosen]), torch.from_numpy(chosen)


def _occurrence(channels: Labels, turn: int) -> Labels:
    """Where each channel stands for the first time (turn 0), the second (turn 1) and so on, `FIXED` left out."""
    order = np.argsort(channels, kind="stable")
    ordered = channels[order]
    before = np.arange(len(order)) - np.searchsorted(ordered, ordered)
    chosen: Labels = order[(before == turn) & (ordered != FIXED)]
    return chosen


def _first(batches: Sequence[Tensor], images: int | None) -> list[Tensor]:
    """The batches with the first `images` images: a criterion that looks at some need not wait for all."""
    left = sum(len(batch) for batch in batches) if images is None else images
    chosen: list[Tensor] = []
    for batch in batches:
        if left > 0:
            chosen.append(batch[:left])
            left -= len(batch)
    return chosen


def _checked(criterion: Criterion, space: Space, scores: Tensor) -> Tensor:
    if tuple(scores.shape) != (space.size,) or not bool(torch.isfinite(scores).all()):
        raise EdgepruneError(
            f"criterion {criterion.name!r} did not return {space.size} finite scores",
            where=f"space {space.name}: shape {tuple(scores.shape)}",
            fix="Check the calibration images; if they are sound, this is a fault of the criterion.",
        )
    return scores.detach().cpu()
