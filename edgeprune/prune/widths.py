"""widths: how many filters each space keeps, of those numbers that are allowed."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

MacsAt = Callable[[Mapping[str, float]], float]
"""Space name -> width to the share of the uncut MACs that stays."""


def share_within(goal: float, at: Callable[[float], float]) -> float:
    """The share of filters, 0 to 1, that costs `goal`, or a hair less; by bisection, to about 1e-15.

    Args:
        goal: may be reached.
        at: what a share costs, more the more is kept.
    """
    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (low, middle) if at(middle) > goal else (middle, high)
    return low


_FUZZ = 1e-9
"""Of filters: (1 - 0.7) * 10 is a little more than 3."""


def nearest(exact: Mapping[str, float], goal: float, steps: Mapping[str, list[int]], macs_at: MacsAt) -> dict[str, int]:
    """Allowed widths next to the exact ones whose MACs come nearest to `goal` from below."""
    place = {name: next(i for i, width in enumerate(steps[name]) if width >= exact[name] - _FUZZ) for name in exact}

    def over() -> bool:
        return macs_at({name: steps[name][i] for name, i in place.items()}) > goal

    def overshoot(name: str) -> float:
        return (steps[name][place[name]] - exact[name]) / steps[name][-1]

    while over():
        place[max((name for name in place if place[name] > 0), key=overshoot)] -= 1
    raised = True
    while raised:  # what the last step gave away too much
        raised = False
        for name in sorted((name for name in place if overshoot(name) < -_FUZZ), key=overshoot):
            place[name] += 1
            fits = not over()
            place[name] -= not fits
            raised |= fits
    return {name: steps[name][i] for name, i in place.items()}


def least_damage(
    damage: Mapping[str, NDArray[np.float64]], goal: float, steps: Mapping[str, list[int]], macs_at: MacsAt
) -> dict[str, int]:
    """Allowed widths that cost the outputs little, for MACs of at most `goal`.

    Greedy: from all filters on, again and again the space is narrowed that loses least for each MAC it saves, along the
    lower convex hull of its damage, so that a costly step before cheap ones is no barrier. What the last step gave away
    too much goes back to where it helps most.

    Args:
        damage: space name -> what is lost, by the number of filters that stay, float64 [size + 1].
        goal: the share of MACs that may stay; it can be reached.
        steps: space name -> allowed widths, ascending.
        macs_at: counts.
    """
    widths = {name: allowed[-1] for name, allowed in steps.items()}
    corners = {name: _hull(damage[name], allowed) for name, allowed in steps.items()}
    now = macs_at(widths)
    while now > goal:
        options = []
        for name in [name for name, left in corners.items() if len(left) > 1]:
            there = corners[name][-2]
            macs = macs_at({**widths, name: there})
            lost = float(damage[name][there] - damage[name][widths[name]])
            options.append((lost / max(now - macs, 1e-15), name, macs))
        _, chosen, now = min(options)
        corners[chosen].pop()
        widths[chosen] = corners[chosen][-1]
    return _given_back(widths, damage, goal, steps, macs_at)


def _hull(damage: NDArray[np.float64], allowed: list[int]) -> list[int]:
    """The allowed widths, ascending, that are corners of the lower convex hull of the damage."""
    corners: list[int] = []
    for width in allowed:
        while len(corners) > 1 and _turns_down(damage, corners[-2], corners[-1], width):
            corners.pop()
        corners.append(width)
    return corners


def _turns_down(damage: NDArray[np.float64], first: int, middle: int, last: int) -> bool:
    """Whether the middle one of three widths lies on or above the line from the first to the last."""
    line = damage[first] + (damage[last] - damage[first]) * (middle - first) / (last - first)
    return bool(damage[middle] >= line)


def _given_back(
    widths: dict[str, int],
    damage: Mapping[str, NDArray[np.float64]],
    goal: float,
    steps: Mapping[str, list[int]],
    macs_at: MacsAt,
) -> dict[str, int]:
    while True:
        wider = {name: next((w for w in allowed if w > widths[name]), 0) for name, allowed in steps.items()}
        gains = [
            (float(damage[name][widths[name]] - damage[name][width]), name)
            for name, width in wider.items()
            if width and macs_at({**widths, name: width}) <= goal
        ]
        if not gains:
            return widths
        _, chosen = max(gains)
        widths = {**widths, chosen: wider[chosen]}
