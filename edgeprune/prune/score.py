"""score: a criterion, asked about each space in the order of the network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from edgeprune.channels import FIXED, ChannelMap, Labels, Layer, Space, varying
from edgeprune.criteria import Criterion, FilterView, Side
from edgeprune.errors import EdgepruneError
from edgeprune.inference import gain_after
from edgeprune.program import Program
from edgeprune.progress import Tick, silent
from edgeprune.prune.allocate import Scored
from edgeprune.prune.readers import Readers, rows_along
from edgeprune.resize import all_tensors
from edgeprune.walk import Walk


class Scorer:
    """Scores spaces of one model on one set of calibration images, walking the network once.

    Args:
        channel_map: of the model.
        program: of the model.
        module: the model.
        batches: calibration images, float32 [n, channels, height, width] each, on the device of the model.
    """

    def __init__(self, channel_map: ChannelMap, program: Program, module: nn.Module, batches: Sequence[Tensor]) -> None:
        self._map, self._program = channel_map, program
        self._state = all_tensors(module)
        self._module, self._batches = module, batches

    def score(
        self,
        criterion: Criterion,
        names: Sequence[str],
        seed: int = 0,
        share: float = 0.5,
        tick: Tick = silent,
        damage: bool = False,
    ) -> Scored:
        """The scores of the named spaces.

        A criterion with a setting `images` is shown the maps of so many images.

        Args:
            criterion: to ask.
            names: of the spaces.
            seed: for criteria that draw.
            share: what share of the filters shall go, as far as that is known.
            tick: told of each space.
            damage: also find out what the outputs lose, for each number of filters that may stay.

        Raises:
            EdgepruneError: a criterion returned something other than one finite number a filter.
        """
        spaces = sorted(
            (self._map.space(name) for name in names), key=lambda space: self._program.position.get(space.after, 0)
        )
        shown = Walk(self._program, self._module, _first(self._batches, criterion.settings.get("images")))
        readers = Readers(
            self._map, self._program, self._module, Walk(self._program, self._module, self._batches), len(spaces)
        )
        criterion = criterion.settled(self._view(space, shown, readers, seed, share) for space in spaces)
        scores: dict[str, Tensor] = {}
        removed: dict[str, int] = {}
        losses: dict[str, Tensor] = {}
        for done, space in enumerate(spaces):
            tick(done, len(spaces))
            found = criterion(self._view(space, shown, readers, seed, share))
            scores[space.name], removed[space.name] = _checked(criterion, space, found.scores), found.removed
            if damage:
                losses[space.name] = readers.damage(space, scores[space.name], found.errors, share)
        tick(len(spaces), len(spaces))
        return Scored(criterion.name, dict(criterion.settings), scores, removed, losses)

    def _view(self, space: Space, walk: Walk, readers: Readers, seed: int, share: float) -> FilterView:
        makers = [layer for layer in self._map.layers if layer.name in space.producers]
        return FilterView(
            name=space.name,
            size=space.size,
            filters=tuple(
                part for layer in makers for part in _spread(self._rows(layer, layer.output_axis), layer.outputs, space)
            ),
            maps=lambda side: self._maps(space, walk, side),
            seed=seed,
            read=lambda: tuple(part for layer in self._map.layers for part in self._read(space, layer)),
            look=lambda: tuple(readers.readings(space).values()),
            gains=tuple(part for layer in makers for part in _spread(self._gains(layer), layer.outputs, space)),
            residual=space.residual,
            share=share,
        )

    def _rows(self, layer: Layer, axis: int) -> Tensor:
        """A layer's weights, float32 on the CPU, see `rows_along`."""
        return rows_along(self._state[layer.weight].detach().cpu().float(), layer, axis)

    def _gains(self, layer: Layer) -> Tensor:
        """By what a batch normalisation after a layer multiplies each of its outputs; ones where none does."""
        node = self._program.nodes[self._program.position[layer.node]]
        return gain_after(self._program, self._state, node, len(layer.outputs)).float()

    def _read(self, space: Space, layer: Layer) -> list[Tensor]:
        """The weights that a layer gives to the filters, float32 [n, outputs, *kernel]; none where it reads none."""
        if (space.filters_at(layer.inputs) == FIXED).all():
            return []
        parts = _spread(self._rows(layer, layer.input_axis), layer.inputs, space)
        # A linear layer may read several positions of each map.
        return [torch.cat(parts, dim=1)] if parts[0].ndim == 2 else parts

    def _maps(self, space: Space, walk: Walk, side: Side) -> Iterator[Tensor]:
        """The space's feature maps, one batch after another, float32 [images, n, height, width]."""
        node = space.after if side == "after" else space.before
        (axis,) = varying(self._map.labels[node])
        channels = space.filters_at(self._map.labels[node].reshape(-1))
        turns = int(np.bincount(channels[channels != FIXED]).min())
        places = [_occurrence(channels, turn) for turn in range(turns)]
        whole = turns == 1 and np.array_equal(places[0], np.arange(len(channels)))
        for value in walk.stream(node):
            maps = value.movedim(axis, 1)
            if not whole:  # maps of filters that go together lie one below the other
                chosen = (torch.from_numpy(place).to(maps.device) for place in places)
                maps = torch.stack([maps.index_select(1, one) for one in chosen], dim=2)
            yield maps.reshape(maps.shape[0], space.size, -1, maps.shape[-1] if value.ndim > 3 else 1).float()


def _spread(rows: Tensor, labels: Labels, space: Space) -> list[Tensor]:
    """Rows by filters, [n, ...], else zeros: each filter's first row, then the second of those that have one, ..."""
    channels = space.filters_at(labels)
    parts = []
    for turn in range(int(np.bincount(channels[channels != FIXED]).max(initial=0))):
        chosen = _occurrence(channels, turn)
        part = rows.new_zeros(space.size, *rows.shape[1:])
        part[torch.from_numpy(channels[chosen])] = rows[torch.from_numpy(chosen)]
        parts.append(part)
    return parts


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
