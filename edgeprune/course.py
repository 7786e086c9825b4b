"""The shape of a measurement: how its times are distributed, and how they went through the run."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgeprune.measurement import Measurement
from edgeprune.worker import taint

_BINS = 60
_MOST_MEDIANS = 2.0  # a call another process was in the way of can take a hundred times as long


@dataclass(frozen=True)
class Histogram:
    """How many calls took how long, from the shortest to the 99th percentile, or to twice the median if that is less.

    Attributes:
        from_ms: where the first bin begins.
        to_ms: where the last bin ends; all bins are equally wide.
        counts: calls in each bin.
    """

    from_ms: float
    to_ms: float
    counts: tuple[int, ...]


@dataclass(frozen=True)
class BlockTime:
    """One block: consecutive timed calls, and what the machine's sensors said right after them.

    Attributes:
        round: which round of the run, from 0.
        started_s: when it began, in seconds since the run's start.
        p50_ms: the median of its calls.
        temperature_c: of the CPU; None where the machine does not say, as the next one.
        clock_mhz: of the fastest core.
        tainted: why it is left out of comparisons, names of warnings; empty if it is not.
    """

    round: int
    started_s: float
    p50_ms: float
    temperature_c: float | None
    clock_mhz: float | None
    tainted: tuple[str, ...] = ()


def histogram(measurement: Measurement) -> Histogram:
    """The distribution of all samples of a measurement."""
    times = np.asarray(measurement.samples_ns) / 1e6
    low, high = float(times.min()), float(min(np.percentile(times, 99), _MOST_MEDIANS * np.median(times)))
    counts, _ = np.histogram(times, bins=_BINS if high > low else 1, range=(low, high))
    return Histogram(low, high, tuple(map(int, counts)))


def course(measurement: Measurement) -> tuple[BlockTime, ...]:
    """The blocks of a measurement, in the order they were taken."""
    seen = [block.sensors for block in measurement.blocks]
    befell = taint.tainted(seen, measurement.device.get("at_start", {}), heated=measurement.sustained)
    return tuple(
        BlockTime(
            round=block.round,
            started_s=block.started_s,
            p50_ms=block.median_ns / 1e6,
            temperature_c=block.sensors.get("temperature_c"),
            clock_mhz=taint.clock(block.sensors),
            tainted=tuple(reason for reason, places in befell.items() if at in places),
        )
        for at, block in enumerate(measurement.blocks)
    )
