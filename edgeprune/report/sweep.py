"""SweepReport: what a sweep found out, task by task. `sweep.json` is this value; the other files are drawings of it.

History of the schema number:
    1   first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from edgeprune.files import write_texts
from edgeprune.report.document import Report
from edgeprune.report.headline import by_precision, doubt
from edgeprune.report.parts import SpeedUp
from edgeprune.report.plain import to_plain
from edgeprune.report.scores import Change

SCHEMA = 1
SCHEMA_FILE = Path(__file__).with_name("sweep.schema.json")
"""JSON Schema (draft 2020-12) of `sweep.json`."""

_MISSED = 1


@dataclass(frozen=True)
class Scored:
    """How good what a task hands over is, on images that nothing was calibrated with.

    Attributes:
        metric: "top1" (against labels) or "agreement" (same highest class as the uncut model).
        images: how many were scored.
        share: how often it is right, of the model in fp32, of the worst file in another precision; 0 to 1.
        change: against the uncut model in fp32; without labels, how much below 1 the agreement with it is.
    """

    metric: Literal["top1", "agreement"]
    images: int
    share: float
    change: Change


@dataclass(frozen=True)
class Row:
    """A task, and what became of it.

    Attributes:
        task: its name.
        criterion: by which filters are ranked.
        asked: {"speedup": 1.5} or {"macs": 0.6}, as a run's report has it.
        precision: of the files that it is about.
        exit_code: its command's; None where it was not run, or not to its end.
        error: what went wrong, as the command said it; empty if nothing did.
        seconds: that it took.
        run: its run folder, seen from the sweep's; empty where there is none.
        macs_kept: share of the uncut model's.
        accuracy: None where it was not scored.
        comparisons: of its files in this precision with the uncut fp32 files; empty where nothing was timed.
        doubts: why its times should not be relied on, each in a word; empty if they can be.
    """

    task: str
    criterion: str
    asked: Mapping[str, float]
    precision: str
    exit_code: int | None = None
    error: str = ""
    seconds: float = 0.0
    run: str = ""
    macs_kept: float | None = None
    accuracy: Scored | None = None
    comparisons: tuple[SpeedUp, ...] = ()
    doubts: tuple[str, ...] = ()

    @property
    def result(self) -> str:
        """How it ended, in words."""
        if self.exit_code is None:
            return "not run"
        if self.exit_code == _MISSED and self.run:
            return "goal missed"
        return f"failed ({self.exit_code})" if self.exit_code else "done"

    @property
    def failed(self) -> bool:
        """Whether there is something wrong with it but a goal that is missed."""
        return self.result not in ("done", "goal missed", "not run")

    @property
    def least(self) -> SpeedUp | None:
        """The smallest of its measured speed-ups; None where nothing was timed."""
        return min(self.comparisons, key=lambda one: one.ratio, default=None)


def with_findings(row: Row, run: str, report: Report) -> Row:
    """A task with what the report of its run says.

    Args:
        row: the task.
        run: the run folder, seen from the sweep's.
        report: in it.
    """
    cut = {one.path for one in report.artifacts if one.role == "pruned" and one.precision == row.precision}
    timings = [one for one in report.measurements if one.artifact in cut]
    return replace(
        row,
        run=run,
        macs_kept=report.budget.reached["macs"],
        accuracy=_of_model(report) if row.precision == "fp32" else _of_files(report, cut),
        comparisons=by_precision(report).get(row.precision, ()),
        doubts=tuple(dict.fromkeys(filter(None, map(doubt, timings)))),
    )


def _of_model(report: Report) -> Scored | None:
    scored = report.accuracy
    if scored is None or scored.final is None:
        return None
    share, change = scored.final.share, scored.final.change
    if change is None:
        low, high = scored.ci95(share) or (share, share)
        change = Change(share - 1, (low - 1, high - 1))
    return Scored(scored.metric, scored.images, share, change)


def _of_files(report: Report, paths: set[str]) -> Scored | None:
    """The worst of the files in a precision."""
    found = [
        Scored(one.metric, one.images, 1 + change.difference if one.metric == "agreement" else one.share, change)
        for one in report.files
        if one.artifact in paths and (change := one.against_uncut)
    ]
    return min(found, key=lambda one: one.change.difference, default=None)


@dataclass(frozen=True)
class SweepReport:
    """What a sweep found out. Its parts carry the field names of `sweep.json`.

    Attributes:
        edgeprune_version: that wrote it.
        model: as it was named.
        target: the board's name.
        rows: the tasks, in the order they were asked for.
        executor: what ran them, one sentence.
        command: the argument vector.
        created: when it ended, ISO 8601 with the offset from UTC.
    """

    edgeprune_version: str
    model: str
    target: str
    rows: tuple[Row, ...]
    executor: str
    command: tuple[str, ...] = field(default_factory=tuple)
    created: str = ""

    def to_json(self) -> dict[str, Any]:
        """This report as a JSON document, valid by `SCHEMA_FILE`."""
        return {"schema": SCHEMA, **to_plain(self)}

    def save(self, folder: Path) -> tuple[Path, ...]:
        """Write this report into a folder in every file format; all files or none.

        Raises:
            OutputError: the disk is full, or the folder cannot be written.
        """
        from edgeprune.report.render.sweep import FILES

        texts = {folder / name: draw(self) for name, draw in FILES.items()}
        write_texts(texts)
        return tuple(texts)
