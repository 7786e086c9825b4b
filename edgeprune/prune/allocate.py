"""allocate: scores and a budget -> a PruningPlan. How many filters go where, and in what steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from torch import Tensor

from edgeprune.channels import ChannelMap, Space
from edgeprune.errors import BudgetError
from edgeprune.plan import Budget, PruningPlan
from edgeprune.prune.cost import macs

Scope = Literal["inner", "all"]


@dataclass(frozen=True)
class Scored:
    """The scores of one criterion.

    Attributes:
        criterion: its name.
        settings: every setting it ran with, JSON values.
        scores: space name -> float tensor [size], higher = keep.
    """

    criterion: str
    settings: Mapping[str, Any]
    scores: Mapping[str, Tensor]


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
    if scope == "inner" and space.coupled:
        return f"residual width, shared by {len(space.producers)} layers (cut with --scope all)"
    if scope == "inner" and space.linear:
        return "linear bottleneck, no activation follows (cut with --scope all)"
    return "" if space.after else "no single value shows all of its filters"


def allocate(channel_map: ChannelMap, scored: Scored, budget: Budget, multiple: int) -> PruningPlan:
    """Decide which filters stay.

    Every scored space gives up the same share of its filters, except for rounding: widths are multiples of `multiple`
    (a space's own width is also allowed), each next to its exact value, some rounded up and some down so that the MACs
    of the whole come as near to the asked budget as they can without exceeding it. With `Budget.ratio` the budget is
    what the exact ratio would cost.

    Raises:
        UsageError: the budget is out of range.
        BudgetError: nothing can be cut, or the MACs cannot be reached; says what can.
    """
    budget.check()
    spaces = [space for space in channel_map.spaces if space.name in scored.scores]
    if not spaces:
        raise BudgetError(
            "no channel space of this model may be cut",
            fix="Try --scope all; the report of --dry-run names each space's reason.",
        )
    whole = macs(channel_map, np.ones(channel_map.size))
    steps = {space.name: _allowed(space.size, multiple) for space in spaces}
    exact = _exact_share(channel_map, spaces, budget, steps, whole)
    goal = (
        budget.macs
        if budget.macs is not None
        else _macs_at(channel_map, spaces, {s.name: exact * s.size for s in spaces}) / whole
    )
    widths = _round(channel_map, spaces, exact, steps, goal * whole)
    keep = {name: _best(scored.scores[name], width) for name, width in widths.items()}
    return PruningPlan(
        model=channel_map.fingerprint,
        criterion=scored.criterion,
        settings=scored.settings,
        budget=budget,
        channel_multiple=multiple,
        sizes={space.name: space.size for space in channel_map.spaces},
        keep=keep,
        macs_kept=macs(channel_map, channel_map.alive(keep).astype(float)) / whole,
    )


def _allowed(size: int, multiple: int) -> list[int]:
    """Widths a space of `size` may have, ascending: the multiples, and its own."""
    return sorted({*range(multiple, size, multiple), size})


def _macs_at(channel_map: ChannelMap, spaces: list[Space], widths: Mapping[str, float]) -> float:
    share = np.ones(channel_map.size)
    for space in spaces:
        share[space.first : space.first + space.size] = widths[space.name] / space.size
    return macs(channel_map, share)


def _exact_share(
    channel_map: ChannelMap, spaces: list[Space], budget: Budget, steps: Mapping[str, list[int]], whole: float
) -> float:
    """The one share of filters each space keeps, before rounding."""
    if budget.ratio is not None:
        return 1 - budget.ratio
    assert budget.macs is not None
    least = _macs_at(channel_map, spaces, {name: allowed[0] for name, allowed in steps.items()}) / whole
    if least > budget.macs:
        raise BudgetError(
            f"--macs {budget.macs:g} cannot be reached: every space cut to one step leaves {least:.3f} of the MACs",
            fix=f"Ask for --macs {np.ceil(least * 100) / 100:g} or more, or let more be cut with --scope all.",
        )
    low, high = 0.0, 1.0
    for _ in range(50):  # bisection to about 1e-15
        middle = (low + high) / 2
        over = _macs_at(channel_map, spaces, {s.name: middle * s.size for s in spaces}) > budget.macs * whole
        low, high = (low, middle) if over else (middle, high)
    return low


def _round(
    channel_map: ChannelMap, spaces: list[Space], exact: float, steps: Mapping[str, list[int]], goal: float
) -> dict[str, int]:
    """Allowed widths next to the exact ones whose MACs come nearest to `goal` from below."""
    place = {
        s.name: next(i for i, width in enumerate(steps[s.name]) if width >= min(exact * s.size, s.size)) for s in spaces
    }

    def total() -> float:
        return _macs_at(channel_map, spaces, {name: steps[name][i] for name, i in place.items()})

    def overshoot(space: Space) -> float:
        return (steps[space.name][place[space.name]] - exact * space.size) / space.size

    while total() > goal:
        lowerable = [space for space in spaces if place[space.name] > 0]
        if not lowerable:
            break
        place[max(lowerable, key=overshoot).name] -= 1
    for space in sorted(spaces, key=overshoot):  # what the last step gave away too much
        if overshoot(space) < 0:
            place[space.name] += 1
            place[space.name] -= total() > goal
    return {name: steps[name][i] for name, i in place.items()}


def _best(scores: Tensor, width: int) -> tuple[int, ...]:
    """The indices of the `width` highest scores, ascending; equal scores keep the lower index."""
    order = np.argsort(-scores.double().numpy(), kind="stable")
    return tuple(sorted(int(index) for index in order[:width]))
