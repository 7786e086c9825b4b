"""score: a criterion, asked about each space in the order of the network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from edgeprune.channels import FIXED, ChannelMap, Labels, Space, varying
from edgeprune.criteria import Criterion, FilterView, Side
from edgeprune.errors import EdgepruneError
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

    def score(self, criterion: Criterion, names: Sequence[str], seed: int = 0, tick: Tick = silent) -> Scored:
        """The scores of the named spaces.

        A criterion with a setting `images` is shown the maps of so many images.

        Raises:
            EdgepruneError: a criterion returned something other than one finite number a filter.
        """
        spaces = sorted(
            (self._map.space(name) for name in names), key=lambda space: self._program.position.get(space.after, 0)
        )
        walk = Walk(self._program, self._module, _first(self._batches, criterion.settings.get("images")))
        scores: dict[str, Tensor] = {}
        for done, space in enumerate(spaces):
            tick(done, len(spaces))
            scores[space.name] = _checked(criterion, space, criterion(self._view(space, walk, seed)))
        tick(len(spaces), len(spaces))
        return Scored(criterion.name, dict(criterion.settings), scores)

    def _view(self, space: Space, walk: Walk, seed: int) -> FilterView:
        return FilterView(space.name, space.size, self._weight(space), lambda side: self._maps(space, walk, side), seed)

    def _weight(self, space: Space) -> Tensor:
        """Each filter flattened, float32 [n, d]; zeros where a layer makes only some of the channels."""
        parts = []
        for layer in self._map.layers:
            mine = (layer.outputs >= space.first) & (layer.outputs < space.first + space.size)
            if mine.any() and layer.name in space.producers:
                rows = self._state[layer.weight].detach().float()
                if layer.output_axis == 1:  # every group stores its filters side by side, below those of the last
                    rows = rows.reshape(layer.groups, -1, *rows.shape[1:]).transpose(1, 2).flatten(0, 1)
                rows = rows.flatten(1)
                channels = np.where(mine, layer.outputs - space.first, FIXED)
                for turn in range(int(np.bincount(channels[mine]).max())):
                    chosen = _occurrence(channels, turn)
                    part = rows.new_zeros(space.size, rows.shape[1])
                    part[torch.from_numpy(channels[chosen])] = rows[torch.from_numpy(chosen)]
                    parts.append(part)
        return torch.cat(parts, dim=1)

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
