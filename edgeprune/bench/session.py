"""One bench run: the job out, the worker's events in, every block on the disk before the next one is awaited."""

from __future__ import annotations

import json
import secrets
import tempfile
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from edgeprune.artifact import Artifact
from edgeprune.bench.entries import Entry, entries
from edgeprune.bench.intake import Intake, note
from edgeprune.bench.transport import Transport, pack_worker
from edgeprune.errors import DataError, DeviceError
from edgeprune.files import output_error, write_json
from edgeprune.measurement import Measurement, MeasurementLog
from edgeprune.progress import Tick, silent
from edgeprune.stats import MIN_ROUNDS

LOG_NAME = "measurements.jsonl"
INPUTS_NAME = "inputs.npy"
"""The images a run's files are timed with, float32 [k, C, H, W]."""
JOB_SCHEMA = 3

ROUNDS = 16
"""Default number of rounds: even, so that each order has its mirror."""
REPEATS = 1 / 2
"""Most rounds to add in place of tainted ones, as a share of those asked for. If more are tainted, too many are:
half as many again make a third of all, beyond which a run is untrusted (`edgeprune.worker.taint.MOST_TAINTED`)."""
BLOCK_SECONDS = 0.1
"""Default length of a block; with 16 rounds, a pair takes about 3 s beyond its 32 loads and warm-ups."""
FRESH = True
"""Whether each block is timed in a process of its own (docs/decisions/0019)."""
SUSTAINED_BLOCK_SECONDS = 1.0
"""Length of a block under sustained load: the pause before each is 3 % of it."""
WARM_UP = {"at_least": 10, "limit_seconds": 5.0, "tolerance": 0.02}
"""Fewest calls, hard limit, and the share by which a window must be faster than the best before to count as still
warming up."""
PATIENCE_SECONDS = 300.0
"""A process that does not answer for so long is taken to hang."""


def measure(
    artifacts: Sequence[Artifact],
    run: Path,
    images: np.ndarray,
    threads: tuple[int, ...],
    *,
    transport: Transport,
    runtimes: Sequence[str] = (),
    rounds: int = ROUNDS,
    repeats: int | None = None,
    block_seconds: float = BLOCK_SECONDS,
    seconds: float = 0.0,
    sustained_s: float = 0.0,
    energy: bool = False,
    seed: int = 0,
    references: Mapping[str, np.ndarray] = MappingProxyType({}),
    tick: Tick = silent,
) -> tuple[Measurement, ...]:
    """Measure artifacts against each other, interleaved.

    Every block is appended to `run/measurements.jsonl` as it comes, so that an interrupted run keeps what it has.

    Args:
        artifacts: files in the run folder, all of one input shape.
        run: the run folder.
        images: real images as the model wants them, float32 [k, C, H, W], k >= 1; calls take them in turn.
        threads: the thread counts to measure each artifact at.
        transport: the device, entered.
        runtimes: to measure in, those of them that read the artifact; empty for each format's default.
        rounds: how often every artifact has its turn.
        repeats: most rounds to add in place of tainted ones; by default `REPEATS` of them.
        block_seconds: length of a turn (at least three calls, however long they take).
        seconds: instead of `rounds`, how long to measure on the device, loading and warming up included; 6 rounds at
            least. Tainted rounds are not repeated then.
        sustained_s: instead, keep the device under load for so long, in blocks of `SUSTAINED_BLOCK_SECONDS`.
        energy: watch the device's power afterwards, while it is idle and while each file runs.
        seed: of the order within the rounds.
        references: what the files compute elsewhere, by their SHA-256, see `edgeprune.bench.reference`.
        tick: told of each block; where time is asked for, of the seconds.

    Returns:
        One measurement for each artifact, runtime and thread count: those of the first thread count first.

    Raises:
        DataError: the images do not fit the artifacts.
        MissingExtraError: a runtime is not installed on this machine.
        DeviceError: the worker cannot be run, or a file cannot be run in its runtime.
        OutputError: the run folder or the temporary folder cannot be written.
        TrustError: a time is below what the board can do at its peak.
    """
    _check_images(images, artifacts)
    asked, session = entries(artifacts, runtimes, threads), secrets.token_hex(8)
    with tempfile.TemporaryDirectory(prefix="edgeprune-") as folder, MeasurementLog(run / LOG_NAME) as log:
        scratch = Path(folder)
        job = job_for(asked, run, rounds, repeats, block_seconds, seed) | {"note": note(asked, session, rounds)}
        job["energy"], timed = energy, sustained_s or seconds
        if timed:
            job |= {"rounds": MIN_ROUNDS, "repeats": 0, "seconds": timed}
            job["note"] |= {"seconds": timed}
        if sustained_s:
            job |= {"block_seconds": SUSTAINED_BLOCK_SECONDS, "fresh": False}  # a load would let the board cool
            job["note"] |= {"sustained": True}
        argv = carried(job, images, scratch, transport)
        intake = Intake(asked, transport.name, log, session, references)
        tick(0, int(timed) or rounds * len(asked))
        with closing(events_of(transport, argv)) as events:
            for event in events:
                intake.take(event)
                if event["event"] == "block":
                    blocks = (intake.done, rounds * len(asked))
                    done, total = (int(event["started_s"]), int(timed)) if timed else blocks
                    tick(done, max(done, total))
        return intake.measurements


