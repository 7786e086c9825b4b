"""The corridor of `verify FILE --model MODEL`: a file that no run wrote, compared with the model it should compute."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edgeprune.artifact import Artifact
from edgeprune.bench.single import single_files
from edgeprune.data import ImageSet, check_labels, load_images
from edgeprune.errors import UsageError
from edgeprune.export.execute import Array, classes_of, outputs_of
from edgeprune.export.foreign import Reading, kind_of
from edgeprune.export.parity import judge
from edgeprune.export.tflite import ends_of
from edgeprune.exporting import PARITY_IMAGES
from edgeprune.inputs import named_data, named_model
from edgeprune.journal import Journal, Listener, Nobody
from edgeprune.judge import accuracy_of
from edgeprune.model import Model
from edgeprune.program import capture
from edgeprune.report.precisions import FileAccuracy
from edgeprune.request import Request
from edgeprune.verifying import Verification, Verified

_LAYOUTS = {"onnx": "NCHW", "tflite": "NHWC"}


@dataclass(frozen=True)
class FileOrder:
    """Which file to verify, and beside what.

    Attributes:
        file: an `.onnx` or `.tflite` file of one image input.
        request: names the model, its weights and input, the images and how many.
    """

    file: Path
    request: Request


def verify_file(asked: FileOrder, listener: Listener | None = None) -> Verification:
    """Compare a file with a torch model: outputs by the bounds of its precision, and accuracy where there are labels.

    A file with one class more than the model has a background class first, which is left out; one that ends in a
    softmax is compared with the softmax of the model. Both are told.

    Raises:
        EdgepruneError: the model, the images or the file cannot be had, or the file is not fed as the model is; what
            else is wrong with it is in the result.
    """
    asked.request.check()
    journal = Journal(listener or Nobody())
    with journal.stage("load"):
        model = named_model(asked.request, journal)
        artifact = _artifact(asked.file, model)
    images = _images(asked.request, model, journal)
    program = capture(model.module, model.input.shape)
    classes = program.shapes[program.outputs[0].name][1]
    check_labels(images, classes)
    shown = model.input.normalise(images.images[:PARITY_IMAGES])
    reading = _reading(artifact, classes, shown, journal)
    with journal.stage("parity"):
        verdict = judge(artifact, Path(), model, shown, reading)
    with journal.stage("accuracy") as tick:
        accuracy = accuracy_of((program, model), program, {}, "", images, tick)
        scored = _scored(artifact, model, images, reading) if verdict.artifact.parity else None
    faults = (verdict.fault.where,) if verdict.fault else ()
    named = replace(verdict.artifact, path=asked.file.name)
    found = Verified(named, faults, scored, verdict.divergence)
    return Verification(str(asked.file), images.source, None, accuracy, (found,), len(shown), tuple(journal.warnings))


def _artifact(file: Path, model: Model) -> Artifact:
    (artifact,) = single_files([file])
    wanted = _LAYOUTS[artifact.format]
    if (artifact.input_shape, artifact.layout) != (model.input.shape, wanted):
        raise UsageError(
            f"the file takes images of {list(artifact.input_shape)} in {artifact.layout}, not of "
            f"{list(model.input.shape)} in {wanted}",
            where=str(file),
            fix="Name the model it was made of, with its --input; .onnx files are fed NCHW, .tflite files NHWC.",
        )
    feed = ends_of(file.read_bytes())[0] if artifact.format == "tflite" else None
    if feed and feed.dtype != "float32" and feed.scale is None:
        raise UsageError(
            f"the file takes {feed.dtype} without a scale: how pixels become its numbers is not known",
            where=str(file),
            fix="Only float32 inputs, and integers with a scale, can be fed.",
        )
    return replace(artifact, precision=kind_of(file)[0])


def _images(request: Request, model: Model, journal: Journal) -> ImageSet:
    data = named_data(request, " to compare the file with the model")
    with journal.stage("images") as tick:
        return load_images(data, model.input, limit=request.images, seed=request.seed, tick=tick)


def _reading(artifact: Artifact, classes: int, images: Array, journal: Journal) -> Reading:
    """How the file's output is to be read, told where it is not simply the model's."""
    first = outputs_of(artifact, Path(), images[:1])[0]
    background = first.ndim == 2 and first.shape[1] == classes + 1
    reading = Reading(background, kind_of(Path(artifact.path))[1])
    if background:
        journal.warn(f"the file has {classes + 1} classes, the model {classes}: its first counts as background")
    if reading.probabilities:
        journal.warn("the file gives probabilities: compared with the softmax of the model's outputs")
    return reading


def _scored(artifact: Artifact, model: Model, images: ImageSet, reading: Reading) -> FileAccuracy | None:
    """How often the file is right; without labels its agreement with the model is all there is to say."""
    if images.labels is None:
        return None
    found = np.concatenate(list(classes_of(artifact, Path(), images.batches(model.input))))
    right = float((found - reading.background == images.labels).mean())
    return FileAccuracy(artifact.path, artifact.precision, artifact.path, "top1", len(images), right)
