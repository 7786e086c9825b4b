"""The corridor of `verify`: every file of a finished run compared with its model again, on images it never saw."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from edgeprune.artifact import SCHEMA as MANIFEST_SCHEMA
from edgeprune.artifact import Artifact, Parity
from edgeprune.data import ImageSet, check_labels
from edgeprune.errors import EdgepruneError, UsageError
from edgeprune.export.divergence import Divergence
from edgeprune.export.execute import Array
from edgeprune.export.parity import TOLERANCES, distance_between, judge
from edgeprune.exporting import PARITY_IMAGES, ROLES, score_files
from edgeprune.files import read_json, sha256_of
from edgeprune.journal import Journal, Listener, Nobody
from edgeprune.judge import accuracy_of
from edgeprune.model import Model, load_saved
from edgeprune.program import capture
from edgeprune.reopening import TRAINING, asked_again, fresh_photos, uncut_again
from edgeprune.report.document import Report
from edgeprune.report.plain import to_plain
from edgeprune.report.precisions import FileAccuracy
from edgeprune.report.scores import CUT, Accuracy

SCHEMA = 1


@dataclass(frozen=True)
class VerifyOrder:
    """Which run to verify, and with what; what is None is as that run has it.

    Attributes:
        run: its folder; it is not changed.
        weights: of the uncut model.
        data: images to verify with.
        images: how many to measure accuracy on at most; outputs are compared on the first `PARITY_IMAGES`.
    """

    run: Path
    weights: Path | None = None
    data: str | None = None
    images: int | None = None


@dataclass(frozen=True)
class Verified:
    """What was found of one file.

    Attributes:
        artifact: the file, with the parity found now; None in it where its outputs could not be compared.
        faults: what is wrong, each a sentence or two; none if nothing is.
        accuracy: how often it is right; None if it could not be scored.
        divergence: where inside the file it leaves its model, if it does and that could be looked for.
    """

    artifact: Artifact
    faults: tuple[str, ...]
    accuracy: FileAccuracy | None = None
    divergence: Divergence | None = None

    def to_json(self) -> dict[str, Any]:
        """This as a JSON document."""
        one, bounds = self.artifact, asdict(TOLERANCES[self.artifact.precision])
        named = {key: getattr(one, key) for key in ("path", "sha256", "role", "format", "precision")}
        return {
            **named,
            "passed": not self.faults,
            "faults": list(self.faults),
            "parity": to_plain(one.parity),
            "tolerance": {key: None if value in (float("inf"), -1.0) else value for key, value in bounds.items()},
            "witness": one.details.get("witness"),
            "accuracy": to_plain(self.accuracy),
            "divergence": None if self.divergence is None else self.divergence.to_json(),
        }


@dataclass(frozen=True)
class Verification:
    """What was found of a run, or of a file beside a model.

    Attributes:
        run: its folder; the file.
        source: of the images.
        change: how far the cut model's outputs are from the uncut one's: what the cut did, and nothing to be judged;
            None where there is no cut model.
        accuracy: of the uncut and the cut torch model.
        files: in the order of the run's report.
        compared: how many images outputs were compared on.
        notes: what must be known to read this, each a sentence.
    """

    run: str
    source: str
    change: Parity | None
    accuracy: Accuracy
    files: tuple[Verified, ...]
    compared: int
    notes: tuple[str, ...] = ()

    @property
    def failed(self) -> tuple[Verified, ...]:
        """The files with faults."""
        return tuple(one for one in self.files if one.faults)

    def to_json(self) -> dict[str, Any]:
        """This as a JSON document."""
        uncut, *cut = (to_plain(step) for step in self.accuracy.steps)
        return {
            "schema": SCHEMA,
            "run": self.run,
            "passed": not self.failed,
            "images": {"source": self.source, "scored": self.accuracy.images, "compared": self.compared},
            "metric": self.accuracy.metric,
            "models": [{**uncut, "against_uncut": None}]
            + [{**one, "against_uncut": to_plain(self.change)} for one in cut],
            "files": [one.to_json() for one in self.files],
            "notes": list(self.notes),
        }


def verify(asked: VerifyOrder, listener: Listener | None = None) -> Verification:
    """Compare each file of a finished run with the torch model it was written from, and with its own manifest.

    Raises:
        EdgepruneError: the run, its models or the images cannot be had; what is wrong with files is in the result.
    """
    if asked.images is not None and asked.images < 1:
        raise UsageError(f"--images must be at least 1, got {asked.images}", fix="Leave it out for all of them.")
    before = Report.load(asked.run / "report.json")
    if not before.artifacts:
        raise UsageError("the run has no files", where=str(asked.run), fix="Run compress again with --formats.")
    journal, request = Journal(listener or Nobody()), asked_again(before, weights=asked.weights)
    with journal.stage("load"):
        cut, uncut = load_saved(asked.run), uncut_again(request, asked.run)
    images = fresh_photos(request, before.data, asked.data, asked.images, uncut, journal)
    if asked.data is None and request.data == request.calibration_data and (asked.run / TRAINING).is_file():
        journal.warn("some of these images were trained on, and accuracy on them flatters: give others with --data")
    with journal.stage("trace"):
        programs = [capture(model.module, model.input.shape) for model in (uncut, cut)]
    check_labels(images, programs[0].shapes[programs[0].outputs[0].name][1])
    shown = uncut.input.normalise(images.images[:PARITY_IMAGES])
    models = dict(zip(ROLES, (uncut, cut), strict=True))
    with journal.stage("parity") as tick:
        change, files = distance_between(uncut, cut, shown), []
        for place, artifact in enumerate(before.artifacts):
            files.append(_looked_at(artifact, asked.run, models[artifact.role], shown))
            tick(place + 1, len(before.artifacts))
    with journal.stage("accuracy") as tick:
        accuracy = accuracy_of((programs[0], uncut), programs[1], {CUT: cut}, CUT, images, tick)
    scored = _scored(files, asked.run, uncut, images, journal)
    told = tuple(replace(one, accuracy=scored.get(one.artifact.path)) for one in files)
    notes = tuple(journal.warnings)
    return Verification(str(asked.run), images.source, change, accuracy, told, len(shown), notes)


def _looked_at(artifact: Artifact, run: Path, model: Model, images: Array) -> Verified:
    """A file as it is now, beside its manifest and its model."""
    missing = [path for path in artifact.files(run) if not path.is_file()]
    if missing:
        which = "the file" if missing[0] == run / artifact.path else f"{missing[0].name}, which belongs beside it,"
        return Verified(replace(artifact, parity=None), (f"{which} is missing",))
    verdict = judge(artifact, run, model, images)
    apart = (verdict.fault.where,) if verdict.fault else ()
    return Verified(verdict.artifact, (*_changes(artifact, run), *apart), divergence=verdict.divergence)


def _changes(artifact: Artifact, run: Path) -> Iterator[str]:
    """In what a file is not the one that its manifest and the run's report tell of."""
    for path, known in artifact.files(run).items():
        found, whose = sha256_of(path), "" if path == run / artifact.path else f"{path.name}, which belongs beside it, "
        if found != known:
            yield f"{whose}changed since it was written: its SHA-256 is {found}, and was {known}"
    try:
        stated = read_json(run / f"{artifact.path}.json", MANIFEST_SCHEMA).get("sha256")
    except EdgepruneError as error:
        yield f"its manifest: {error.what}"
        return
    if stated != artifact.sha256:
        yield "its manifest is not that of the run: it tells of another file"


def _scored(
    files: Sequence[Verified], run: Path, model: Model, images: ImageSet, journal: Journal
) -> Mapping[str, FileAccuracy]:
    """How often each file is right that can be run, and whose fp32 file can; path -> that."""
    able = [one.artifact for one in files if one.artifact.parity is not None]
    references = {(one.role, one.format) for one in able if one.precision == "fp32"}
    chosen = [one for one in able if (one.role, one.format) in references]
    found = score_files(chosen, run, model.input, images, journal, alone=True) if chosen else ()
    return {one.artifact: one for one in found}
