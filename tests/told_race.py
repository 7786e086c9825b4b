"""A race of int8 and float layers whose outcome is given, for tests that must not depend on how fast anything is."""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from edgeprune.export.race import Lap, Writer

FASTER, UNSURE = Lap(1.2, (1.1, 1.3), True), Lap(1.05, (0.9, 1.2), False)


class Told:
    """A race whose times are given: of each layer in int8 and in float, and of the two files."""

    def __init__(self, layers: Mapping[str, tuple[float, float]], lap: Lap | Exception = FASTER) -> None:
        self.layers, self.outcome = layers, lap
        self.raced: list[tuple[str, bytes, bytes]] = []

    def layer_ms(self, form: str, files: Sequence[Writer]) -> list[dict[str, float]]:
        assert len(files) == 2
        return [{name: times[place] for name, times in self.layers.items()} for place in (0, 1)]

    def lap(self, form: str, file: Writer, other: Writer) -> Lap:
        self.raced.append((form, _content(file), _content(other)))
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


def _content(write: Writer) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / "file")
        return (Path(folder) / "file").read_bytes()


def second_is_slower_in_int8(corridor: str) -> None:
    """In a module's runs, layer `second` takes longer in int8 than in float; their files are not timed otherwise."""
    times = {"first": (0.1, 0.4), "second": (0.9, 0.4), "head": (0.1, 0.4)}
    importlib.import_module(corridor).race_of = lambda request, *_: Told(times) if request.float_where_faster else None
    importlib.import_module("edgeprune.pipeline").measured_run = lambda *_: ((), ())
