"""Variants: a network cut in many ways, so that every layer is seen at many widths; and their model files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np

from edgeprune.artifact import Artifact
from edgeprune.channels import Kept
from edgeprune.cutting import Traced
from edgeprune.export import EXPORTERS
from edgeprune.journal import Journal
from edgeprune.model import Model
from edgeprune.plan import Budget, Cost, PruningPlan
from edgeprune.prune.allocate import Scope, allowed_widths, left_whole
from edgeprune.prune.cost import macs
from edgeprune.prune.surgery import apply
from edgeprune.target import Target

MOST_WIDTHS = 16
"""Of each space that are measured; where more are allowed, these lie evenly between the narrowest and the whole."""
_NARROWEST = 0.1
"""Share of its filters below which a space is not looked at."""
_LEAST = 15
"""Variants of a table: fewer say little of how well times are foretold."""
_SEED = 0x9E3779B9


def choices_of(uncut: Traced, scope: Scope, multiple: int) -> dict[str, list[int]]:
    """The widths to time of each space that may be cut, the widest first, its own left out."""
    whole = left_whole(uncut.channel_map, scope)
    found = {}
    for space in uncut.channel_map.spaces:
        if space.name in whole:
            continue
        allowed = [width for width in allowed_widths(space, multiple)[:-1] if width >= _NARROWEST * space.size]
        places = np.unique(np.linspace(0, len(allowed) - 1, min(MOST_WIDTHS, len(allowed))).round().astype(int))
        if allowed:
            found[space.name] = [allowed[place] for place in places[::-1]]
    return found


def variant(choices: Mapping[str, Sequence[int]], number: int) -> dict[str, int]:
    """The widths of a variant: each space takes all of its widths in turn, in an order of its own.

    None are named for the first, number 0: that is the uncut network.
    """
    found: dict[str, int] = {}
    if number == 0:
        return found
    for place, (name, widths) in enumerate(choices.items()):
        turn, within = divmod(number - 1, len(widths))
        order = np.random.default_rng((_SEED, place, turn)).permutation(len(widths))
        found[name] = widths[order[within]]
    return found


def variants_of(choices: Mapping[str, Sequence[int]]) -> list[dict[str, int]]:
    """The widths of all variants that a table is made of, the uncut network first: each of `choices` at least once."""
    return [variant(choices, number) for number in range(1 + max([_LEAST, *map(len, choices.values())]))]


def spread(widths: Mapping[str, int], sizes: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    """Filters of spaces of some sizes, so many of each, evenly from all of them.

    Where each layer that reads a space reads all of it, which ones stay makes no difference to the time. Some read a
    part: the first stage of a ResNet whose shortcuts add zeros has a quarter of the filters that the last one has. Of
    these each then keeps its share, as `Shapes.at` says.
    """
    return {name: tuple(place * sizes[name] // width for place in range(width)) for name, width in widths.items()}


class VariantFiles:
    """Model files of the uncut network and of its variants, in a folder."""

    def __init__(self, folder: Path, uncut: Traced, target: Target, kind: str, journal: Journal) -> None:
        self.folder = folder
        self._uncut, self._target, self._kind, self._journal = uncut, target, kind, journal

    @cached_property
    def _baseline(self) -> Artifact:
        return self._written(self._uncut.model, self._uncut.cost, "baseline")

    def of(self, keeps: Sequence[Kept]) -> tuple[Artifact, ...]:
        """The uncut network's file and one for each choice of filters."""
        found = [self._baseline]
        for number, keep in enumerate(keeps):
            plan = _plan(self._uncut, keep, self._target.channel_multiple)
            with self._journal.stage("cut"):
                smaller = apply(plan, self._uncut.channel_map, self._uncut.model)
            found.append(self._written(smaller, self._cost(smaller, plan), f"pruned-{number}"))
        return tuple(found)

    def _cost(self, smaller: Model, plan: PruningPlan) -> Cost:
        """What timing wants to know of a variant; capturing it to learn its peak would take a third of the time."""
        alive = self._uncut.channel_map.alive(plan.keep)
        parameters = sum(parameter.numel() for parameter in smaller.module.parameters())
        return Cost(
            round(macs(self._uncut.channel_map, alive.astype(float))),
            parameters,
            self._uncut.cost.peak_activation_bytes,
        )

    def _written(self, model: Model, cost: Cost, name: str) -> Artifact:
        path = self.folder / f"{name}.{self._kind}"
        exporter = EXPORTERS.load(self._kind)
        with self._journal.stage(f"export {self._kind}"):
            artifact: Artifact = exporter(model, cost, self._target, "fp32", path, None)
        return replace(artifact, path=path.name, role="baseline" if name == "baseline" else "pruned")


def _plan(uncut: Traced, keep: Kept, multiple: int) -> PruningPlan:
    return PruningPlan(
        model=uncut.channel_map.fingerprint,
        criterion="none",
        settings={},
        budget=Budget(ratio="auto"),
        channel_multiple=multiple,
        sizes={space.name: space.size for space in uncut.channel_map.spaces},
        keep=keep,
        macs_kept=1.0,
    )
