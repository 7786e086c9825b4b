"""What befell a block while it was timed: the worker repeats such blocks, and whoever compares leaves them out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

BUSY_CORES = 0.25
"""CPU time other processes may use during a block, in cores. Our own choice: a quarter of a core."""
CLOCK_CHANGE = 0.05
"""A block whose fastest core's clock is this share away from the run's usual one ran at another clock. Our own choice:
half of the smallest speed-up that is worth a cut."""
MOST_TAINTED = 1 / 3
"""If more of the blocks than this are tainted, the clean ones are no fair choice of them either: the run is
untrusted."""

_UNDER_VOLTAGE, SLOWED = 0x1, 0xE  # bits of get_throttled: under-voltage; clock capped, throttled, soft limit
_STICKY = 16  # bits 16 to 19: the same as 0 to 3, at any time since boot (Raspberry Pi documentation, get_throttled)


def tainted(
    readings: Sequence[Mapping[str, Any]], at_start: Mapping[str, Any], *, heated: bool = False
) -> dict[str, set[int]]:
    """What befell which blocks of one file.

    Args:
        readings: the sensors right after each block, in the order of the blocks.
        at_start: the sensors before the run.
        heated: the board was to become hot: that it throttles then is what was looked for.

    Returns:
        Places in `readings` by the reason, of THROTTLED, UNDER_VOLTAGE, CLOCK_CHANGED and BUSY; without those that
        befell no block.
    """
    thrown = throttled_now(readings, at_start)
    clocks = [clock(seen) or 0.0 for seen in readings]
    usual = median([mhz for mhz in clocks if mhz] or [0.0])
    found = {
        "THROTTLED": {at for at, bits in enumerate(thrown) if bits & SLOWED},
        "UNDER_VOLTAGE": {at for at, bits in enumerate(thrown) if bits & _UNDER_VOLTAGE},
        "CLOCK_CHANGED": {at for at, mhz in enumerate(clocks) if mhz and abs(mhz - usual) > CLOCK_CHANGE * usual},
        "BUSY": {at for at, seen in enumerate(readings) if seen.get("other_cores", 0.0) > BUSY_CORES},
    }
    wanted = ("UNDER_VOLTAGE", "BUSY") if heated else found
    return {reason: found[reason] for reason in wanted if found[reason]}


def too_many(spoiled: int, blocks: int) -> bool:
    """Whether so many of the blocks are tainted that the run is untrusted; then none is left out."""
    return spoiled > MOST_TAINTED * blocks


def wanted(
    done: int,
    seen: Mapping[str, Sequence[Mapping[str, Any]]],
    rounds: int,
    repeats: int,
    at_start: Mapping[str, Any],
) -> bool:
    """Whether to go on: until as many rounds as asked for are clean, or too many are tainted to be saved.

    Args:
        done: rounds so far.
        seen: each entry's sensors after its blocks, one block a round.
        rounds: how many are asked for.
        repeats: how many may be added in place of tainted ones.
        at_start: the sensors before the run.
    """
    if done < rounds or not repeats:
        return done < rounds
    spoiled = set().union(*(places for one in seen.values() for places in tainted(one, at_start).values()))
    return 0 < len(spoiled) <= repeats and done - len(spoiled) < rounds


def clock(readings: Mapping[str, Any]) -> float | None:
    """The clock of the fastest core in MHz; None where the machine does not say."""
    return max(readings.get("frequencies_mhz") or (), default=None)


def throttled_now(readings: Sequence[Mapping[str, Any]], at_start: Mapping[str, Any]) -> list[int]:
    """Bits 0 to 3 of each block: what holds at its end, and what came up since the reading before it."""
    read = [int(seen.get("throttled", 0)) for seen in (at_start, *readings)]
    pairs = ((read[at], read[at + 1]) for at in range(len(readings)))
    return [(now | (now & ~last) >> _STICKY) & 0xF for last, now in pairs]
