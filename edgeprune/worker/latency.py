"""Blocks of times as one row of a table. The standard library alone: it runs on the board."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import median, quantiles
from typing import Any

from edgeprune.worker.taint import tainted, too_many

_TAIL = 0.025


def row(threads: int, blocks: Sequence[Mapping[str, Any]], at_start: Mapping[str, Any]) -> dict[str, Any]:
    """One file's times at one number of threads, tainted blocks left out.

    Args:
        threads: as set.
        blocks: the worker's `block` events of this file, in their order.
        at_start: the sensors before the run.

    Returns:
        threads, blocks, samples; p50_ms, p90_ms, p99_ms; p50_ci95_ms, the distribution-free interval of the blocks'
        median (order statistics by the binomial distribution; None below six blocks, which cannot give one);
        tainted, how many blocks each reason befell; trusted, False if those are more than a third: then none is left
        out.
    """
    found = tainted([block["sensors"] for block in blocks], at_start)
    stained = set().union(*found.values())
    trusted = not too_many(len(stained), len(blocks))
    clean = [block["samples_ns"] for at, block in enumerate(blocks) if not trusted or at not in stained]
    samples = [sample / 1e6 for block in clean for sample in block]
    percent = quantiles(samples, n=100, method="inclusive")
    return {
        "threads": threads,
        "blocks": len(clean),
        "samples": len(samples),
        "p50_ms": median(samples),
        "p90_ms": percent[89],
        "p99_ms": percent[98],
        "p50_ci95_ms": median_interval([median(block) / 1e6 for block in clean]),
        "tainted": {reason: len(places) for reason, places in found.items()},
        "trusted": trusted,
    }


def median_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """The 95 % interval of the median that order statistics give; None for fewer than six values."""
    ordered, tail, rank = sorted(values), 0.0, 0
    while tail + math.comb(len(ordered), rank) / 2 ** len(ordered) <= _TAIL:
        tail += math.comb(len(ordered), rank) / 2 ** len(ordered)
        rank += 1
    return (ordered[rank - 1], ordered[-rank]) if rank else None
