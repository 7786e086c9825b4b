"""BenchReport: what timing single files found out. `bench.json` is this value; the other files are drawings of it.

History of the schema number:
    1   first.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeprune.artifact import Artifact
from edgeprune.explanation import Explanation
from edgeprune.files import write_texts
from edgeprune.report.parts import Machine, RunFacts, SpeedUp, Timing
from edgeprune.report.plain import to_plain
from edgeprune.sustained import Sustained

SCHEMA = 1
SCHEMA_FILE = Path(__file__).with_name("bench.schema.json")
"""JSON Schema (draft 2020-12) of `bench.json`."""


@dataclass(frozen=True)
class BenchReport:
    """What timing files found out that are of no run. Its parts carry the field names of `bench.json`."""

    edgeprune_version: str
    artifacts: tuple[Artifact, ...]
    devices: tuple[Machine, ...]
    measurements: tuple[Timing, ...]
    comparisons: tuple[SpeedUp, ...]
    run: RunFacts
    sustained: tuple[Sustained, ...] = ()
    explanations: tuple[Explanation, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """This report as a JSON document, valid by `SCHEMA_FILE`."""
        document = to_plain(self)
        run = document.pop("run")
        if not self.explanations:
            del document["explanations"]
        return {"schema": SCHEMA, **document, **run}

    def save(self, folder: Path) -> tuple[Path, ...]:
        """Write this report into a folder in every file format; all files or none.

        Raises:
            OutputError: the disk is full, or the folder cannot be written.
        """
        from edgeprune.report.render.bench import FILES

        texts = {folder / name: draw(self) for name, draw in FILES.items()}
        write_texts(texts)
        return tuple(texts)
