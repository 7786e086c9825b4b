"""A report as one HTML file that needs no network: text, drawings and style are inside."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgeprune.report.document import Report
from edgeprune.report.headline import accuracy, figures, notices, speed
from edgeprune.report.heat import heat
from edgeprune.report.render import charts
from edgeprune.report.render.front_chart import front_chart
from edgeprune.report.render.layer_bars import layer_times
from edgeprune.report.render.timeline import heated, timelines
from edgeprune.report.tables import tables
from edgeprune.report.wording import command_line, context, facts, warnings


def render(report: Report) -> str:
    """The report as HTML; text from the user is escaped."""
    return page(
        "report.html.j2",
        report=report,
        headline=(speed(report), accuracy(report)),
        figures=figures(report),
        notices=notices(report),
        context=context(report),
        warnings=warnings(report),
        tables=tables(report),
        front_chart=front_chart(report.front),
        speed_chart=charts.speed(report),
        time_chart=charts.times(report),
        timelines=timelines(report),
        heat=heat(report),
        heated=heated(report),
        layer_charts=layer_times(report),
        width_chart=charts.widths(report),
        command=command_line(report),
        facts=facts(report),
    )


def page(template: str, **values: Any) -> str:
    """A template of this folder, filled in; values are escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(template).render(**values)
