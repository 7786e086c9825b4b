"""What a sweep found out as JSON, Markdown, HTML and on the terminal."""

from __future__ import annotations

import shlex
from collections import Counter

from rich.console import Console, Group, RenderableType
from rich.text import Text

from edgeprune.report.numbers import count, kept, share, significant, speed_up
from edgeprune.report.render import json
from edgeprune.report.render.html import page
from edgeprune.report.render.markdown import bullets, escape, listed
from edgeprune.report.render.markdown import table as markdown_table
from edgeprune.report.render.pareto import ParetoChart, Spot, chart
from edgeprune.report.render.terminal import fitted
from edgeprune.report.sweep import Row, SweepReport
from edgeprune.report.table import Column, Table
from edgeprune.stats import share_interval

_METRICS = {"top1": "Top-1", "agreement": "agreement"}
_WISHES = {"speedup": "{:g}x", "macs": "{:g} MACs"}


def table(report: SweepReport) -> Table:
    """One row for each task."""
    scored = next((row.accuracy for row in report.rows if row.accuracy), None)
    columns = (
        Column("criterion"),
        Column("asked"),
        Column("precision", short="in"),
        Column("MACs kept", number=True, minor=True),
        Column(_METRICS[scored.metric] if scored else "accuracy", number=True, minor=True),
        Column("points", number=True),
        Column("speed-up [95 %]", number=True),
        Column("timed in", minor=True),
        Column("result"),
    )
    notes = [
        "Asked: so many times as fast, or that share of the MACs. Numbers in brackets are 95 % intervals. "
        "Points: the change against the uncut model in fp32"
        + (", counted image by image." if scored is None or scored.metric == "top1" else ", without labels: agreement.")
    ]
    if is_timed(report):
        notes.append("Speed-up: over the uncut fp32 file; where a task was timed in several settings, the least.")
    return Table("tasks", "Tasks", " ".join(notes), columns, tuple(map(_cells, report.rows)))


def _cells(row: Row) -> tuple[str, ...]:
    scored, found = row.accuracy, row.least
    mark = f" ({', '.join(row.doubts)})" if row.doubts else ""
    return (
        row.criterion,
        " and ".join(_WISHES[name].format(value) for name, value in row.asked.items()),
        row.precision,
        "-" if row.macs_kept is None else kept(row.macs_kept, 1.0),
        share(scored.share, share_interval(scored.share, scored.images)) if scored else "-",
        scored.change.points if scored else "-",
        speed_up(found.ratio, found.ci95) if found else "-",
        f"{found.runtime}, {found.threads} thr" if found else "-",
        row.result + mark,
    )


def plot(report: SweepReport) -> ParetoChart | None:
    """The accuracy of each task against its speed-up; against its MACs where nothing was timed at all."""
    timed = is_timed(report)
    spots = [spot for row in report.rows if (spot := _spot(row, timed))]
    return chart(spots, missing=len(report.rows) - len(spots))


def is_timed(report: SweepReport) -> bool:
    """Whether any task has a measured speed-up."""
    return any(row.comparisons for row in report.rows)


def _spot(row: Row, timed: bool) -> Spot | None:
    found = row.least
    if row.accuracy is None or (timed and found is None) or not row.macs_kept:
        return None
    told = f"{row.task}, {row.accuracy.change.points} points"
    if found is None:
        speed = 1 / row.macs_kept
        return Spot(speed, None, row.accuracy.change, row.precision, f"{told}, {significant(speed)}x fewer MACs")
    text = ", ".join((told, speed_up(found.ratio, found.ci95), *row.doubts))
    verdict = "lost" if row.doubts else "kept"
    return Spot(found.ratio, found.ci95, row.accuracy.change, row.precision, text, verdict)


def title(report: SweepReport) -> str:
    """What was swept."""
    return f"{report.model}, swept for {report.target}"


def context(report: SweepReport) -> list[str]:
    """How it went, one sentence each."""
    ended = Counter("failed" if row.failed else row.result for row in report.rows)
    told = ", ".join(f"{count(number)} {name}" for name, number in ended.items())
    machines = dict.fromkeys(one.device for row in report.rows for one in row.comparisons)
    where = f"Timed on {' and '.join(machines)}." if machines else "Nothing was timed."
    return [f"{count(len(report.rows))} tasks: {told}.", report.executor, where]


def failures(report: SweepReport) -> list[str]:
    """The tasks that went wrong, each with its exit code and what it said."""
    return [f"{row.task}: exit code {row.exit_code}: {row.error}" for row in report.rows if row.failed]


def renderable(report: SweepReport) -> RenderableType:
    """The report for `rich`; it fits itself to the terminal's width."""
    lines = [*(Text(f"failed: {line}", style="red") for line in failures(report))]
    return Group(fitted(table(report)), Text(), Text(" ".join(context(report))), *lines)


def show(report: SweepReport) -> None:
    """Print the report on stdout."""
    Console(highlight=False).print(renderable(report))


def markdown(report: SweepReport) -> str:
    """The report as Markdown; text from the user cannot become markup."""
    drawn = table(report)
    blocks = [f"# {escape(title(report))}", bullets(context(report)), *listed("Failed", failures(report))]
    blocks += [f"## {drawn.title}", markdown_table(drawn), escape(drawn.note)]
    return "\n\n".join([*blocks, "## How to reproduce", f"    {shlex.join(report.command)}"]) + "\n"


def html(report: SweepReport) -> str:
    """The report as one HTML file that needs no network; text from the user is escaped."""
    return page(
        "sweep.html.j2",
        report=report,
        title=title(report),
        context=context(report),
        failures=failures(report),
        table=table(report),
        plot=plot(report),
        timed=is_timed(report),
        command=shlex.join(report.command),
    )


FILES = {"sweep.json": json.render, "sweep.md": markdown, "sweep.html": html}
"""The files of a folder, and what draws them."""
