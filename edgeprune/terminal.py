"""What the user sees: talk and progress on stderr, and only what a terminal can show; results on stdout."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock, current_thread, main_thread
from time import perf_counter
from typing import TYPE_CHECKING, Any, ClassVar, TextIO

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from edgeprune.errors import EdgepruneError
from edgeprune.progress import Tick

if TYPE_CHECKING:
    from edgeprune.report.document import Report

_MISSED = 1
_NAMES_SHOWN = 3
"""Of the layers tied in one space or reading it; all are in the JSON document."""


class Talk:
    """A `edgeprune.journal.Listener` on stderr: a bar for each running stage, a line for each finished one.

    Attributes:
        interrupted: whether the user has asked for the end. A library may swallow the exception that says so; then the
            run ends where the stage ends.
    """

    interrupted: ClassVar[staticmethod[[], bool]] = staticmethod(lambda: False)

    def __init__(self) -> None:
        self._console = Console(file=_own_stderr(), stderr=True, highlight=False)
        self._running, self._lock = 0, Lock()
        self._bars = Progress()

    @contextmanager
    def stage(self, name: str) -> Iterator[Tick]:
        """Show a stage while it runs, and how long it took."""
        start = perf_counter()
        with self._shown() as bars:
            task = bars.add_task(f"{name:<14}", total=None)
            try:
                yield lambda done, total: bars.update(task, completed=done, total=total)
            finally:
                bars.remove_task(task)
        if self.interrupted() and current_thread() is main_thread():
            raise KeyboardInterrupt
        seconds = perf_counter() - start
        if seconds >= 1:
            self._console.print(f"  {name:<14} {seconds:6.1f} s", style="dim")

    @contextmanager
    def _shown(self) -> Iterator[Progress]:
        """The bars of all stages that run now: a terminal can show only one set of them."""
        with self._lock:
            self._running += 1
            if self._running == 1:
                columns = (
                    TextColumn("{task.description}"),
                    BarColumn(),
                    TaskProgressColumn(),
                    TimeElapsedColumn(),
                    TimeRemainingColumn(),
                )
                is_seen = self._console.is_terminal
                self._bars = Progress(*columns, console=self._console, transient=True, disable=not is_seen)
                self._bars.start()
        try:
            yield self._bars
        finally:
            with self._lock:
                self._running -= 1
                if not self._running:
                    self._bars.stop()

    def say(self, line: str) -> None:
        """A line for the user."""
        self._console.print(escape(line), style="yellow" if line.startswith("warning: ") else "", soft_wrap=True)

    def failed(self, error: EdgepruneError) -> None:
        """What went wrong, where, and what to do."""
        self._console.print(f"[bold red]error:[/] {escape(error.what)}", soft_wrap=True)
        for label, text in (("where", error.where), ("fix", error.fix)):
            if text:
                self._console.print(f"[bold]{label:>5}:[/] {escape(text)}", soft_wrap=True)


def print_json(document: Mapping[str, Any]) -> None:
    """Print a document on standard output."""
    print(json.dumps(document, indent=2, ensure_ascii=False))


def print_report(report: Report, folder: Path | None, talk: Talk, as_json: bool) -> None:
    """A run's report on stdout; for people, then, where everything is."""
    if as_json:
        print_json(report.to_json())
        return
    from edgeprune.report.render.terminal import show

    show(report)
    if folder:
        talk.say(f"Everything is in {folder}: the files, plan.json, report.json, report.md, report.html")


def end_missed(missed: str, talk: Talk) -> None:
    """Say which goal a run missed, and end the command with the exit code for that; nothing where it missed none.

    Raises:
        typer.Exit: it missed one.
    """
    if missed:
        talk.say(f"goal missed: {missed}; the report says why, layer by layer")
        raise typer.Exit(_MISSED)


def print_rows(kind: str, rows: Sequence[Mapping[str, Any]], as_json: bool) -> None:
    """Print rows as a table, or as a JSON document under the name `kind`."""
    if as_json:
        print_json({"schema": 1, kind: list(rows)})
    else:
        Console(highlight=False).print(table(rows))


def print_plan(plan: Mapping[str, Any], whole: Mapping[str, str], as_json: bool) -> None:
    """Print a plan layer by layer, with the reasons of those left whole, or as its JSON document."""
    if as_json:
        print_json(plan)
        return
    widths = {name: len(kept) for name, kept in plan["keep"].items()}
    rows = [
        {"layer": name, "filters": size, "kept": widths.get(name, size), "left whole because": whole.get(name, "")}
        for name, size in plan["sizes"].items()
    ]
    console = Console(highlight=False)
    console.print(table(rows))
    asked = ", ".join(f"--{name} {value}" for name, value in plan["asked"].items())
    console.print(f"{plan['reached']['macs']:.1%} of the MACs would stay (asked: {asked}). Nothing was written.")


def print_description(description: Mapping[str, Any], as_json: bool) -> None:
    """Print a model's channel spaces and what may be cut, or the JSON document of an `edgeprune.prune.describe`."""
    if as_json:
        print_json(description)
        return
    spaces, cost = description["spaces"], description["cost"]
    console = Console(highlight=False)
    console.print(
        f"{escape(description['model'])}, {'x'.join(map(str, description['input']))}: {cost['macs']:,} MACs, "
        f"{cost['parameters']:,} parameters, {cost['peak_activation_bytes']:,} bytes of fp32 activations at the peak"
    )
    rows = [
        {
            "space, made by": _few(space["producers"]),
            "filters": _filters(space),
            "MACs": f"{space['macs_share']:.1%}",
            "read by": _few(space["consumers"]),
            "left whole because": space["left_whole"],
        }
        for space in spaces
    ]
    console.print(table(rows))
    whole = sum(bool(space["left_whole"]) for space in spaces)
    console.print(
        f"{description['free']:,} of {description['filters']:,} filters are free in {_spaces(len(spaces) - whole)} "
        f"({description['free_macs_share']:.1%} of the MACs make or read them); "
        f"{_spaces(whole)} {'is' if whole == 1 else 'are'} left whole."
    )


def _filters(space: Mapping[str, Any]) -> str:
    """How many filters a space has, and in what they come."""
    each = f" of {space['channels_each']} channels" if space["channels_each"] > 1 else ""
    return f"{space['filters']}{each}" + (f" in {space['groups']} groups" if space["groups"] > 1 else "")


def _few(names: Sequence[str]) -> str:
    """Names one below the other; of many, the first ones."""
    hidden = len(names) - _NAMES_SHOWN
    return "\n".join(names if hidden <= 1 else [*names[:_NAMES_SHOWN], f"and {hidden} more"])


def _spaces(count: int) -> str:
    return "1 space" if count == 1 else f"{count:,} spaces"


def table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Rows as a table; the first one's keys are the headings."""
    drawn = Table(box=None, pad_edge=False, header_style="bold")
    for column in rows[0] if rows else []:
        drawn.add_column(column.replace("_", " "), overflow="fold")
    for row in rows:
        drawn.add_row(*(_cell(value) for value in row.values()))
    return drawn


def _cell(value: Any) -> str:
    text = " ".join(f"{key}={inner}" for key, inner in value.items()) if isinstance(value, Mapping) else str(value)
    return escape(text)


def _own_stderr() -> TextIO | None:
    """A terminal of our own, so that the bar goes on while converters' noise on stderr is swallowed; None if piped."""
    return os.fdopen(os.dup(sys.stderr.fileno()), "w") if sys.stderr.isatty() else None
