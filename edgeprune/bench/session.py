"""One bench run: the job out, the worker's events in, every block on the disk before the next one is awaited."""

from __future__ import annotations

import json
import secrets
import tempfile
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from edgeprune.artifact import Artifact
from edgeprune.bench.device import how_to_install
from edgeprune.bench.entries import Entry, entries
from edgeprune.bench.reference import parity
from edgeprune.bench.transport import Transport, pack_worker
from edgeprune.errors import DataError, DeviceError, MissingExtraError
from edgeprune.files import output_error, write_json
from edgeprune.measurement import Block, Measurement, MeasurementLog
from edgeprune.progress import Tick, silent
from edgeprune.worker.runtimes import RUNTIMES

LOG_NAME = "measurements.jsonl"
INPUTS_NAME = "inputs.npy"
"""The images a run's files are timed with, float32 [k, C, H, W]."""
JOB_SCHEMA = 2

ROUNDS = 16
"""Default number of rounds: even, so that each order has its mirror."""
REPEATS = 1 / 2
"""Most rounds to add in place of tainted ones, as a share of those asked for. If more are tainted, too many are:
half as many again make a third of all, beyond which a run is untrusted (`edgeprune.bench.trust.MOST_TAINTED`)."""
BLOCK_SECONDS = 0.1
"""Default length of a block; with 16 rounds, a pair takes about 3 s beyond its warm-up."""
WARM_UP = {"at_least": 10, "limit_seconds": 5.0, "tolerance": 0.02}
"""Fewest calls, hard limit, and the share by which a window must be faster than the best before to count as still
warming up."""
PATIENCE_SECONDS = 300.0
"""A process that does not answer for so long is taken to hang."""

_PACKAGES = {"onnxruntime": "onnxruntime", "litert": "ai-edge-litert"}


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
        seed: of the order within the rounds.
        references: what the files compute elsewhere, by their SHA-256, see `edgeprune.bench.reference`.
        tick: told of each block.

    Returns:
        One measurement for each artifact, runtime and thread count: those of the first thread count first.

    Raises:
        DataError: the images do not fit the artifacts.
        MissingExtraError: a runtime is not installed on this machine.
        DeviceError: the worker cannot be run, or a file cannot be run in its runtime.
        OutputError: the run folder or the temporary folder cannot be written.
    """
    _check_images(images, artifacts)
    asked = entries(artifacts, runtimes, threads)
    with tempfile.TemporaryDirectory(prefix="edgeprune-") as folder, MeasurementLog(run / LOG_NAME) as log:
        scratch = Path(folder)
        job = job_for(asked, run, rounds, repeats, block_seconds, seed)
        job["inputs"] = transport.put(save_inputs(images, scratch))
        for entry in job["entries"]:
            entry["path"] = transport.put(Path(entry["path"]))
        argv = worker_command(job, scratch, transport)
        with closing(events_of(transport, argv)) as events:
            return _collect(events, asked, transport, log, rounds, references, tick)


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
                "runtime": entry.runtime,
                "threads": entry.threads,
                "layout": entry.artifact.layout,
            }
            for entry in asked
        ],
        "rounds": rounds,
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


def _collect(
    events: Iterator[dict[str, Any]],
    asked: Sequence[Entry],
    transport: Transport,
    log: MeasurementLog,
    rounds: int,
    references: Mapping[str, np.ndarray],
    tick: Tick,
) -> tuple[Measurement, ...]:
    """Turn events into measurements, logging each block first."""
    by_id = {entry.id: entry for entry in asked}
    session, device, done = secrets.token_hex(8), {}, 0
    found: dict[str, Measurement] = {}
    keys: dict[str, str] = {}
    tick(0, rounds * len(asked))
    for event in events:
        if event["event"] == "start":
            device = {**event["device"], "asked": transport.name}
        elif event["event"] == "ready":
            name = event["entry"]
            found[name] = _begun(by_id[name], event, device, session, references)
            keys[name] = log.begin(found[name])
        elif event["event"] == "block":
            name, block, peak = event["entry"], Block.from_json(event), int(event["peak_rss_bytes"])
            log.append(keys[name], block, peak)
            known = found[name]
            found[name] = replace(known, blocks=(*known.blocks, block), peak_rss_bytes=max(peak, known.peak_rss_bytes))
            done += 1
            tick(done, max(done, rounds * len(asked)))
        elif event["event"] == "error":
            raise failure(event, by_id, transport)
    return tuple(found[entry.id] for entry in asked)


def _begun(
    entry: Entry,
    ready: Mapping[str, Any],
    device: Mapping[str, Any],
    session: str,
    references: Mapping[str, np.ndarray],
) -> Measurement:
    """A measurement that has no blocks yet."""
    artifact = entry.artifact
    return Measurement(
        artifact=artifact.sha256,
        path=artifact.path,
        role=artifact.role,
        format=artifact.format,
        precision=artifact.precision,
        runtime=entry.runtime,
        runtime_version=ready["runtime_version"],
        threads=entry.threads,
        blocks=(),
        load_ns=int(ready["load_ns"]),
        first_ns=int(ready["first_ns"]),
        peak_rss_bytes=0,
        device=device,
        warm_up=ready["warm_up"],
        placement=ready.get("placement", {}),
        output_sha256=ready["output_sha256"],
        parity=parity(
            ready.get("output", ()),
            references.get(artifact.sha256),
            artifact.precision,
            accelerator=RUNTIMES[entry.runtime].accelerator,
        ),
        session=session,
    )


def failure(
    event: Mapping[str, Any], by_id: Mapping[str, Entry], transport: Transport
) -> DeviceError | MissingExtraError:
    """What an error event means for the user."""
    if not event["missing"]:
        entry = by_id.get(event["entry"])
        what = f"{entry.runtime} cannot run {entry.artifact.path}" if entry else "the worker failed"
        return DeviceError(f"{what}: {event['reason']}", where=transport.name, fix=event["fix"])
    missing = event["missing"]
    if transport.name == "local" and missing == "litert":
        return MissingExtraError("tflite", "running a .tflite file")
    if missing == "trtexec":
        fix = "It comes with TensorRT, on a Jetson with JetPack; it must be on PATH or in /usr/src/tensorrt/bin."
        return DeviceError(f"trtexec is not installed on {transport.name}", fix=fix)
    fix = how_to_install(_PACKAGES.get(missing, missing), transport.name)
    return DeviceError(f"{missing} is not installed on {transport.name}", fix=fix)


def _check_images(images: np.ndarray, artifacts: Sequence[Artifact]) -> None:
    if images.ndim != 4 or not len(images) or images.dtype != np.float32:
        raise DataError(f"images must be float32 [k, C, H, W] with k >= 1, not {images.dtype} {list(images.shape)}")
    for artifact in artifacts:
        if tuple(artifact.input_shape) != images.shape[1:]:
            raise DataError(
                f"{artifact.path} takes images of {list(artifact.input_shape)}, not {list(images.shape[1:])}"
            )
