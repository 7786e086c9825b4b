"""Material: the files that are timed, and the images they are fed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgeprune.artifact import Artifact
from edgeprune.bench.entries import runtimes_of
from edgeprune.bench.session import INPUTS_NAME, LOG_NAME
from edgeprune.bench.single import made_up_images, single_files
from edgeprune.errors import DataError, UsageError
from edgeprune.measurement import load_measurements
from edgeprune.report.document import Report


@dataclass(frozen=True, eq=False)
class Material:
    """What is measured.

    Attributes:
        artifacts: the files.
        folder: what their paths are relative to; the samples are kept there.
        images: to feed them, float32 [k, C, H, W].
        report: of the run they are from; None for single files.
    """

    artifacts: tuple[Artifact, ...]
    folder: Path
    images: np.ndarray
    report: Report | None


def open_run(folder: Path, runtimes: Sequence[str] = ()) -> Material:
    """The files of a finished run, and the images they were timed with.

    Raises:
        EdgepruneError: it is no run, a file is missing or has changed, no runtime reads any, or the samples kept
            in it cannot be read.
    """
    report = Report.load(folder / "report.json")
    artifacts = tuple(one for one in report.artifacts if runtimes_of(one, runtimes))
    if not artifacts:
        raise UsageError("the run has no such files", where=str(folder), fix="Leave --runtime out, or export more.")
    for one in artifacts:
        if path := one.altered(folder):
            raise UsageError("missing, or not the file of the run any more", where=str(path), fix="Run compress again.")
    if (folder / LOG_NAME).is_file():
        load_measurements(folder / LOG_NAME)  # told before minutes are spent, not when the report is written
    return Material(artifacts, folder, _images(folder / INPUTS_NAME, artifacts[0].input_shape), report)


def _images(path: Path, shape: tuple[int, int, int]) -> np.ndarray:
    if not path.is_file():
        return made_up_images(shape)
    try:
        images: np.ndarray = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        fix = "Remove it to measure with noise, or run compress again."
        raise DataError(f"not the images of a run: {error}", where=str(path), fix=fix) from error
    return images


def material_of(files: Sequence[Path], runtimes: Sequence[str], scratch: Path) -> Material:
    """What the user named: one run, or files.

    Args:
        files: one run folder, or model files.
        runtimes: to measure in; see `edgeprune.bench.entries.runtimes_of`.
        scratch: where the samples of single files go.

    Raises:
        EdgepruneError: these cannot be measured, or not together.
    """
    if len(files) == 1 and files[0].is_dir():
        return open_run(files[0], runtimes)
    folders = [path for path in files if path.is_dir()]
    if folders:
        raise UsageError(
            "a run is measured by itself", where=str(folders[0]), fix="Name one run folder, or only model files."
        )
    artifacts = single_files(files)
    if not runtimes_of(artifacts[0], runtimes):
        raise UsageError(f"no --runtime that reads {artifacts[0].format} files", fix="Leave it out.")
    return Material(artifacts, scratch, made_up_images(artifacts[0].input_shape), None)
