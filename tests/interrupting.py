"""A command that is sent a signal in the middle of a stage."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager

from edgeprune.progress import Tick
from edgeprune.terminal import Talk


class Interrupted(Talk):
    """Sends this process a signal when a stage has done some steps."""

    def __init__(self, stage: str, number: int, steps: int) -> None:
        super().__init__()
        self._stage, self._number, self._steps = stage, number, steps

    @contextmanager
    def stage(self, name: str) -> Iterator[Tick]:
        with super().stage(name) as tick:

            def ticked(done: int, total: int) -> None:
                tick(done, total)
                if name == self._stage and done == self._steps:
                    os.kill(os.getpid(), self._number)

            yield ticked


def interrupt(command: str, stage: str, number: int, steps: int) -> None:
    """Let a command, named by its module, be interrupted so; for a process of its own."""
    setattr(importlib.import_module(command), "Talk", lambda: Interrupted(stage, number, steps))  # noqa: B010
