"""The geometry of the drawings: every position is a percentage of the drawing's width or height."""

from __future__ import annotations

import math
from dataclasses import dataclass

from edgeprune.report.document import Report
from edgeprune.report.headline import setting, short_name, threads
from edgeprune.report.numbers import count, significant, speed_up
from edgeprune.report.parts import Timing

_TICKS = 6


@dataclass(frozen=True)
class Mark:
    """A position on an axis, 0 to 100, and what is written there."""

    at: float
    text: str


@dataclass(frozen=True)
class Interval:
    """A speed-up: its setting, its text, its verdict and where it lies."""

    label: str
    text: str
    verdict: str
    low: float
    at: float
    high: float


@dataclass(frozen=True)
class IntervalChart:
    """Speed-ups on one axis that holds 1."""

    ticks: tuple[Mark, ...]
    one: float
    rows: tuple[Interval, ...]


@dataclass(frozen=True)
class Spread:
    """The times of one artifact: quantiles 5 % ... 95 % (step 5 %) and the quoted percentiles."""

    label: str
    text: str
    pruned: bool
    strip: tuple[float, ...]
    p50: float
    p90: float
    p99: float


@dataclass(frozen=True)
class SpreadGroup:
    """The artifacts that were timed together, on an axis of their own."""

    label: str
    ticks: tuple[Mark, ...]
    rows: tuple[Spread, ...]


@dataclass(frozen=True)
class Bar:
    """A layer: where its bar stands, and its heights before and after."""

    left: float
    width: float
    before: float
    after: float
    text: str


@dataclass(frozen=True)
class BarChart:
    """The widths of all layers, in the network's order."""

    ticks: tuple[Mark, ...]
    bars: tuple[Bar, ...]


def speed(report: Report) -> IntervalChart | None:
    """The speed-ups and their intervals around 1; None without comparisons."""
    found = report.comparisons
    if not found:
        return None
    lowest = min(1.0, *(one.ci95[0] for one in found))
    highest = max(1.0, *(one.ci95[1] for one in found))
    margin = max(0.06 * (highest - lowest), 0.02)
    start, end = max(0.0, lowest - margin), highest + margin

    def at(value: float) -> float:
        return _percent(value - start, end - start)

    rows = tuple(
        Interval(
            setting(one, short_name(one.device, report) if len(report.devices) > 1 else ""),
            speed_up(one.ratio, one.ci95),
            one.verdict,
            at(one.ci95[0]),
            at(one.ratio),
            at(one.ci95[1]),
        )
        for one in found
    )
    ticks = tuple(Mark(at(value), f"{value:.4g}x") for value in _round_values(start, end))
    return IntervalChart(ticks, at(1.0), rows)


def times(report: Report) -> tuple[SpreadGroup, ...]:
    """The spread of the times, one group for each runtime, number of threads and machine."""
    groups: dict[str, list[Timing]] = {}
    for timing in report.measurements:
        where = f" on {short_name(timing.device, report)}" if len(report.devices) > 1 else ""
        groups.setdefault(f"{timing.runtime}, {threads(timing.threads)}{where}", []).append(timing)
    pruned = {artifact.path for artifact in report.artifacts if artifact.role == "pruned"}
    return tuple(_group(label, timings, pruned) for label, timings in groups.items())


def widths(report: Report) -> BarChart | None:
    """The number of filters of every layer before and after; None without layers."""
    found = report.layers
    if not found:
        return None
    highest = max(1, *(max(layer.before, layer.after) for layer in found))
    step = 100 / len(found)
    bars = tuple(
        Bar(
            left=round(at * step + 0.1 * step, 3),
            width=round(0.8 * step, 3),
            before=_percent(layer.before, highest),
            after=_percent(layer.after, highest),
            text=f"{layer.name}: {count(layer.before)} -> {count(layer.after)}",
        )
        for at, layer in enumerate(found)
    )
    ticks = tuple(
        Mark(_percent(value, highest), f"{value:,.0f}") for value in _round_values(0, highest) if value == int(value)
    )
    return BarChart(ticks, bars)


def _group(label: str, timings: list[Timing], pruned: set[str]) -> SpreadGroup:
    end = 1.04 * max(max((timing.p99_ms, *timing.quantiles_ms[:-1])) for timing in timings)
    rows = tuple(
        Spread(
            label=timing.artifact,
            text=f"{significant(timing.p50_ms)} ms",
            pruned=timing.artifact in pruned,
            # The extremes are two samples of hundreds; they would set the scale for all others.
            strip=tuple(_percent(value, end) for value in timing.quantiles_ms[1:-1]),
            p50=_percent(timing.p50_ms, end),
            p90=_percent(timing.p90_ms, end),
            p99=_percent(timing.p99_ms, end),
        )
        for timing in timings
    )
    return SpreadGroup(
        label, tuple(Mark(_percent(value, end), f"{value:.4g}") for value in _round_values(0, end)), rows
    )


def _percent(part: float, whole: float) -> float:
    return round(min(max(100 * part / whole, 0.0), 100.0), 3) if whole > 0 else 0.0


def _round_values(start: float, end: float) -> list[float]:
    """At most a handful of round numbers from `start` to `end`: multiples of 1, 2 or 5 times a power of ten."""
    if not end > start:
        return [start]
    power = 10.0 ** math.floor(math.log10((end - start) / _TICKS))
    step = next((size * power for size in (1, 2, 5) if size * power * _TICKS >= end - start), 10 * power)
    first, last = math.ceil(start / step - 1e-9), math.floor(end / step + 1e-9)
    return [round(at * step, 12) for at in range(first, last + 1)]
