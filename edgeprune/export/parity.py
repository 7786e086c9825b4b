"""Parity: does a file compute what the model computes? Asked of the file itself, in its runtime, on real images."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeprune.artifact import Artifact, Parity
from edgeprune.errors import ParityError, UsageError
from edgeprune.export.divergence import WALKED, Divergence, divergence_of
from edgeprune.export.execute import Array, failed, outputs_of, witness_of
from edgeprune.export.foreign import AS_IS, Reading
from edgeprune.export.outputs import Output, agreement_of, expected_of, parity_of
from edgeprune.model import Model

WITNESSED = 2
"""How many images a second implementation of the format is asked about."""


@dataclass(frozen=True)
class Tolerance:
    """How far a file may be from its model.

    Attributes:
        max_rel: bound on the largest difference, as a share of the model's largest output value; infinite for none.
        near_tie: classes that the model holds this near, as a share of its largest output value, count as the same.
        top1_agreement: least share of images with the same highest class.
        cosine: least cosine of the angle between an output and the model's, the mean over the images.
    """

    max_rel: float
    near_tie: float
    top1_agreement: float
    cosine: float = -1.0


TOLERANCES: Mapping[str, Tolerance] = {
    # Both sides compute in float32 and differ in the order of sums only: 4e-7 to 2e-6 measured on the networks of
    # models/, both formats. A slight real fault, a batch norm's epsilon of 1e-3 taken for 1e-5, makes 6e-3 and more.
    # Two values each off by max_rel may change places, hence the factor 2.
    "fp32": Tolerance(max_rel=1e-4, near_tie=2e-4, top1_agreement=1.0),
    # Each value is rounded to 11 bits, 5e-4 of itself at most, layer after layer.
    "fp16": Tolerance(max_rel=5e-2, near_tie=5e-2, top1_agreement=0.95, cosine=0.999),
    # A value in 256 steps says little of the worst of all values; a fault in the graph or in its scales takes the
    # whole output elsewhere. What is left of accuracy is told beside the file, in the report.
    "int8": Tolerance(max_rel=float("inf"), near_tie=1e-1, top1_agreement=0.8, cosine=0.9),
}
"""What is tolerated, by precision."""


@dataclass(frozen=True, eq=False)
class Verdict:
    """What came of comparing a file with its model.

    Attributes:
        artifact: the file, with its parity where its outputs could be compared; a TFLite file's details also hold a
            `witness`.
        fault: why it may not be handed over; None if it may.
        divergence: where inside the file that begins, if it could be looked for.
    """

    artifact: Artifact
    fault: ParityError | None = None
    divergence: Divergence | None = None


def check(artifact: Artifact, run: Path, model: Model, images: Array) -> Artifact:
    """Compare a file with the model it was made from; see `judge`.

    Returns:
        The artifact with its parity; of a TFLite file its details also hold a `witness`.

    Raises:
        ParityError: the file cannot be run, gives other shapes, NaN or infinities, or values beyond the tolerance.
        UsageError: there is no tolerance for its precision, or no runtime here for its format.
        MissingExtraError: the format's runtime is not installed.
    """
    verdict = judge(artifact, run, model, images)
    if verdict.fault is not None:
        raise verdict.fault
    return verdict.artifact


def judge(artifact: Artifact, run: Path, model: Model, images: Array, reading: Reading = AS_IS) -> Verdict:
    """Compare a file with the model it was made from, and say what is wrong with it, if anything is.

    Args:
        artifact: the file, of which `path` is in the folder `run`.
        run: the run folder.
        model: what the file should compute.
        images: normalised as the model wants them, float32 [n >= 1, channels, height, width].
        reading: how a file that this project did not write gives what the model gives.

    Raises:
        ParityError: the torch model itself does not give finite numbers.
        UsageError: there is no tolerance for the file's precision, or no runtime here for its format.
        MissingExtraError: the format's runtime is not installed.
    """
    if artifact.precision not in TOLERANCES:
        raise UsageError(
            f"no parity tolerance for precision {artifact.precision!r}", fix=f"Known: {', '.join(TOLERANCES)}"
        )
    tolerance, expected = TOLERANCES[artifact.precision], reading.of_model(expected_of(model, images))
    try:
        got = reading.of_file(outputs_of(artifact, run, images))
    except ParityError as error:
        return Verdict(dataclasses.replace(artifact, parity=None), error)
    verdict = _compared(artifact, expected, got, tolerance)
    if verdict.fault is not None:
        return _located(verdict, run, model, images, expected, got, reading)
    try:
        witness = _witnessed(artifact, run, images, expected, tolerance, reading)
    except ParityError as error:
        assert verdict.artifact.parity is not None
        missed = dataclasses.replace(verdict.artifact.parity, passed=False)
        return Verdict(dataclasses.replace(artifact, parity=missed), error)
    details = {**artifact.details, **witness}
    return Verdict(dataclasses.replace(verdict.artifact, details=details))


def _compared(artifact: Artifact, expected: list[Array], got: list[Array], tolerance: Tolerance) -> Verdict:
    """A file by its outputs alone."""
    try:
        outputs = _pair(artifact, expected, got)
    except ParityError as error:
        return Verdict(dataclasses.replace(artifact, parity=None), error)
    fault = _fault(artifact, outputs, tolerance)
    bound = tolerance.max_rel if np.isfinite(tolerance.max_rel) else None
    parity = parity_of(outputs, tolerance.near_tie, bound, passed=fault is None)
    return Verdict(dataclasses.replace(artifact, parity=parity), fault)


def _located(
    verdict: Verdict,
    run: Path,
    model: Model,
    images: Array,
    expected: list[Array],
    got: list[Array],
    reading: Reading,
) -> Verdict:
    """The same with the first tensor inside the file that diverges, where the outputs are of the right shapes."""
    fault = verdict.fault
    if fault is None or [one.shape for one in got] != [one.shape for one in expected]:
        return verdict
    pairs = zip(got, expected, strict=True)
    off = [np.abs(one - other).reshape(len(images), -1).max(axis=1, initial=0.0) for one, other in pairs]
    worst = np.argsort(-np.nan_to_num(np.max(off, axis=0), nan=np.inf), kind="stable")[:WALKED]
    try:
        ends = [one[worst] for one in got] if reading.as_is else []
        found = divergence_of(verdict.artifact, run, model, images[worst], ends)
    except Exception as error:  # a file that is wrong may be so in any way; that it is, is known already
        reason = next(iter(str(error).splitlines()), "")[:200]
        told = f"where it begins is not known: {type(error).__name__}: {reason}"
        return dataclasses.replace(verdict, fault=_adding(fault, told))
    return dataclasses.replace(verdict, fault=_adding(fault, str(found)), divergence=found)


def _adding(fault: ParityError, line: str) -> ParityError:
    return ParityError(fault.what, where=f"{fault.where}\n{line}", fix=fault.fix)


def distance_between(model: Model, other: Model, images: Array) -> Parity:
    """How far one torch model's outputs are from another's: what a cut changed. Nothing is refused; ties are not seen.

    Args:
        model: what is compared with.
        other: of the same input and the same classes.
        images: as in `judge`.

    Raises:
        ParityError: a model does not give finite numbers.
    """
    pairs = zip(expected_of(model, images), expected_of(other, images), strict=True)
    outputs = [Output(place, *pair) for place, pair in enumerate(pairs)]
    return parity_of(outputs, near_tie=0.0, bound=None, passed=True)


def _fault(artifact: Artifact, outputs: list[Output], tolerance: Tolerance) -> ParityError | None:
    """The first bound that is broken."""
    worst = max(outputs, key=lambda output: output.max_rel)
    agreement, cosine = agreement_of(outputs, tolerance.near_tie), min(output.cosine for output in outputs)
    if worst.max_rel > tolerance.max_rel:
        return _beyond(artifact, worst, tolerance)
    if agreement < tolerance.top1_agreement:
        kept, least = f"{agreement:.1%} of {len(worst.expected)} images", f"{tolerance.top1_agreement:.1%}"
        return failed(artifact, f"{kept} keep their highest class, {least} must")
    if cosine < tolerance.cosine:
        return failed(artifact, f"cosine to the model's outputs {cosine:.4f}; at least {tolerance.cosine} is wanted")
    return None


def _witnessed(
    artifact: Artifact, run: Path, images: Array, expected: list[Array], tolerance: Tolerance, reading: Reading
) -> dict[str, Any]:
    """What a second implementation of the format makes of the file, if there is one, held to the same bounds.

    Its plain loops take seconds for an image of a large network, hence the few images.

    Raises:
        ParityError: it is further from the model than the precision allows.
    """
    few = images[:WITNESSED]
    got = witness_of(artifact, run, few)
    if got is None:
        return {}
    outputs = _pair(artifact, [values[:WITNESSED] for values in expected], reading.of_file(got))
    max_rel, cosine = max(output.max_rel for output in outputs), min(output.cosine for output in outputs)
    if max_rel > tolerance.max_rel or cosine < tolerance.cosine:
        raise failed(
            artifact,
            f"{artifact.runtime} computes what the model computes, but the format's reference kernels are off by "
            f"{max_rel:.2g} of the largest output, cosine {cosine:.4f}",
        )
    return {"witness": {"kernels": "reference", "images": len(few), "max_rel": max_rel, "cosine": cosine}}


def _pair(artifact: Artifact, expected: list[Array], got: list[Array]) -> list[Output]:
    """Both sides' outputs together, once shapes and finiteness are as they must be."""
    shapes = [[list(values.shape[1:]) for values in side] for side in (expected, got)]
    if shapes[0] != shapes[1]:
        raise failed(artifact, f"outputs per image have shapes {shapes[1]}, the model's have {shapes[0]}")
    for place, values in enumerate(got):
        if len(unfinite := np.argwhere(~np.isfinite(values))):
            raise failed(
                artifact,
                f"image {unfinite[0][0]}, output {place}: got {values[tuple(unfinite[0])]}, not a finite number",
            )
    return [Output(place, *pair) for place, pair in enumerate(zip(expected, got, strict=True))]


def _beyond(artifact: Artifact, worst: Output, tolerance: Tolerance) -> ParityError:
    image, *index = (int(axis) for axis in np.unravel_index(worst.difference.argmax(), worst.difference.shape))
    here = (image, *index)
    return failed(
        artifact,
        f"image {image}, output {worst.place}{index}: expected {worst.expected[here]:.6g}, got {worst.got[here]:.6g}; "
        f"off by {worst.max_rel:.2g} of the largest output, {tolerance.max_rel:.2g} is tolerated",
    )
