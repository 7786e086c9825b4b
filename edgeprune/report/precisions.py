"""What fewer bits cost: how often each file is right, beside the fp32 file of the same model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from edgeprune.artifact import Artifact
from edgeprune.report.numbers import count, share
from edgeprune.report.scores import Change
from edgeprune.report.table import Column, Table
from edgeprune.stats import share_interval

Metric = Literal["top1", "agreement"]
_NAMES = {"top1": "Top-1", "agreement": "agreement"}


@dataclass(frozen=True)
class FileAccuracy:
    """How often a file is right, run in its own runtime on images that nothing was calibrated with.

    Attributes:
        artifact: path of the file.
        precision: of the file.
        reference: path of the fp32 file of the same model and format.
        metric: "top1" (against labels) or "agreement" (same highest class as the reference).
        images: how many were scored.
        share: 0 to 1.
        change: of `share` against the reference; None for that itself, and for agreement.
        against_uncut: what cut and precision cost together: the change of top-1 against the uncut model's fp32 file of
            this format; without labels, agreement with that file less 1. None for the uncut model's own files.
    """

    artifact: str
    precision: str
    reference: str
    metric: Metric
    images: int
    share: float
    change: Change | None = None
    against_uncut: Change | None = None

    @property
    def ci95(self) -> tuple[float, float]:
        """The 95 % interval of `share`."""
        return share_interval(self.share, self.images)


def table(scored: Sequence[FileAccuracy]) -> Table:
    """One row for each file that was scored."""
    metric = _NAMES[scored[0].metric] if scored else ""
    columns = (
        Column("artifact"),
        Column("precision", minor=True),
        Column(metric, number=True),
        Column("against fp32, points", number=True),
    )
    what = "the same highest class as the fp32 file" if metric == "agreement" else "the label"
    note = (
        f"Each file in its own runtime on {count(scored[0].images)} images that nothing was calibrated with: how often "
        f"it gives {what}. Numbers in brackets are 95 % intervals, those of changes counted image by image."
        if scored
        else ""
    )
    return Table("precisions", "Accuracy of the files", note, columns, tuple(map(_row, scored)))


def graphs(artifacts: Sequence[Artifact]) -> Table:
    """One row for each file whose operators were counted: the number of nodes at each stage, and of which kinds."""
    stages = ("nodes_exported", "nodes_simplified", "nodes", "nodes_run")
    columns = (
        Column("artifact"),
        *(Column(name, number=True, minor=True) for name in ("exported", "simplified", "written", "run")),
        Column("operators in the file"),
    )
    rows = tuple(
        (one.path, *(str(one.details.get(stage, "-")) for stage in stages), _histogram(one.details["operators"]))
        for one in artifacts
        if "operators" in one.details
    )
    note = (
        "Nodes as the converter gave them, simplified, in the file, and after the runtime's own optimisation on the "
        "machine that wrote it, where it tells."
    )
    return Table("graphs", "Graphs", note, columns, rows)


def _histogram(operators: Mapping[str, int]) -> str:
    """The kinds of operators, the most frequent first."""
    found = sorted(operators.items(), key=lambda pair: (-pair[1], pair[0]))
    return ", ".join(f"{name} {number}" for name, number in found)


def _row(one: FileAccuracy) -> tuple[str, ...]:
    return (one.artifact, one.precision, share(one.share, one.ci95), _points(one))


def _points(one: FileAccuracy) -> str:
    if one.change is None:
        return "reference" if one.artifact == one.reference else "-"
    return one.change.points
