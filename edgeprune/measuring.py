"""measuring: the files of a run timed against each other, here or on the board that was named, and what that means."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from edgeprune.artifact import Artifact
from edgeprune.bench.compare import Comparison, compare
from edgeprune.bench.reference import host_outputs
from edgeprune.bench.session import measure
from edgeprune.bench.slots import slot
from edgeprune.bench.transport import open_device
from edgeprune.deciding import Decision
from edgeprune.errors import DeviceError, EdgepruneError, TrustError
from edgeprune.explaining import ask_why
from edgeprune.journal import Journal
from edgeprune.measurement import Measurement
from edgeprune.report.document import Report
from edgeprune.request import Request
from edgeprune.target import Target

_LOST = "not timed on"


def measured_run(
    request: Request,
    artifacts: tuple[Artifact, ...],
    target: Target,
    folder: Path,
    images: np.ndarray,
    decision: Decision | None,
    journal: Journal,
) -> tuple[tuple[Measurement, ...], tuple[Comparison, ...]]:
    """Time the files of a run; why one is not faster is asked of the runtimes where its interval does not clear 1.

    Also where the speed-up that was asked for is missed. A device that was named and fails costs the run its times.

    Args:
        request: of the run; says where to measure.
        artifacts: the files.
        target: says with how many threads.
        folder: of the run.
        images: to feed them, float32 [k, C, H, W].
        decision: how it was decided which filters stay.
        journal: told of each step.
    """
    if not request.bench or not artifacts:
        return (), ()
    device = request.device or "local"
    cores = len(os.sched_getaffinity(0)) if device == "local" else max(target.threads)
    tried = {decision.conditions.threads} if decision and decision.conditions else set()
    threads = tuple(sorted({min(count, cores) for count in target.threads} | tried))
    references = {} if device == "local" else host_outputs(artifacts, folder, images)
    try:
        with slot(device), journal.stage("bench") as tick, open_device(device) as transport:
            measured = measure(
                artifacts,
                folder,
                images,
                threads,
                transport=transport,
                seed=request.seed,
                references=references,
                tick=tick,
            )
    except DeviceError as error:
        if device == "local":
            raise
        journal.warn(f"{_LOST} {device}: {error.what}")  # what the run did until here is worth more
        return (), ()
    found = compare(measured)
    slow = [one for one in found if (decision and decision.missed) or one.verdict != "faster"]
    if slow and len({one.macs for one in artifacts}) > 1:  # else it was only trained
        try:
            with slot(device), journal.stage("profile") as tick, open_device(device) as transport:
                ask_why(artifacts, folder, images, slow, transport, tick)
        except EdgepruneError as error:  # the run is worth more than the reason
            journal.warn(f"why it is not faster could not be found out: {error.what}")
    return measured, found


def not_faster(report: Report, decision: Decision) -> str:
    """What a file is that was asked to be faster and is not surely so where its table was measured; else empty."""
    if decision.conditions is None:
        return ""
    precision = decision.front.chosen.precision if decision.front and decision.front.is_measured else "fp32"
    its = {one.path for one in report.artifacts if one.precision == precision}
    wanted = (decision.conditions.board, decision.conditions.runtime, decision.conditions.threads)
    slow = [
        f"{one.candidate} is {one.ratio:.3g}x as fast [{one.ci95[0]:.3g}, {one.ci95[1]:.3g}]"
        for one in report.comparisons
        if (one.device, one.runtime, one.threads) == wanted and one.candidate in its and one.verdict != "faster"
    ]
    return f"not surely faster than the uncut model: {', '.join(slow)}" if slow else ""


def untimed(request: Request, report: Report, journal: Journal) -> EdgepruneError | None:
    """Why a run has no times of the device that was named; the run itself is whole."""
    if request.device is None or report.measurements:
        return None
    why = next((line for line in journal.warnings if line.startswith((_LOST, "EMULATED"))), "no file runs there")
    kind = TrustError if why.startswith("EMULATED") else DeviceError
    return kind(f"nothing was timed: {why}", where=request.device, fix="edgeprune bench RUN --device ... times it.")
