"""Measurement: every raw latency sample of one artifact in one run, and the log that keeps them as they come.

Statistics are computed on reading and never stored. History of the schema: 1, the first; 2, reasons to doubt are
derived on reading too, no longer stored; 3, blocks say when they were taken.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

from edgeprune.errors import EdgepruneError
from edgeprune.files import output_error
from edgeprune.stats import median, percentile

SCHEMA = 3


@dataclass(frozen=True)
class Block:
    """Consecutive timed calls of one artifact.

    Attributes:
        round: which round of the run, from 0; the blocks of a round are compared with each other.
        order: place within the round, from 0.
        samples_ns: the time of each call, from input in memory to output in memory.
        sensors: what the board's sensors said right after the block; a sensor the board lacks is absent.
        started_s: when its first call began, in seconds since the run's start, by the device's monotonic clock.
    """

    round: int
    order: int
    samples_ns: tuple[int, ...]
    sensors: Mapping[str, Any] = field(default_factory=dict)
    started_s: float = 0.0

    @property
    def median_ns(self) -> float:
        """The block's median time."""
        return median(self.samples_ns)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Block:
        """The block a JSON document describes."""
        samples = tuple(int(sample) for sample in document["samples_ns"])
        return cls(
            int(document["round"]),
            int(document["order"]),
            samples,
            dict(document["sensors"]),
            float(document["started_s"]),
        )


@dataclass(frozen=True)
class Measurement:
    """One artifact, one runtime, one thread count, on one device, in one run.

    Attributes:
        artifact: SHA-256 of the measured file.
        path: the file, relative to the run folder.
        role: "baseline" or "pruned".
        format: "onnx" or "tflite".
        precision: "fp32", "fp16" or "int8"; empty for a file that was measured without looking into it.
        runtime: that executed it, a name of `edgeprune.worker.runtimes.RUNTIMES`: "onnxruntime-cuda".
        runtime_version: as the runtime itself says.
        threads: threads the runtime was told to use.
        blocks: the samples, in the order they were taken.
        load_ns: time to read the file and be ready.
        first_ns: time of the first call.
        peak_rss_bytes: the most memory the measuring process held, the Python interpreter and the runtime included.
        device: facts of the machine; `at_start` holds its sensors before the run.
        warm_up: discarded calls: `calls`, `seconds`, and whether times became `stable`.
        output_sha256: of the bytes of the first output for the first image.
        parity: that output against the same file's on the host: `max_rel` (None if it is not finite), `passed`; empty
            where they were not compared.
        placement: where its operators were executed, as shares of 1 by the runtime's own name of the place; what the
            runtime fused into one counts as one. Empty in logs written before it was recorded.
        energy: of one inference: `source`, `covers`, `idle_w`, `load_w`, `calls`, `readings`, `joules` and
            `joules_above_idle`, or `unavailable`, why not; empty where it was not asked for.
        sustained: whether the files took turns without a pause until the board was hot (`edgeprune.sustained`).
        session: names the interleaved run; only measurements of one session are comparable round by round.
    """

    artifact: str
    path: str
    role: str
    format: str
    precision: str
    runtime: str
    runtime_version: str
    threads: int
    blocks: tuple[Block, ...]
    load_ns: int
    first_ns: int
    peak_rss_bytes: int
    device: Mapping[str, Any]
    warm_up: Mapping[str, Any] = field(default_factory=dict)
    output_sha256: str = ""
    parity: Mapping[str, Any] = field(default_factory=dict)
    placement: Mapping[str, float] = field(default_factory=dict)
    session: str = ""
    energy: Mapping[str, Any] = field(default_factory=dict)
    sustained: bool = False

    @property
    def samples_ns(self) -> tuple[int, ...]:
        """Every sample of every block."""
        return tuple(sample for block in self.blocks for sample in block.samples_ns)

    @property
    def emulated(self) -> bool:
        """Whether an emulator ran it: then its times must never be shown."""
        return bool(self.device.get("emulated"))

    @property
    def p50_ms(self) -> float:
        """The median time, in milliseconds."""
        return percentile(self.samples_ns, 50) / 1e6

    @property
    def p90_ms(self) -> float:
        """The time nine calls of ten stay below, in milliseconds."""
        return percentile(self.samples_ns, 90) / 1e6

    @property
    def p99_ms(self) -> float:
        """The time 99 calls of 100 stay below, in milliseconds."""
        return percentile(self.samples_ns, 99) / 1e6

    def to_json(self) -> dict[str, Any]:
        """This measurement as a JSON document, raw samples included."""
        return {"schema": SCHEMA, **asdict(self)}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Measurement:
        """The measurement a JSON document describes.

        Raises:
            EdgepruneError: another schema, or a field is missing or of the wrong kind.
        """
        if document.get("schema") != SCHEMA:
            raise EdgepruneError(
                f"not a measurement of schema {SCHEMA}",
                fix="It was written by another version of edgeprune, or is not ours: move it away and measure again.",
            )
        fields = {key: value for key, value in document.items() if key != "schema"}
        try:
            fields["blocks"] = tuple(Block.from_json(block) for block in fields["blocks"])
            return cls(**fields)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise EdgepruneError(f"not a measurement: {type(error).__name__}: {error}") from error