def device_facts(transport: Transport, scratch: Path) -> dict[str, Any]:
    """What a device says of itself, its sensors' readings as `at_start`: a job without any file.

    Args:
        transport: the device, entered.
        scratch: a folder for the job.

    Raises:
        DeviceError: the worker cannot be run there.
    """
    job = {"schema": JOB_SCHEMA, "entries": []}
    with closing(events_of(transport, worker_command(job, scratch, transport))) as events:
        return {name: value for event in events if event["event"] == "start" for name, value in event["device"].items()}


def job_for(
    asked: Sequence[Entry],
    run: Path,
    rounds: int = ROUNDS,
    repeats: int | None = None,
    block_seconds: float = BLOCK_SECONDS,
    seed: int = 0,
) -> dict[str, Any]:
    """The job document; its paths are still those of this machine."""
    return {
        "schema": JOB_SCHEMA,
        "entries": [
            {
                "id": entry.id,
                "path": str(run / entry.artifact.path),
                "beside": [one.path for one in entry.artifact.beside],
                "runtime": entry.runtime,
                "threads": entry.threads,
                "layout": entry.artifact.layout,
                "folded": entry.artifact.folded,
            }
            for entry in asked
        ],
        "rounds": rounds,
        "seconds": 0.0,
        "energy": False,
        "fresh": FRESH,
        "repeats": int(REPEATS * rounds) if repeats is None else repeats,
        "block_seconds": block_seconds,
        "warm_up": WARM_UP,
        "patience_seconds": PATIENCE_SECONDS,
        "seed": seed,
    }


def save_inputs(images: np.ndarray, folder: Path) -> Path:
    """Write the images to time with as `INPUTS_NAME` into a folder.

    Raises:
        OutputError: the disk is full, or the folder cannot be written.
    """
    path = folder / INPUTS_NAME
    try:
        np.save(path, images)
    except OSError as error:
        raise output_error(error, path) from error
    return path


def carried(job: dict[str, Any], images: np.ndarray, scratch: Path, transport: Transport) -> list[str]:
    """Bring a job with its files and images to the device, where the job then names them; what to run there."""
    entries = [_there(entry, transport) for entry in job["entries"]]
    inputs = transport.put(save_inputs(images, scratch))
    return worker_command({**job, "entries": entries, "inputs": inputs}, scratch, transport)


def _there(entry: Mapping[str, Any], transport: Transport) -> dict[str, Any]:
    """An entry of a job as the device finds it, with its files there."""
    told = {name: value for name, value in entry.items() if name != "beside"}
    return {**told, "path": transport.put(Path(entry["path"]), *entry["beside"])}


def worker_command(job: Mapping[str, Any], scratch: Path, transport: Transport) -> list[str]:
    """Bring worker and job to the device; what to run there."""
    worker, document = scratch / "worker.pyz", scratch / "job.json"
    try:
        pack_worker(worker)
    except OSError as error:
        raise output_error(error, worker) from error
    write_json(document, job)
    return [transport.python, transport.put(worker), "--attached", transport.put(document)]


def events_of(transport: Transport, argv: Sequence[str]) -> Generator[dict[str, Any], None, None]:
    """The worker's events, up to its end.

    Raises:
        DeviceError: a line is not an event, or the worker ended without an `end` or `error`.
    """
    kind = ""
    with closing(transport.run(argv)) as lines:  # closing this generator closes the transport's, which ends the worker
        for line in lines:
            try:
                event = json.loads(line)
                kind = event["event"]
            except (ValueError, KeyError, TypeError):
                raise DeviceError(
                    f"the worker said something that is no event: {line.strip()[:200]!r}", where=transport.name
                ) from None
            yield event
    if kind != "end":
        raise DeviceError("the worker ended before its work was done", where=transport.name)


def _check_images(images: np.ndarray, artifacts: Sequence[Artifact]) -> None:
    if images.ndim != 4 or not len(images) or images.dtype != np.float32:
        raise DataError(f"images must be float32 [k, C, H, W] with k >= 1, not {images.dtype} {list(images.shape)}")
    for artifact in artifacts:
        if tuple(artifact.input_shape) != images.shape[1:]:
            raise DataError(
                f"{artifact.path} takes images of {list(artifact.input_shape)}, not {list(images.shape[1:])}"
            )
