"""The tables of sustained load: what is left of a speed-up on the hot board, and the times by minute."""

from __future__ import annotations

from edgeprune.report.headline import short_name, threads
from edgeprune.report.numbers import change, duration, significant, speed_up
from edgeprune.report.table import Column, Table
from edgeprune.report.timed import Timed
from edgeprune.stats import verdict_of
from edgeprune.sustained import Sustained, SustainedFile


def heat(report: Timed) -> list[Table]:
    """Two tables for each run under sustained load: its result, and its minutes."""
    found = []
    for number, one in enumerate(report.sustained, start=1):
        where = f" on {short_name(one.device, report)}" if len(report.devices) > 1 else ""
        setting = f"{one.runtime}, {threads(one.threads)}{where}"
        found += [result(one, f"sustained{number}", setting), minutes(one, f"minutes{number}", setting)]
    return found


def result(one: Sustained, key: str, setting: str) -> Table:
    """A row a file: cold, steady, and the steady speed-up; below, when the board throttled and how that was seen."""
    columns = (
        Column("artifact"),
        Column("cold ms", number=True),
        Column("steady ms", number=True),
        Column("slower", number=True, minor=True),
        Column("steady speed-up [95 %]", number=True, short="speed-up [95 %]"),
        Column("detectable", number=True, minor=True),
        Column("verdict"),
    )
    rows = tuple(_row(file, one) for file in one.files)
    title = f"Under load for {duration(one.seconds)}: {setting}"
    return Table(key, title, " ".join(sentences(one)), columns, rows)


def sentences(one: Sustained) -> list[str]:
    """What happened, one sentence each."""
    found = {"bits": "Throttled", "clock": "Throttled", "times": "Slower", "": "Not throttled"}[one.sign]
    when = "" if one.throttled_s is None else f" after {duration(one.throttled_s)}"
    said = [f"{found}{when} ({one.evidence})."]
    temperatures = [value for value in one.temperature_c if value is not None]
    if temperatures:
        said.append(f"At most {max(temperatures):.0f} C.")
    said.append(f"Steady: from {duration(one.steady_from_s)} to the end; all files took turns without a pause.")
    if not one.still:
        said.append("Times still changed then: a longer run would say more.")
    if one.trust != "ok":
        said.append(f"Not trustworthy: {one.trust}.")
    return said


def minutes(one: Sustained, key: str, setting: str) -> Table:
    """A row a minute: temperature, clock, and each file's median."""
    columns = [Column("minute", number=True)]
    columns += [Column(name, number=True) for name, values in _sensors(one) if any(values)]
    columns += [Column(f"{file.artifact} ms", number=True) for file in one.files]
    values = [its for _, its in _sensors(one) if any(its)]
    rows = []
    for at in range(len(one.temperature_c)):
        seen = ["-" if its[at] is None else f"{its[at]:.0f}" for its in values]
        times = [file.minutes_ms[at] for file in one.files]
        rows.append((str(at + 1), *seen, *("-" if time is None else significant(time) for time in times)))
    return Table(key, f"Median by minute: {setting}", "", tuple(columns), tuple(rows))


def _sensors(one: Sustained) -> tuple[tuple[str, tuple[float | None, ...]], ...]:
    return ("C", one.temperature_c), ("MHz", one.clock_mhz)


def _row(file: SustainedFile, one: Sustained) -> tuple[str, ...]:
    found = file.speed_up
    mark = "" if one.trust == "ok" else f" ({one.trust.partition(':')[0]})"
    return (
        file.artifact,
        significant(file.cold_ms),
        significant(file.steady_ms),
        f"{100 * (file.steady_ms / file.cold_ms - 1):+.1f} %",
        speed_up(found.ratio, found.ci95) if found else "-",
        change(found.detectable) if found else "-",
        (verdict_of(*found.ci95) if found else "-") + mark,
    )
