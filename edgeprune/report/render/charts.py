"""The geometry of the drawings: every position is a percentage of the drawing's width or height."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from edgeprune.course import Histogram
from edgeprune.report.document import Report
from edgeprune.report.headline import setting, short_name, threads
from edgeprune.report.numbers import count, significant, speed_up
from edgeprune.report.parts import Timing
from edgeprune.report.timed import Timed

_TICKS = 6
_MOST_MEDIANS = 2.0  # of a scale; a call another process was in the way of can take a hundred times as long


@dataclass(frozen=True)
class Mark:
    """A position on an axis, 0 to 100, and what is written there."""

    at: float
    text: str


@dataclass(frozen=True)
class Axis:
    """An axis from one value to another; where `start` is the larger one, values fall along it.

    Attributes:
        start: the value at 0.
        end: the value at 100.
    """

    start: float
    end: float

    def at(self, value: float) -> float:
        """Where a value stands, 0 to 100; what is beyond stands at the edge."""
        return percent((value - self.start) / (self.end - self.start), 1.0)


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
    """The times of one artifact: quantiles 5 % ... 95 % (step 5 %) and the quoted percentiles.

    `hill` is the outline of their histogram as an SVG path in a square of 100, empty if it is not known.
    """

    label: str
    text: str
    pruned: bool
    strip: tuple[float, ...]
    p50: float
    p90: float
    p99: float
    hill: str = ""


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


def speed(report: Timed) -> IntervalChart | None:
    """The speed-ups and their intervals around 1; None without comparisons."""
    found = report.comparisons
    if not found:
        return None
    lowest = min(1.0, *(one.ci95[0] for one in found))
    highest = max(1.0, *(one.ci95[1] for one in found))
    margin = max(0.06 * (highest - lowest), 0.02)
    start, end = max(0.0, lowest - margin), highest + margin

    def at(value: float) -> float:
        return percent(value - start, end - start)

    labels = [setting(one, short_name(one.device, report) if len(report.devices) > 1 else "") for one in found]
    rows = tuple(
        Interval(
            label if labels.count(label) == 1 else f"{label}, {one.candidate}",
            speed_up(one.ratio, one.ci95),
            one.verdict,
            at(one.ci95[0]),
            at(one.ratio),
            at(one.ci95[1]),
        )
        for one, label in zip(found, labels, strict=True)
    )
    ticks = tuple(Mark(at(value), f"{value:.4g}x") for value in round_values(start, end))
    return IntervalChart(ticks, at(1.0), rows)


def times(report: Timed) -> tuple[SpreadGroup, ...]:
    """The spread of the times, one group for each setting."""
    pruned = cut(report)
    return tuple(_group(label, timings, pruned) for label, timings in settings(report).items())


def settings(report: Timed) -> dict[str, list[Timing]]:
    """The measurements of each runtime, number of threads and machine."""
    groups: dict[str, list[Timing]] = {}
    for timing in report.measurements:
        where = f" on {short_name(timing.device, report)}" if len(report.devices) > 1 else ""
        groups.setdefault(f"{timing.runtime}, {threads(timing.threads)}{where}", []).append(timing)
    return groups


def cut(report: Timed) -> set[str]:
    """Paths of the pruned artifacts."""
    return {artifact.path for artifact in report.artifacts if artifact.role == "pruned"}


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
            before=percent(layer.before, highest),
            after=percent(layer.after, highest),
            text=f"{layer.name}: {count(layer.before)} -> {count(layer.after)}",
        )
        for at, layer in enumerate(found)
    )
    ticks = tuple(
        Mark(percent(value, highest), f"{value:,.0f}") for value in round_values(0, highest) if value == int(value)
    )
    return BarChart(ticks, bars)


def _group(label: str, timings: list[Timing], pruned: set[str]) -> SpreadGroup:
    lowest = min(min((timing.p50_ms, *timing.quantiles_ms[1:])) for timing in timings)
    highest = max(min(timing.p99_ms, _MOST_MEDIANS * timing.p50_ms) for timing in timings)
    margin = max(0.06 * (highest - lowest), 0.02 * highest)
    start, end = max(0.0, lowest - margin), highest + margin

    def at(value: float) -> float:
        return percent(value - start, end - start)

    rows = tuple(
        Spread(
            label=timing.artifact,
            text=f"{significant(timing.p50_ms)} ms",
            pruned=timing.artifact in pruned,
            # The extremes are two samples of hundreds; they would set the scale for all others.
            strip=tuple(map(at, timing.quantiles_ms[1:-1])),
            p50=at(timing.p50_ms),
            p90=at(timing.p90_ms),
            p99=at(timing.p99_ms),
            hill=_hill(timing.histogram, at) if timing.histogram else "",
        )
        for timing in timings
    )
    return SpreadGroup(label, tuple(Mark(at(value), f"{value:.4g}") for value in round_values(start, end)), rows)


def _hill(found: Histogram, at: Callable[[float], float]) -> str:
    highest, width = max((1, *found.counts)), (found.to_ms - found.from_ms) / max(1, len(found.counts))
    steps = []
    for number, count_ in enumerate(found.counts):
        left, right, top = (
            at(found.from_ms + number * width),
            at(found.from_ms + (number + 1) * width),
            count_ / highest,
        )
        steps.append(f"L{left} {100 - 96 * top:.1f}L{right} {100 - 96 * top:.1f}")
    return f"M{at(found.from_ms)} 100{''.join(steps)}L{at(found.to_ms)} 100Z"


def percent(part: float, whole: float) -> float:
    """A share as a position, 0 to 100."""
    return round(min(max(100 * part / whole, 0.0), 100.0), 3) if whole > 0 else 0.0


def round_values(start: float, end: float) -> list[float]:
    """At most a handful of round numbers from `start` to `end`: multiples of 1, 2 or 5 times a power of ten."""
    if not (end - start) / _TICKS > 0:  # also of what is too small to be divided
        return [start]
    power = 10.0 ** math.floor(math.log10((end - start) / _TICKS))
    step = next((size * power for size in (1, 2, 5) if size * power * _TICKS >= end - start), 10 * power)
    first, last = math.ceil(start / step - 1e-9), math.floor(end / step + 1e-9)
    return [round(at * step, 12) for at in range(first, last + 1)]
