"""The report of single files as JSON, Markdown and HTML."""

from __future__ import annotations

import shlex

from edgeprune.report.bench import BenchReport
from edgeprune.report.heat import heat
from edgeprune.report.render import charts, json
from edgeprune.report.render.html import page
from edgeprune.report.render.layer_bars import layer_times
from edgeprune.report.render.markdown import bullets, escape, explained, listed, table
from edgeprune.report.render.timeline import heated, timelines
from edgeprune.report.tables import energy, speed
from edgeprune.report.wording import warnings


def markdown(report: BenchReport) -> str:
    """The report as Markdown; text from the user cannot become markup."""
    drawn = speed(report)
    blocks = [f"# {escape(title(report))}", bullets(context(report)), *listed("Warnings", warnings(report))]
    for found in (drawn, *heat(report), energy(report)):
        if not found.rows:
            continue
        blocks += [f"## {found.title}", table(found), *([escape(found.note)] if found.note else [])]
    blocks += explained(report)
    return "\n\n".join([*blocks, "## How to reproduce", f"    {shlex.join(report.run.command)}"]) + "\n"


def html(report: BenchReport) -> str:
    """The report as one HTML file that needs no network; text from the user is escaped."""
    return page(
        "bench.html.j2",
        report=report,
        title=title(report),
        context=context(report),
        warnings=warnings(report),
        table=speed(report),
        speed_chart=charts.speed(report),
        time_chart=charts.times(report),
        timelines=timelines(report),
        heat=heat(report),
        energy=energy(report),
        heated=heated(report),
        layer_charts=layer_times(report),
        command=shlex.join(report.run.command),
    )


def title(report: BenchReport) -> str:
    """What was timed against what."""
    names = [artifact.path.rpartition("/")[2] for artifact in report.artifacts]
    return f"{names[0]}, timed" if len(names) == 1 else f"{', '.join(names[1:])} against {names[0]}"


def context(report: BenchReport) -> list[str]:
    """Where and with what the files were timed, one sentence each."""
    sentences = [f"Timed on {device.name}." for device in report.devices] or ["No times to show."]
    return [*sentences, *report.run.notes]


FILES = {"bench.json": json.render, "bench.md": markdown, "bench.html": html}
"""The files of a folder, and what draws them."""
