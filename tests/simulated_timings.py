"""Timings of two files whose true speed-up is known, with what real machines do to them.

`drift` warms the machine up through the run; `spikes` are calls and whole blocks another process was in the way of;
`modes` puts each block in one of two speeds (clock boost, memory layout); `all` is all three.
"""

from __future__ import annotations

import numpy as np

KINDS = ("quiet", "drift", "spikes", "modes", "all")
CALLS = 20
"""Timed calls in a block."""


def blocks(rng: np.random.Generator, kind: str, ratio: float, rounds: int) -> tuple[np.ndarray, np.ndarray]:
    """Median times of each block in ns: (baseline, candidate), float64 [rounds] each.

    The order is the worker's: drawn in even rounds, mirrored in the odd ones after them.
    """
    first = np.repeat(rng.random((rounds + 1) // 2) < 0.5, 2)[:rounds]
    first[1::2] = ~first[1::2]  # does the candidate come first?
    place = 2 * np.arange(rounds) + np.stack([first, ~first])  # [2, rounds], when each block runs
    times = calls(rng, kind, place, 2 * rounds)
    middle = np.median(times, axis=-1) * 1e7
    return middle[0], middle[1] / ratio


def calls(rng: np.random.Generator, kind: str, place: np.ndarray, length: int) -> np.ndarray:
    """Times of single calls relative to an undisturbed one, [*place.shape, CALLS]; `place` is the moment."""
    wanted = KINDS[1:4] if kind == "all" else (kind,)
    log = 0.01 * rng.standard_normal((*place.shape, CALLS)) + 0.008 * rng.standard_normal((*place.shape, 1))
    if "drift" in wanted:
        walk = np.cumsum(0.002 * rng.standard_normal(length)) + np.linspace(0, 0.2 * rng.random(), length)
        log += walk[place][..., None]
    if "modes" in wanted:
        log += 0.05 * (rng.random((*place.shape, 1)) < 0.35)
    if "spikes" in wanted:
        log += rng.exponential(0.7, log.shape) * (rng.random(log.shape) < 0.03)
        log += rng.exponential(0.3, (*place.shape, 1)) * (rng.random((*place.shape, 1)) < 0.04)
    return np.exp(log)


def heated(
    rng: np.random.Generator, kind: str, ratio: float, seconds: float, throttles_s: float | None, slowdown: float = 1.4
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Blocks of one second each, in turns, on a board that throttles in the middle of the run.

    Args:
        rng: chance.
        kind: of `KINDS`.
        ratio: how much faster the candidate is, cold or hot.
        seconds: the whole run.
        throttles_s: from when on everything takes `slowdown` times as long; None for never.
        slowdown: see there.

    Returns:
        When each block began and its samples in ns: [2, rounds] and [2, rounds, CALLS], baseline and candidate; and
        whether the board throttled at the block's end, bool [2, rounds].
    """
    rounds = int(seconds / 2.06)
    first = np.repeat(rng.random((rounds + 1) // 2) < 0.5, 2)[:rounds]
    first[1::2] = ~first[1::2]
    place = 2 * np.arange(rounds) + np.stack([first, ~first])
    started = 3 + 1.03 * place
    hot = started + 1 >= throttles_s if throttles_s is not None else np.zeros_like(first & first)[None].repeat(2, 0)
    log = calls(rng, kind, place, 2 * rounds)
    times = log * np.where(hot, slowdown, 1.0)[..., None] * 1e7 / np.array([1.0, ratio])[:, None, None]
    return started, times, hot
