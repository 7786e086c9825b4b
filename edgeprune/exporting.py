"""exporting: every model of a run in every format and precision, each file compared with its model, then scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprune.accuracy import predict
from edgeprune.artifact import Artifact, Role
from edgeprune.cutting import Traced
from edgeprune.data import ImageSet, InputSpec
from edgeprune.export import EXPORTERS
from edgeprune.export.calibration import Calibration, calibration_of
from edgeprune.export.execute import classes_of
from edgeprune.export.goal import Goal
from edgeprune.export.parity import check
from edgeprune.export.race import Race
from edgeprune.files import write_text
from edgeprune.inputs import Photos
from edgeprune.journal import Journal
from edgeprune.model import Model
from edgeprune.plan import Cost
from edgeprune.progress import Tick
from edgeprune.report.precisions import FileAccuracy
from edgeprune.report.scores import Change, change_between
from edgeprune.request import Request
from edgeprune.target import Target

PARITY_IMAGES = 64
"""How many images each file is compared with its model on."""
SCRIPT = "infer.py"
"""Runs the files without edgeprune."""
_TELLING = ("onnx",)
"""Formats whose exporters tell how far they are."""
ROLES: tuple[Role, Role] = ("baseline", "pruned")


@dataclass(frozen=True)
class Wanted:
    """Which files are wanted.

    Attributes:
        target: the board they are for.
        formats: of the files.
        precisions: each format in each of them; fp32 first.
        settings: by format, what only its exporter knows.
        goal: how often int8 files must be right; None for all of their layers in int8.
        race: where the layers of int8 files are timed; None to leave those in int8 that take longer in it.
    """

    target: Target
    formats: Sequence[str]
    precisions: Sequence[str] = ("fp32",)
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    goal: Goal | None = None
    race: Race | None = None


def wanted_files(request: Request, target: Target, formats: Sequence[str], goal: Goal | None) -> Wanted:
    """The files that a request asks for."""
    fold = {"fold_preprocessing": request.fold_preprocessing}
    tflite = {"converter": request.tflite_converter, "int8": request.tflite_int8, **fold}
    onnx = {"batch": request.onnx_batch, **fold}
    return Wanted(target, formats, request.precisions, {"onnx": onnx, "tflite": tflite}, goal)


def goal_of(uncut: Traced, photos: Photos, most: float, journal: Journal) -> Goal | None:
    """What an int8 file may lose against the uncut model on the images to choose by; None where there are none."""
    images = photos.choosing
    if images is None:
        return None
    with journal.stage("accuracy to keep") as tick:
        own = predict(uncut.model, uncut.program, images, tick).ranked[:, 0]
    truth, right = (own, len(own)) if images.labels is None else (images.labels, int((own == images.labels).sum()))
    return Goal(images, uncut.model.input, truth, right, most, "agreement" if images.labels is None else "top1")


def export_files(
    models: Sequence[tuple[Model, Cost]], wanted: Wanted, folder: Path, photos: Photos, journal: Journal
) -> tuple[Artifact, ...]:
    """Write every format and precision of the uncut and the cut model, each compared with its model before it counts.

    Args:
        models: the uncut and the cut one, with what they cost.
        wanted: which files.
        folder: where they go, as `{role}-{precision}.{format}`, each with its manifest beside it.
        photos: to calibrate with, and to compare on those that nothing was calibrated with.
        journal: told of the stages.

    Raises:
        ParityError: a file does not compute what its model computes.
        ExportError: a format cannot express a model.
        DataError: int8 is wanted and the images are not fit to calibrate with.
    """
    model = models[0][0]
    calibration, held_out = calibration_for(wanted.precisions, model, photos), photos.held_out(model, PARITY_IMAGES)
    found = []
    for name in wanted.formats:
        for precision in wanted.precisions:
            for role, (model, cost) in zip(ROLES, models, strict=True):
                out = folder / f"{role}-{precision}.{name}"
                artifact = export_file((model, cost), wanted, precision, out, calibration, held_out, journal)
                artifact.save_manifest(folder)
                found.append(artifact)
    return tuple(found)


def calibration_for(precisions: Sequence[str], model: Model, photos: Photos) -> Calibration | None:
    """What int8 files are calibrated with; None where none are wanted.

    Raises:
        DataError: the images are not fit to calibrate with.
    """
    if "int8" not in precisions:
        return None
    return calibration_of(photos.first(model, len(photos.calibration)), photos.calibration.source)


def export_file(
    made: tuple[Model, Cost],
    wanted: Wanted,
    precision: str,
    out: Path,
    calibration: Calibration | None,
    held_out: NDArray[np.float32],
    journal: Journal,
) -> Artifact:
    """Write one file, of the format that its name ends in, and compare it with its model; see `export_files`."""
    (model, cost), name = made, out.suffix[1:]
    shown = calibration if precision == "int8" else None
    with journal.stage(f"export {name}") as tick:
        if shown:
            shown = replace(shown, goal=wanted.goal and replace(wanted.goal, tick=tick), race=wanted.race)
        settings = dict(wanted.settings.get(name, {}))
        if name in _TELLING and not (shown and shown.goal):  # a search tells of itself
            settings["tick"] = tick
        artifact: Artifact = EXPORTERS.load(name)(model, cost, wanted.target, precision, out, shown, **settings)
    missed = (artifact.details.get(search, {}).get("missed") for search in ("mixed", "race"))
    for warning in (*artifact.details.get("warnings", ()), *filter(None, missed)):
        journal.warn(f"{artifact.path}: {warning}")
    with journal.stage("parity"):
        return check(artifact, out.parent, model, held_out)


def write_script(folder: Path) -> None:
    """Write `SCRIPT` beside the files: the very code that prepares images here and in packages.

    Raises:
        OutputError: the disk is full, or the folder cannot be written.
    """
    write_text(folder / SCRIPT, resources.files("edgeprune.worker").joinpath(SCRIPT).read_text(encoding="utf-8"))


def score_files(
    artifacts: Sequence[Artifact],
    folder: Path,
    spec: InputSpec,
    images: ImageSet,
    journal: Journal,
    *,
    alone: bool = False,
) -> tuple[FileAccuracy, ...]:
    """How often each file is right, beside the fp32 file of its model and format.

    Args:
        artifacts: the files, an fp32 one before the others of its model and format.
        folder: where they are.
        spec: what the models want of an image.
        images: that nothing was calibrated with.
        journal: told of the stage.
        alone: whether fp32 files are also scored where there are no others; parity with a model that is scored says
            all there is to say of them.
    """
    if not alone and all(one.precision == "fp32" for one in artifacts):
        return ()
    with journal.stage("accuracy of files") as tick:
        chosen = [_classes(one, folder, spec, images, tick, (at, len(artifacts))) for at, one in enumerate(artifacts)]
    references = {(one.role, one.format): at for at, one in enumerate(artifacts) if one.precision == "fp32"}
    found = []
    for at, one in enumerate(artifacts):
        reference, uncut = references[one.role, one.format], references.get(("baseline", one.format))
        scored = _scored(one, artifacts[reference], chosen[at], chosen[reference], images)
        if one.role == "pruned" and uncut is not None:
            scored = replace(scored, against_uncut=_moved(chosen[at], chosen[uncut], images))
        found.append(scored)
    return tuple(found)


def _moved(classes: NDArray[np.int64], before: NDArray[np.int64], images: ImageSet) -> Change:
    """How a file's classes [images] did against others'; without labels, how many more of them are other ones."""
    right = before if images.labels is None else images.labels
    return change_between(before == right, classes == right)


def _classes(
    artifact: Artifact, folder: Path, spec: InputSpec, images: ImageSet, tick: Tick, part: tuple[int, int]
) -> NDArray[np.int64]:
    """The highest class of each image; progress is that of one of several equal parts."""
    at, parts = part
    found: list[NDArray[np.int64]] = []
    for classes in classes_of(artifact, folder, images.batches(spec)):
        found.append(classes)
        tick(at * len(images) + sum(map(len, found)), parts * len(images))
    return np.concatenate(found)


def _scored(
    artifact: Artifact,
    reference: Artifact,
    classes: NDArray[np.int64],
    expected: NDArray[np.int64],
    images: ImageSet,
) -> FileAccuracy:
    """A file beside its reference."""
    names = (artifact.path, artifact.precision, reference.path)
    if images.labels is None:
        return FileAccuracy(*names, "agreement", len(images), float((classes == expected).mean()))
    after, before = classes == images.labels, expected == images.labels
    change = None if artifact is reference else change_between(before, after)
    return FileAccuracy(*names, "top1", len(images), float(after.mean()), change)
