"""What a worker says becomes measurements, logged block by block."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from edgeprune.bench.device import how_to_install
from edgeprune.bench.entries import Entry
from edgeprune.bench.reference import parity
from edgeprune.bench.roofline import refuse_forbidden
from edgeprune.errors import DeviceError, MissingExtraError
from edgeprune.measurement import Block, Measurement, MeasurementLog
from edgeprune.wheels import package_of
from edgeprune.worker.runtimes import RUNTIMES


def note(asked: Sequence[Entry], session: str, rounds: int) -> dict[str, Any]:
    """What the worker repeats at its start, so that its events can be understood long after by someone else."""
    kinds = {
        one.id: {
            "artifact": one.artifact.sha256,
            "role": one.artifact.role,
            "runtime": one.runtime,
            "threads": one.threads,
        }
        for one in asked
    }
    return {"session": session, "entries": kinds, "blocks": rounds * len(asked)}


class Intake:
    """Takes a worker's events, one by one.

    Args:
        asked: what is measured.
        device: as the user calls it.
        log: where each block is written first.
        session: names the run.
        references: what the files compute elsewhere, by their SHA-256, see `edgeprune.bench.reference`.
        stored: what the log has of this session already, by its keys; those blocks are not written again.
    """

    def __init__(
        self,
        asked: Sequence[Entry],
        device: str,
        log: MeasurementLog,
        session: str,
        references: Mapping[str, np.ndarray],
        stored: Mapping[str, Measurement] | None = None,
    ) -> None:
        self._asked = {entry.id: entry for entry in asked}
        self._name, self._log, self._session, self._references = device, log, session, references
        self._stored = {key: one for key, one in (stored or {}).items() if one.session == session}
        self._facts: Mapping[str, Any] = {}
        self._sustained = False
        self._found: dict[str, Measurement] = {}
        self._keys: dict[str, str] = {}
        self.done = 0

    @property
    def measurements(self) -> tuple[Measurement, ...]:
        """Of all that was asked for and was begun, in that order."""
        return tuple(self._found[name] for name in self._asked if name in self._found)

    def take(self, event: Mapping[str, Any]) -> None:
        """Keep what an event says.

        Raises:
            DeviceError: a file cannot be run, or a runtime is not installed there.
            MissingExtraError: a runtime is not installed on this machine.
            OutputError: the log cannot be written.
            TrustError: at the end: a time is below what the board can do at its peak.
        """
        if event["event"] == "start":
            self._facts = {**event["device"], "asked": self._name}
            self._sustained = bool((event.get("note") or {}).get("sustained"))
        elif event["event"] == "ready":
            self._begin(event["entry"], event)
        elif event["event"] == "block":
            self._add(event["entry"], Block.from_json(event), int(event["peak_rss_bytes"]))
            self.done += 1
        elif event["event"] == "end":
            refuse_forbidden(self.measurements, [entry.artifact for entry in self._asked.values()])
        elif event["event"] == "energy":
            told = {name: value for name, value in event.items() if name not in ("event", "entry")}
            self._log.energy(self._keys[event["entry"]], told)
            self._found[event["entry"]] = replace(self._found[event["entry"]], energy=told)
        elif event["event"] == "error":
            raise failure(event, self._asked, self._name)

    def _begin(self, name: str, ready: Mapping[str, Any]) -> None:
        begun = self._begun(self._asked[name], ready)
        kind = _kind(begun)
        key = next((key for key, one in self._stored.items() if _kind(one) == kind), None)
        if key is None:
            self._keys[name], self._found[name] = self._log.begin(begun), begun
        else:
            self._keys[name], self._found[name] = key, self._stored.pop(key)

    def _add(self, name: str, block: Block, peak: int) -> None:
        known = self._found[name]
        if any((one.round, one.order) == (block.round, block.order) for one in known.blocks):
            return
        self._log.append(self._keys[name], block, peak)
        peak = max(peak, known.peak_rss_bytes)
        self._found[name] = replace(known, blocks=(*known.blocks, block), peak_rss_bytes=peak)

    def _begun(self, entry: Entry, ready: Mapping[str, Any]) -> Measurement:
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
            device=self._facts,
            warm_up=ready["warm_up"],
            placement=ready.get("placement", {}),
            output_sha256=ready["output_sha256"],
            parity=parity(
                ready.get("output", ()),
                self._references.get(artifact.sha256),
                artifact.precision,
                accelerator=RUNTIMES[entry.runtime].accelerator,
            ),
            sustained=self._sustained,
            session=self._session,
        )


def failure(event: Mapping[str, Any], asked: Mapping[str, Entry], device: str) -> DeviceError | MissingExtraError:
    """What an error event means for the user."""
    if not event["missing"]:
        entry = asked.get(event["entry"])
        what = f"{entry.runtime} cannot run {entry.artifact.path}" if entry else "the worker failed"
        return DeviceError(f"{what}: {event['reason']}", where=device, fix=event["fix"])
    missing = event["missing"]
    if device == "local" and missing == "litert":
        return MissingExtraError("tflite", "running a .tflite file")
    if missing == "trtexec":
        fix = "It comes with TensorRT, on a Jetson with JetPack; it must be on PATH or in /usr/src/tensorrt/bin."
        return DeviceError(f"trtexec is not installed on {device}", fix=fix)
    fix = how_to_install(package_of(missing), device)
    return DeviceError(f"{missing} is not installed on {device}", fix=fix)


def _kind(one: Measurement) -> tuple[str, str, str, int]:
    return one.artifact, one.role, one.runtime, one.threads
