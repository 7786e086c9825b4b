"""Listeners of a journal, for tests of what is said."""

from __future__ import annotations

from edgeprune.journal import Nobody


class Heard(Nobody):
    """Keeps what is said.

    Attributes:
        lines: in order.
    """

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        """Keep a line."""
        self.lines.append(line)
