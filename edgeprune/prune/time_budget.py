"""time_budget: widths that make a network so many times as fast, by what its board's table foretells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from edgeprune.errors import SpeedupError
from edgeprune.prune.solve import Floats
from edgeprune.prune.timing import Times
from edgeprune.prune.widths import nearest, share_within

_FUZZ = 1e-9
"""Relative error of times summed in float64, with room."""


def least_damage_in_time(
    times: Times, damage: Mapping[str, Floats], steps: Mapping[str, list[int]], speedup: float
) -> dict[str, int]:
    """The allowed widths that cost the outputs least among those that are foretold to be fast enough.

    Args:
        times: of the network.
        damage: space name -> what the outputs lose, by the number of filters that stay, float64 [size + 1].
        steps: space name -> allowed widths, ascending.
        speedup: asked for, above 1.

    Raises:
        SpeedupError: no allowed widths are foretold to be so fast; says how fast they can become.
    """
    choices = {name: allowed[::-1] for name, allowed in steps.items()}  # of equal ones the widest is taken
    costs = {name: damage[name][widths] - damage[name][-1] for name, widths in choices.items()}
    problem = times.problem(costs, choices)
    found = problem.solve(times.uncut_ms / speedup)
    if found is None:
        raise _unreachable(speedup, times.uncut_ms / problem.fastest().ms)
    return {name: choices[name][place] for name, place in found.choice.items()}


def even_in_time(times: Times, steps: Mapping[str, list[int]], speedup: float) -> dict[str, int]:
    """Allowed widths, about the same share of each space, that are foretold to be fast enough.

    Raises:
        SpeedupError: see `least_damage_in_time`.
    """

    def share(widths: Mapping[str, float]) -> float:
        return times.ms({name: round(width) for name, width in widths.items()}) / times.uncut_ms

    least = share({name: float(allowed[0]) for name, allowed in steps.items()})
    if least > 1 / speedup:
        raise _unreachable(speedup, 1 / least, " in equal shares")
    sizes = {name: allowed[-1] for name, allowed in steps.items()}
    kept = share_within(1 / speedup, lambda each: share({name: each * size for name, size in sizes.items()}))
    return nearest({name: kept * size for name, size in sizes.items()}, 1 / speedup, steps, share)


def most_in_time(times: Times, steps: Mapping[str, Sequence[int]]) -> float:
    """How many times as fast as the uncut network any of these widths are foretold to be at most."""
    nothing = {name: np.zeros(len(allowed)) for name, allowed in steps.items()}
    return times.uncut_ms / times.problem(nothing, steps).fastest().ms


def _unreachable(speedup: float, most: float, how: str = "") -> SpeedupError:
    return SpeedupError(
        f"a speed-up of {speedup:.4g} cannot be reached: "
        f"by its table this network becomes at most {np.floor(100 * most) / 100:.2f} times as fast{how}",
        most=most * (1 - _FUZZ),
        fix="Ask for less, or let more be cut with --scope all.",
    )


def foretold(times: Times, widths: Mapping[str, int]) -> float:
    """How many times as fast as the uncut network some widths are foretold to be.

    The uncut network's time is the measured one, which is better known than any that is foretold.
    """
    return times.uncut_ms / times.ms(widths)
