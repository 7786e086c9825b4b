"""The geometry of the drawings of times through a run, with the machine's temperature and clock on the same axis."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from edgeprune.course import BlockTime
from edgeprune.report.headline import threads
from edgeprune.report.numbers import significant
from edgeprune.report.render.charts import Axis, Mark, cut, round_values, settings
from edgeprune.report.timed import Timed

_MINUTES_FROM_S = 180
_LEAST_SHARE, _MOST_SHARE = 0.05, 2.0  # of a change that is drawn in full height; what is beyond stands at the edge
_MOST_DOTS = 60
_LEAST_C, _LEAST_MHZ = 5.0, 100.0


@dataclass(frozen=True)
class Point:
    """A block: where it stands from the left and from the top, and why it is left out, if it is."""

    at: float
    height: float
    why: str


@dataclass(frozen=True)
class Row:
    """A quantity through the run: `line` is an SVG path in a square of 100, `kind` is "uncut", "pruned" or "sensor"."""

    label: str
    remark: str
    text: str
    kind: str
    levels: tuple[Mark, ...]
    line: str
    points: tuple[Point, ...] = ()


@dataclass(frozen=True)
class Timeline:
    """The artifacts that were timed together and the sensors meanwhile, on one axis of time with a `mark`, if any."""

    label: str
    unit: str
    ticks: tuple[Mark, ...]
    rows: tuple[Row, ...]
    missing: str
    mark: float | None


@dataclass(frozen=True)
class _Course:
    artifact: str
    usual_ms: float
    blocks: tuple[BlockTime, ...]


def timelines(report: Timed) -> tuple[Timeline, ...]:
    """One drawing for each runtime, number of threads and machine whose blocks are known."""
    return tuple(
        _timeline(label, [_Course(one.artifact, one.p50_ms, one.blocks) for one in timings], cut(report))
        for label, timings in settings(report).items()
        if all(timing.blocks for timing in timings)
    )


def heated(report: Timed) -> tuple[Timeline, ...]:
    """One drawing for each run under sustained load, over the times on the cold board; a mark where it throttled."""
    found = []
    for one in report.sustained:
        files = [_Course(file.artifact, file.cold_ms, file.blocks) for file in one.files]
        drawn = _timeline(f"{one.runtime}, {threads(one.threads)}", files, cut(report), one.throttled_s)
        found.append(drawn)
    return tuple(found)


def _timeline(label: str, files: Sequence[_Course], pruned: set[str], mark_s: float | None = None) -> Timeline:
    moments = [block.started_s for file in files for block in file.blocks]
    margin = 0.02 * (max(moments) - min(moments)) or 0.5
    time = Axis(max(0.0, min(moments) - margin), max(moments) + margin)
    minutes = time.end - time.start > _MINUTES_FROM_S
    changes = [block.p50_ms / file.usual_ms - 1 for file in files for block in file.blocks]
    high = min(max(1.15 * max(changes), _LEAST_SHARE), _MOST_SHARE)
    height = Axis(high, max(min(1.15 * min(changes), -_LEAST_SHARE), -1.0))  # from the top down
    rows = [_times(file, file.artifact in pruned, time, height) for file in files]
    sensors = _sensors(files, time)
    known = {row.label for row in sensors}
    missing = " and ".join(name for name in ("temperature", "clock") if name not in known)
    return Timeline(
        label=label,
        unit="min" if minutes else "s",
        ticks=_marks(time, 60 if minutes else 1),
        rows=(*rows, *sensors),
        missing=f"This machine does not tell its {missing}." if missing else "",
        mark=None if mark_s is None else time.at(mark_s),
    )


def _marks(axis: Axis, unit: float) -> tuple[Mark, ...]:
    values = round_values(axis.start / unit, axis.end / unit)
    return tuple(Mark(axis.at(value * unit), f"{value:.6g}") for value in values)


def _times(file: _Course, pruned: bool, time: Axis, height: Axis) -> Row:
    places = [(time.at(block.started_s), height.at(block.p50_ms / file.usual_ms - 1)) for block in file.blocks]
    reasons = Counter(reason for block in file.blocks for reason in block.tainted)
    medians = [block.p50_ms for block in file.blocks]
    marks = round_values(height.end, height.start)
    levels = {value for value in (marks[0], marks[-1]) if 2 * abs(value) >= max(map(abs, marks)) and value}
    few = len(places) <= _MOST_DOTS
    return Row(
        label=file.artifact,
        remark=", ".join(f"{reason}: {number} of {len(medians)}" for reason, number in reasons.items()),
        text=f"{significant(min(medians))} to {significant(max(medians))} ms",
        kind="pruned" if pruned else "uncut",
        levels=tuple(
            Mark(height.at(value), f"{100 * value:+.3g} %" if value else "") for value in (0.0, *sorted(levels))
        ),
        line=_path(places),
        points=tuple(
            Point(at, down, ", ".join(block.tainted))
            for (at, down), block in zip(places, file.blocks, strict=True)
            if few or block.tainted
        ),
    )


def _sensors(files: Sequence[_Course], time: Axis) -> list[Row]:
    """What the sensors said after every block of a setting, in the order of time."""
    blocks = sorted((block for file in files for block in file.blocks), key=lambda block: block.started_s)
    told = {
        "temperature": ("C", _LEAST_C, [(block.started_s, block.temperature_c) for block in blocks]),
        "clock": ("MHz", _LEAST_MHZ, [(block.started_s, block.clock_mhz) for block in blocks]),
    }
    rows = []
    for name, (unit, least, readings) in told.items():
        values = [(when, value) for when, value in readings if value is not None]
        if values:
            rows.append(_sensor(name, unit, least, values, time))
    return rows


def _sensor(name: str, unit: str, least: float, readings: Sequence[tuple[float, float]], time: Axis) -> Row:
    low, high = min(value for _, value in readings), max(value for _, value in readings)
    margin = max(0.1 * (high - low), (least - (high - low)) / 2)
    height = Axis(high + margin, low - margin)
    text = f"{low:.0f} {unit}" if round(low) == round(high) else f"{low:.0f} to {high:.0f} {unit}"
    line = _path([(time.at(when), height.at(value)) for when, value in readings])
    return Row(name, "", text, "sensor", (), line)


def _path(places: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{at:.2f} {down:.2f}" for at, down in places)
