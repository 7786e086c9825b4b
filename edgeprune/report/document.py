"""Report: everything a run found out, as one value. `report.json` is this value; the other files are drawings of it.

History of the schema number:
    1   first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from edgeprune.artifact import Artifact
from edgeprune.explanation import Explanation
from edgeprune.files import read_json, write_texts
from edgeprune.report.front import Front
from edgeprune.report.parts import (
    Board,
    BudgetFacts,
    Costs,
    DataUse,
    Layer,
    Machine,
    Method,
    Protected,
    RunFacts,
    SpeedUp,
    Subject,
    Timing,
)
from edgeprune.report.plain import from_plain, to_plain
from edgeprune.report.precisions import FileAccuracy
from edgeprune.report.render import FILES, RENDERERS
from edgeprune.report.scores import Accuracy, derived, original
from edgeprune.sustained import Sustained

SCHEMA = 1
SCHEMA_FILE = Path(__file__).with_name("schema.json")
"""JSON Schema (draft 2020-12) of `report.json`."""


@dataclass(frozen=True)
class Report:
    """Everything a run found out. Its parts carry the field names of `report.json`."""

    edgeprune_version: str
    model: Subject
    target: Board
    devices: tuple[Machine, ...]
    data: DataUse
    criterion: Method
    recovery: Method
    budget: BudgetFacts
    cost: Costs
    accuracy: Accuracy | None
    layers: tuple[Layer, ...]
    protected: tuple[Protected, ...]
    artifacts: tuple[Artifact, ...]
    measurements: tuple[Timing, ...]
    comparisons: tuple[SpeedUp, ...]
    run: RunFacts
    sustained: tuple[Sustained, ...] = ()
    explanations: tuple[Explanation, ...] = ()
    files: tuple[FileAccuracy, ...] = ()
    front: Front | None = None

    def to_json(self) -> dict[str, Any]:
        """This report as a JSON document, valid by `SCHEMA_FILE`."""
        document = to_plain(self)
        run = document.pop("run")
        if self.accuracy:
            document["accuracy"].update(derived(self.accuracy))
        for absent in ("explanations", "files", "front"):
            if not document[absent]:
                del document[absent]
        if document["data"]["draw"] is None:
            del document["data"]["draw"]
        return {"schema": SCHEMA, **document, **run}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Report:
        """The report a JSON document describes.

        Raises:
            EdgepruneError: a field is missing, unknown, or of another type; its path is named.
        """
        parts = {name: part for name, part in document.items() if name != "schema"}
        if isinstance(parts.get("accuracy"), Mapping):
            parts["accuracy"] = original(parts["accuracy"])
        parts["run"] = {part.name: parts.pop(part.name) for part in fields(RunFacts) if part.name in parts}
        return from_plain(cls, parts, "report")  # type: ignore[no-any-return]

    def save(self, run: Path) -> tuple[Path, ...]:
        """Write this report into the run folder in every file format; all files or none.

        Raises:
            OutputError: the disk is full, or the folder cannot be written.
        """
        texts = {run / name: RENDERERS.load(renderer)(self) for name, renderer in FILES.items()}
        write_texts(texts)
        return tuple(texts)

    @classmethod
    def load(cls, path: Path) -> Report:
        """Read a `report.json`.

        Raises:
            EdgepruneError: the file is missing, torn, of another schema number, or not a report.
        """
        return cls.from_json(read_json(path, SCHEMA))
