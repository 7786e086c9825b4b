"""Journal: which stage runs, how far it is, how long it took, and what the user should be told."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from time import perf_counter
from typing import Protocol

from edgeprune.progress import Tick, silent


class Listener(Protocol):
    """Someone who watches a run: the terminal, a notebook, nobody."""

    def stage(self, name: str) -> AbstractContextManager[Tick]:
        """A stage begins; the block's end is the stage's end."""

    def say(self, line: str) -> None:
        """Something worth reading now."""


class Nobody:
    """A `Listener` that does not listen."""

    def stage(self, name: str) -> AbstractContextManager[Tick]:  # noqa: ARG002 (protocol)
        """Nothing is shown."""
        return nullcontext(silent)

    def say(self, line: str) -> None:
        """Nothing is shown."""


@dataclass
class Journal:
    """Collects what happens during a run.

    Attributes:
        listener: told as it happens.
        seconds: stage name to wall time; a stage entered again adds up.
        warnings: what the report must repeat, each one sentence.
    """

    listener: Listener
    seconds: dict[str, float] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    @contextmanager
    def stage(self, name: str) -> Iterator[Tick]:
        """Time a stage and show how far it is."""
        start = perf_counter()
        try:
            with self.listener.stage(name) as tick:
                yield tick
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + perf_counter() - start

    def say(self, line: str) -> None:
        """Tell the user something that the report need not repeat."""
        self.listener.say(line)

    def warn(self, line: str) -> None:
        """Tell the user something and keep it for the report."""
        self.warnings.append(line)
        self.listener.say(f"warning: {line}")
