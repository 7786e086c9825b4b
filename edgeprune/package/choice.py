"""What of a run is packaged, and for which system."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgeprune.artifact import Artifact
from edgeprune.bench.session import INPUTS_NAME
from edgeprune.data import InputSpec
from edgeprune.errors import DataError, ParityError, UsageError
from edgeprune.registry import unknown
from edgeprune.report.document import Report
from edgeprune.target import Target
from edgeprune.worker.runtimes import RUNTIMES

_IMAGES = 4
"""How many of the run's images travel along: enough for calls not to see the same one all the time."""


@dataclass(frozen=True, eq=False)
class Choice:
    """What is packaged.

    Attributes:
        run: the run folder.
        artifact: the one file, checked against its manifest.
        input: what the model wants of an image.
        images: real ones, normalised, float32 [k, C, H, W].
        created: when the run was made, ISO 8601.
        model: the model's name.
        runtime: that executes the file on the board, a name of `edgeprune.worker.runtimes.RUNTIMES`.
    """

    run: Path
    artifact: Artifact
    input: InputSpec
    images: np.ndarray
    created: str
    model: str
    runtime: str

    @property
    def path(self) -> Path:
        """The model file."""
        return self.run / self.artifact.path


def choose(run: Path, report: Report, target: Target, name: str | None = None, runtime: str | None = None) -> Choice:
    """The file of a run to package, with what belongs to it.

    Args:
        run: a finished run folder.
        report: its report.
        target: the board.
        name: of the file; None for the pruned one in the format that the target prefers.
        runtime: to execute it in; None for its format's own.

    Raises:
        UsageError: the run has no such file, the file and its manifest disagree, or the runtime does not read it.
        ParityError: the file was not found to compute what the model computes.
        DataError: the run's images are missing or torn.
        EdgepruneError: the file's manifest is missing or torn.
    """
    artifact = _named(report.artifacts, name, run) if name else _preferred(report.artifacts, target, run)
    manifest = Artifact.load_manifest(run / f"{artifact.path}.json")
    path, altered = run / artifact.path, artifact.altered(run)
    if altered or (manifest.sha256, manifest.beside) != (artifact.sha256, artifact.beside):
        raise UsageError(
            "the file is missing, or its manifest or the run's report is of another one",
            where=str(altered or path),
            fix="Run compress again.",
        )
    if not artifact.parity or not artifact.parity.passed:
        raise ParityError("this file did not pass parity; it is not packaged", where=str(path), fix="Choose another.")
    runtime = runtime or artifact.runtime
    if runtime not in RUNTIMES:
        raise unknown("runtime", runtime, RUNTIMES)
    if RUNTIMES[runtime].format != artifact.format:
        raise UsageError(f"{runtime} reads no {artifact.format} files", where=str(path), fix="Name another --artifact.")
    images = _images(run / INPUTS_NAME, artifact)
    return Choice(run, artifact, report.model.input, images, report.run.created, report.model.name, runtime)


def _named(artifacts: tuple[Artifact, ...], name: str, run: Path) -> Artifact:
    found = {one.path: one for one in artifacts}
    if name not in found:
        error = unknown("artifact", name, found)
        error.where = str(run)
        raise error
    return found[name]


def _preferred(artifacts: tuple[Artifact, ...], target: Target, run: Path) -> Artifact:
    for form in target.formats:
        for one in artifacts:
            if one.role == "pruned" and one.format == form:
                return one
    raise UsageError(
        f"the run has no pruned file that {target.name} runs ({', '.join(target.formats)})",
        where=str(run),
        fix="Name one with --artifact, or run compress again.",
    )


def _images(path: Path, artifact: Artifact) -> np.ndarray:
    try:
        images: np.ndarray = np.load(path, allow_pickle=False)[:_IMAGES]
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"not the images of a run: {error}", where=str(path), fix="Run compress again.") from error
    if images.dtype != np.float32 or images.shape[1:] != artifact.input_shape or not len(images):
        raise DataError(
            f"{images.dtype} {list(images.shape)} are not images of {list(artifact.input_shape)}",
            where=str(path),
            fix="Run compress again.",
        )
    return images
