"""allocate: scores and a budget -> a PruningPlan. How many filters go where, and in what steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from edgeprune.channels import ChannelMap, Space
from edgeprune.errors import BudgetError
from edgeprune.plan import Allocation, Budget, PruningPlan
from edgeprune.prune.cost import macs
from edgeprune.prune.time_budget import even_in_time, least_damage_in_time
from edgeprune.prune.timing import Times
from edgeprune.prune.widths import MacsAt, least_damage, nearest, share_within

Scope = Literal["inner", "all"]
_FUZZ = 1e-12
"""Relative error of MACs counted in float64; less than one MAC of any model."""


@dataclass(frozen=True)
class Scored:
    """The scores of one criterion.

    Attributes:
        criterion: its name.
        settings: every setting it ran with, JSON values.
        scores: space name -> float tensor [size], higher = keep.
        removed: space name -> how many filters the criterion itself would remove; all 0 if it does not say.
        damage: space name -> what the outputs lose, by the number of filters that stay, float64 [size + 1]; empty where
            that was not asked for.
    """

    criterion: str
    settings: Mapping[str, Any]
    scores: Mapping[str, Tensor]
    removed: Mapping[str, int] = field(default_factory=dict)
    damage: Mapping[str, Tensor] = field(default_factory=dict)


def left_whole(channel_map: ChannelMap, scope: Scope = "inner") -> dict[str, str]:
    """Space name -> why it is not cut, for every space that is not.

    "inner" is the rule of the QSFM paper's family (ResNets are cut inside their blocks, MobileNet-V2 in its expansion,
    and the residual widths and linear bottlenecks stay); "all" cuts whatever can be cut exactly.
    """
    reasons = {space.name: _reason(space, scope) for space in channel_map.spaces}
    return {name: reason for name, reason in reasons.items() if reason}


def _reason(space: Space, scope: Scope) -> str:
    if space.protected:
        return space.protected
    if scope == "inner" and space.residual:
        return f"residual width, shared by {len(space.producers)} layers (cut with --scope all)"
    if scope == "inner" and space.linear:
        return "linear bottleneck, no activation follows (cut with --scope all)"
    return "" if space.after else "no single value shows all of its filters"


def allocate(
    channel_map: ChannelMap, scored: Scored, budget: Budget, multiple: int, times: Times | None = None
) -> PruningPlan:
    """Decide which filters stay.

    Widths are multiples of `multiple` (a space's own width is also allowed), and the MACs of the whole come as near to
    the asked budget as they can without exceeding it. With `Budget.ratio` the budget is what it would cost if every
    space gave up exactly that share of its filters.

    Where the damage is known, each space gives up filters where they cost the outputs least for the MACs they save
    (`least_damage`). Else all give up the same share, some rounded up and some down (`nearest`). With `Budget.speedup`
    the same is done for the time that `times` foretells.

    Raises:
        UsageError: the budget is out of range.
        BudgetError: nothing can be cut, or the MACs cannot be reached; says what can.
    """
    budget.check()
    spaces = [space for space in channel_map.spaces if space.name in scored.scores]
    if not spaces:
        raise BudgetError(
            "no channel space of this model may be cut",
            fix="Try --scope all; `edgeprune inspect` names each space's reason.",
        )
    steps = {space.name: allowed_widths(space, multiple) for space in spaces}
    macs_at = _counter(channel_map, spaces, scored, multiple)
    if budget.speedup is None:
        widths = _widths_of_macs(budget, scored, steps, macs_at)
    else:
        assert times is not None
        widths = _widths_of_time(budget.speedup, scored, steps, times)
    ranks = {space.name: _ranks(space, scored.scores[space.name], multiple) for space in spaces}
    return PruningPlan(
        model=channel_map.fingerprint,
        criterion=scored.criterion,
        settings=scored.settings,
        budget=budget,
        channel_multiple=multiple,
        sizes={space.name: space.size for space in channel_map.spaces},
        keep={name: tuple(np.flatnonzero(ranks[name] < width).tolist()) for name, width in widths.items()},
        macs_kept=macs_at(widths),
        allocation=_allocation(budget, scored),
    )


def _widths_of_time(speedup: float, scored: Scored, steps: Mapping[str, list[int]], times: Times) -> dict[str, int]:
    if not scored.damage:
        return even_in_time(times, steps, speedup)
    damage = {name: lost.double().numpy() for name, lost in scored.damage.items()}
    return least_damage_in_time(times, damage, steps, speedup)


def _widths_of_macs(budget: Budget, scored: Scored, steps: Mapping[str, list[int]], macs_at: MacsAt) -> dict[str, int]:
    sizes = {name: allowed[-1] for name, allowed in steps.items()}
    if budget.ratio == "auto":
        exact = {name: float(size - scored.removed.get(name, 0)) for name, size in sizes.items()}
        goal = _goal_of_outcome(exact, sizes, scored.criterion, macs_at)
    else:
        kept, goal = _goal(budget, sizes, steps, macs_at)
        exact = {name: kept * size for name, size in sizes.items()}
    if _allocation(budget, scored) == "damage":
        return least_damage({name: lost.double().numpy() for name, lost in scored.damage.items()}, goal, steps, macs_at)
    return nearest(exact, goal, steps, macs_at)


def _allocation(budget: Budget, scored: Scored) -> Allocation:
    if budget.ratio == "auto":
        return "outcome"
    return "damage" if scored.damage else "uniform"


def allowed_widths(space: Space, multiple: int) -> list[int]:
    """How many filters a space may keep, ascending: its own size, and what makes channels a multiple of `multiple`.

    As many stay in every cell, and at least one in every part.
    """
    each = len(set(space.cells)) or 1
    least = max(1, len(space.parts)) * (each if space.cells or not space.parts else multiple)
    fitting = (width for width in range(each, space.size, each) if width * space.repeat % multiple == 0)
    return [*(width for width in fitting if width >= least), space.size]


def _ranks(space: Space, scores: Tensor, multiple: int) -> NDArray[np.int64]:
    """The place of each filter, 0 for the highest score; of equal scores the lower index comes first.

    The best filter of every part comes before all others, so that no part is left without one. Cells take turns.
    Filters of which some are split off go in bundles of `multiple`, so that each part keeps a multiple.
    """
    ranks = _places(-scores.double().numpy())
    for part in space.parts:
        ranks[min(part, key=lambda index: int(ranks[index]))] -= space.size
    if space.cells:
        cells = np.array(space.cells)
        turns = np.array([int((ranks[cells == cell] < rank).sum()) for cell, rank in zip(cells, ranks, strict=True)])
        return _places(turns * (cells.max() + 1) + cells)
    return _places(_bundled(space, ranks, multiple)) if space.parts else _places(ranks)


def _places(keys: NDArray[Any]) -> NDArray[np.int64]:
    """The place of each number among all, 0 for the lowest; of equal ones the first comes first."""
    places = np.empty(len(keys), dtype=np.int64)
    places[np.argsort(keys, kind="stable")] = np.arange(len(keys))
    return places


def _bundled(space: Space, ranks: NDArray[np.int64], multiple: int) -> NDArray[np.float64]:
    """For each filter the mean rank of its bundle: the next `multiple` best ones of the same parts."""
    parts = np.zeros((space.size, len(space.parts)), dtype=bool)
    for column, part in enumerate(space.parts):
        parts[list(part), column] = True
    _, blocks = np.unique(parts, axis=0, return_inverse=True)
    keys = np.empty(space.size)
    for block in range(int(blocks.max()) + 1):
        mine = np.flatnonzero(blocks.reshape(-1) == block)
        mine = mine[np.argsort(ranks[mine], kind="stable")]
        for start in range(0, len(mine), multiple):
            bundle = mine[start : start + multiple]
            keys[bundle] = ranks[bundle].mean() + start * 1e-9  # bundles of one block keep their order
    return keys


def _counter(channel_map: ChannelMap, spaces: list[Space], scored: Scored, multiple: int) -> MacsAt:
    """Counts the MACs that stay where each space keeps its best filters; a broken width counts a filter in part."""
    ranks = {space.name: _ranks(space, scored.scores[space.name], multiple) for space in spaces}
    whole = macs(channel_map, np.ones(channel_map.size))

    def macs_at(widths: Mapping[str, float]) -> float:
        share = np.ones(channel_map.size)
        for space in spaces:
            share[space.first : space.first + space.size] = np.clip(widths[space.name] - ranks[space.name], 0, 1)
        return macs(channel_map, share) / whole

    return macs_at


def _goal(
    budget: Budget, sizes: Mapping[str, int], steps: Mapping[str, list[int]], macs_at: MacsAt
) -> tuple[float, float]:
    """The one share of filters each space keeps, before rounding, and the share of MACs that may stay."""

    def at(share: float) -> float:
        return macs_at({name: share * size for name, size in sizes.items()})

    assert budget.ratio != "auto"
    if budget.ratio is not None:
        exact = 1 - budget.ratio
    else:
        assert budget.macs is not None
        exact = share_within(budget.macs, at)
    goal = at(exact) if budget.macs is None else budget.macs
    goal *= 1 + _FUZZ
    least = macs_at({name: allowed[0] for name, allowed in steps.items()})
    if least <= goal:
        return exact, goal
    asked, value = next(iter(budget.to_json().items()))
    if asked == "macs":
        best, side = np.ceil(least * 1000) / 1000, "more"
    else:
        best, side = np.floor(1000 * (1 - share_within(least, at) - _FUZZ)) / 1000, "less"
    ask = f"Ask for --{asked} {best:g} or {side}, or let" if 0 < best < 1 else "Let"
    raise BudgetError(
        f"--{asked} {value:g} cannot be reached: every space cut to one step leaves {least:.3f} of the MACs",
        fix=f"{ask} more be cut with --scope all.",
    )


def _goal_of_outcome(exact: Mapping[str, float], sizes: Mapping[str, int], criterion: str, macs_at: MacsAt) -> float:
    """The share of MACs that stays where a criterion's own numbers go.

    Raises:
        BudgetError: it removes nothing.
    """
    if all(exact[name] == size for name, size in sizes.items()):
        raise BudgetError(
            f"criterion {criterion!r} removes nothing by itself",
            fix="Give a number, as --ratio 0.3; `edgeprune criteria` says which criteria have an outcome of their own.",
        )
    return macs_at(exact) * (1 + _FUZZ)
