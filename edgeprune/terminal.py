"""What the user sees while a run goes on: talk and progress on stderr, and only what a terminal can show."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from edgeprune.errors import EdgepruneError
from edgeprune.progress import Tick


class Talk:
    """A `edgeprune.journal.Listener` on stderr: a bar for the running stage on a terminal, a line for each finished one.

    Args:
        quiet: say nothing but warnings.
    """

    def __init__(self, quiet: bool = False) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._quiet = quiet

    @contextmanager
    def stage(self, name: str) -> Iterator[Tick]:
        """Show a stage while it runs, and how long it took."""
        start = perf_counter()
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        live = Progress(
            *columns, console=self._console, transient=True, disable=self._quiet or not self._console.is_terminal
        )
        with live:
            task = live.add_task(f"{name:<14}", total=None)
            yield lambda done, total: live.update(task, completed=done, total=total)
        seconds = perf_counter() - start
        if seconds >= 1 and not self._quiet:
            self._console.print(f"  {name:<14} {seconds:6.1f} s", style="dim")

    def say(self, line: str) -> None:
        """A line for the user; warnings also when quiet."""
        warning = line.startswith("warning: ")
        if warning or not self._quiet:
            self._console.print(escape(line), style="yellow" if warning else "", soft_wrap=True)

    def failed(self, error: EdgepruneError) -> None:
        """What went wrong, where, and what to do."""
        self._console.print(f"[bold red]error:[/] {escape(error.what)}", soft_wrap=True)
        for label, text in (("where", error.where), ("fix", error.fix)):
            if text:
                self._console.print(f"[bold]{label:>5}:[/] {escape(text)}", soft_wrap=True)
