"""A report as one HTML file that needs no network: text, drawings and style are inside."""

from __future__ import annotations

from pathlib import Path

from edgeprune.report.document import Report
from edgeprune.report.headline import accuracy, figures, notices, speed
from edgeprune.report.render import charts
from edgeprune.report.tables import tables
from edgeprune.report.wording import command_line, context, facts, warnings

_TEMPLATE = Path(__file__).with_name("report.html.j2")


def render(report: Report) -> str:
    """The report as HTML; text from the user is escaped."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    return template.render(
        report=report,
        headline=(speed(report), accuracy(report)),
        figures=figures(report),
        notices=notices(report),
        context=context(report),
        warnings=warnings(report),
        tables=tables(report),
        speed_chart=charts.speed(report),
        time_chart=charts.times(report),
        width_chart=charts.widths(report),
        command=command_line(report),
        facts=facts(report),
    )
