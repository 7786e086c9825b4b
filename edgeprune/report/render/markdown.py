"""A report as GitHub-flavoured Markdown."""

from __future__ import annotations

import re

from edgeprune.report.document import Report
from edgeprune.report.headline import accuracy, notices, speed
from edgeprune.report.layers import change_table, reasons
from edgeprune.report.table import Table
from edgeprune.report.tables import tables
from edgeprune.report.timed import Timed
from edgeprune.report.wording import command_line, context, facts, warnings

_SPECIAL = re.compile(r"([\\`*|~]|(?<![^\W_])_|_(?![^\W_])|\](?=[(\[:]))")
_OPENING = re.compile(r"^(?:(?=[#+=>-])|(\d+)(?=[.)]\s))")


def render(report: Report) -> str:
    """The report as Markdown; text from the user cannot become markup."""
    title = f"# {escape(report.model.name)}, pruned for {escape(report.target.title)}"
    blocks = [title, *(f"**{escape(sentence)}**" for sentence in (speed(report), accuracy(report)))]
    blocks += [f"> {escape(notice)}" for notice in notices(report)]
    blocks += ["## What was measured", bullets(context(report))]
    blocks += listed("Warnings", warnings(report))
    for drawn in tables(report).values():
        blocks += [f"## {drawn.title}", table(drawn), *([escape(drawn.note)] if drawn.note else [])]
    blocks += explained(report)
    blocks += listed(f"About {escape(report.target.title)}", list(report.target.warnings))
    return "\n\n".join([*blocks, *_reproduce(report)]) + "\n"


def escape(text: str) -> str:
    """`text` in one line, with everything that Markdown or HTML would take for markup made plain."""
    line = " ".join(text.split())
    plain = _SPECIAL.sub(r"\\\1", line.replace("&", "&amp;").replace("<", "&lt;"))
    return _OPENING.sub(r"\1\\", plain)


def bullets(lines: list[str]) -> str:
    """A list, one line each."""
    return "\n".join(f"- {escape(line)}" for line in lines)


def listed(title: str, lines: list[str]) -> list[str]:
    """A list under a heading; nothing where it is empty."""
    return [f"## {title}", bullets(lines)] if lines else []


def table(drawn: Table) -> str:
    """A table, bars in its cells escaped."""
    heads = [column.title for column in drawn.columns]
    rules = ["---:" if column.number else "---" for column in drawn.columns]
    rows = [[escape(head) for head in heads], rules, *([escape(cell) for cell in row] for row in drawn.rows)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def explained(report: Timed) -> list[str]:
    """Where the time of cut files goes, and why they are not faster; nothing where nothing was profiled."""
    blocks = ["## Time of each layer"] if report.explanations else []
    for one in report.explanations:
        drawn = change_table(one)
        blocks += [f"### {escape(drawn.title)}", *([bullets(reasons(one))] if one.findings else []), table(drawn)]
        blocks += [escape(drawn.note)] if drawn.note else []
    return blocks


def _reproduce(report: Report) -> list[str]:
    # Indented, not fenced: no text can close it.
    command = "\n".join(f"    {line}" for line in command_line(report).splitlines())
    return ["## How to reproduce", command, bullets(facts(report))]