class MeasurementLog:
    """`measurements.jsonl`, opened for appending: a block that was appended survives a loss of power.

    Use as a context manager. A line that was torn off in an earlier run is removed on opening. Several logs of one file
    may be open at once, also in several processes.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stream: BinaryIO | None = None

    def __enter__(self) -> MeasurementLog:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._stream = self.path.open("ab+")
            with _alone(self._stream):
                self._stream.seek(0)
                whole = self._stream.read().rfind(b"\n") + 1
                self._stream.truncate(whole)
        except OSError as error:
            raise output_error(error, self.path) from error
        return self

    def __exit__(self, *_: object) -> None:
        if self._stream:
            self._stream.close()

    def begin(self, measurement: Measurement) -> str:
        """Write what is known before the first block.

        Returns:
            The key under which to append its blocks.
        """
        key = secrets.token_hex(8)
        self._write({**replace(measurement, blocks=()).to_json(), "record": "measurement", "key": key})
        return key

    def append(self, key: str, block: Block, peak_rss_bytes: int) -> None:
        """Write one block and wait until it is on the disk."""
        self._write({"record": "block", "key": key, "peak_rss_bytes": peak_rss_bytes, **asdict(block)})

    def energy(self, key: str, told: Mapping[str, Any]) -> None:
        """Write what is known of a measurement's energy."""
        self._write({"record": "energy", "key": key, "energy": dict(told)})

    def _write(self, record: Mapping[str, Any]) -> None:
        if self._stream is None:
            raise ValueError("the log is not open")
        try:
            with _alone(self._stream):
                self._stream.write(json.dumps(record, allow_nan=False).encode() + b"\n")
                self._stream.flush()
                os.fsync(self._stream.fileno())
        except OSError as error:
            raise output_error(error, self.path) from error


@contextmanager
def _alone(stream: BinaryIO) -> Iterator[None]:
    """Nobody else writes to the file meanwhile."""
    fcntl.flock(stream, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.flock(stream, fcntl.LOCK_UN)


def load_measurements(path: Path) -> tuple[Measurement, ...]:
    """Read what a `MeasurementLog` wrote, also while it is being written or after it was cut off.

    Returns:
        The measurements with at least one block, in the order they were begun. A torn last line is ignored.

    Raises:
        EdgepruneError: the file cannot be read, or a whole line is not ours.
    """
    return tuple(measurement for measurement in stored_measurements(path).values() if measurement.blocks)


def stored_measurements(path: Path) -> dict[str, Measurement]:
    """All of a log by the keys its blocks are appended under, also what has no block yet; see `load_measurements`."""
    found: dict[str, Measurement] = {}
    try:
        lines = path.read_bytes().split(b"\n")[:-1]  # what follows the last newline is empty or torn
    except OSError as error:
        raise EdgepruneError(f"cannot read: {error.strerror}", where=str(path)) from error
    for number, line in enumerate(lines, start=1):
        try:
            _collect(json.loads(line), found)
        except (KeyError, TypeError, ValueError, AttributeError, EdgepruneError) as error:
            raise EdgepruneError(f"not a measurement record: {error}", where=f"{path}:{number}") from error
    return found


def _collect(record: dict[str, Any], found: dict[str, Measurement]) -> None:
    """Add one line of the log to what was found so far."""
    kind, key = record.pop("record"), record.pop("key")
    if kind == "measurement":
        found[key] = Measurement.from_json(record)
        return
    known = found[key]
    if kind == "energy":
        found[key] = replace(known, energy=dict(record["energy"]))
        return
    peak = max(known.peak_rss_bytes, int(record["peak_rss_bytes"]))
    found[key] = replace(known, blocks=(*known.blocks, Block.from_json(record)), peak_rss_bytes=peak)
