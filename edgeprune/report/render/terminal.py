"""A report on the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from io import StringIO

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.measure import Measurement
from rich.table import Table as RichTable
from rich.text import Text

from edgeprune.report.document import Report
from edgeprune.report.headline import headline
from edgeprune.report.table import Table
from edgeprune.report.tables import tables
from edgeprune.report.wording import warnings

_SHOWN = ("front", "speed", "files", "precisions", "mixed", "race", "accuracy", "cost")
_SHORT = 24
_ANY = 10_000
_STYLES = {"faster": "green", "slower": "red", "FAILED": "bold red", "passed": "green"}


def render(report: Report) -> str:
    """The report as plain text, 80 columns wide."""
    page = StringIO()
    Console(file=page, width=80, color_system=None, legacy_windows=False).print(renderable(report))
    return "\n".join(line.rstrip() for line in page.getvalue().splitlines()) + "\n"


def renderable(report: Report) -> RenderableType:
    """The report for `rich`: headline, main tables, warnings. It fits itself to the terminal's width."""
    drawn = tables(report)
    parts: list[RenderableType] = [Text(headline(report), style="bold"), Text()]
    for key, table in drawn.items():
        if key in _SHOWN or key.startswith("sustained"):
            parts += [_Fitted(table), *([Text(table.note)] if key not in _SHOWN else []), Text()]
    parts += [Text(f"warning: {' '.join(warning.split())}", style="yellow") for warning in warnings(report)]
    return Group(*parts)


def show(report: Report) -> None:
    """Print the report on stdout."""
    Console(highlight=False).print(renderable(report))


def fitted(table: Table) -> RenderableType:
    """A table for `rich` that fits itself to the terminal's width."""
    return _Fitted(table)


class _Fitted:
    """A table that leaves minor columns out on a narrow terminal, and becomes a list on a very narrow one."""

    def __init__(self, table: Table) -> None:
        self.table = table

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Text(self.table.title, style="bold underline")
        for narrow in (False, True):
            grid = _grid(self.table, narrow)
            if Measurement.get(console, options.update(max_width=_ANY), grid).minimum <= options.max_width:
                yield grid
                return
        yield from _list(self.table)


def _grid(table: Table, narrow: bool) -> RichTable:
    grid = RichTable(box=None, pad_edge=False, padding=(0, 1 if narrow else 2, 0, 0))
    shown = [at for at, column in enumerate(table.columns) if not (narrow and column.minor)]
    for at in shown:
        column = table.columns[at]
        head = column.short if narrow and column.short else column.title
        width = max(map(cell_len, (head, *(row[at] for row in table.rows))))
        # A number must not be broken in two, and a short name need not be.
        whole = column.number or width <= _SHORT
        grid.add_column(
            Text(head, style="dim"),
            justify="right" if column.number else "left",
            overflow="fold",
            no_wrap=whole,
            min_width=width if whole else None,
        )
    for row in table.rows:
        # Text, not str: brackets in a file name are no style marks.
        grid.add_row(*(Text(row[at], style=_style(row[at])) for at in shown))
    return grid


def _list(table: Table) -> Iterator[Text]:
    for row in table.rows:
        yield Text(row[0], overflow="fold")
        for column, cell in zip(table.columns[1:], row[1:], strict=True):
            yield Text.assemble((f"  {column.title}: ", "dim"), (cell, _style(cell)), overflow="fold")


def _style(cell: str) -> str:
    return _STYLES.get(cell.partition(" (")[0], "")
