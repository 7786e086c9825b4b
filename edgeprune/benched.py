"""Benched: what `bench` found, on all of its devices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import edgeprune.bench
from edgeprune.artifact import Artifact
from edgeprune.bench.compare import Comparison, compare
from edgeprune.bench.explain import explanations
from edgeprune.bench.profiling import Refusal
from edgeprune.bench.summary import summary
from edgeprune.bench.trust import Doubt
from edgeprune.errors import EdgepruneError
from edgeprune.measurement import Measurement
from edgeprune.profile import Profile
from edgeprune.report.document import Report
from edgeprune.report.machines import machine_name
from edgeprune.report.plain import to_plain
from edgeprune.sustained import Sustained, sustained

JSON_SCHEMA_FILE = Path(edgeprune.bench.__path__[0]) / "bench_json.schema.json"
"""JSON Schema (draft 2020-12) of what `edgeprune bench --json` prints."""


@dataclass(frozen=True, eq=False)
class Benched:
    """What measuring came to.

    Attributes:
        artifacts: the files.
        measurements: of these files, device by device.
        asked: for each measurement, the device as the user named it.
        doubts: for each measurement, what speaks against it.
        comparisons: of these measurements.
        sustained: what sustained load did to them.
        gate: as asked.
        report: the run's, with the new times; None for single files.
        failures: devices that could not be measured, of several.
        profiles: device by device, of these files; empty unless asked for.
        unprofiled: what could not be profiled.
    """

    artifacts: tuple[Artifact, ...]
    measurements: tuple[Measurement, ...]
    asked: tuple[str, ...]
    doubts: tuple[tuple[Doubt, ...], ...]
    comparisons: tuple[Comparison, ...]
    sustained: tuple[Sustained, ...] = ()
    gate: float | None = None
    report: Report | None = None
    failures: Mapping[str, EdgepruneError] = field(default_factory=dict)
    profiles: Mapping[str, tuple[Profile, ...]] = field(default_factory=dict)
    unprofiled: tuple[Refusal, ...] = ()

    @property
    def fatal(self) -> tuple[Doubt, ...]:
        """Why not to believe the times; empty if they can be."""
        return tuple(doubt for found in self.doubts for doubt in found if doubt.fatal)

    @property
    def gate_met(self) -> bool:
        """Whether every pair that was measured is as much faster as was asked."""
        if self.gate is None:
            return True
        pairs = sum(one.role == "pruned" for one in self.measurements)
        found = [one.ci95[0] for one in self.comparisons]
        found += [file.speed_up.ci95[0] for one in self.sustained for file in one.files if file.speed_up]
        return len(found) == pairs > 0 and min(found) >= self.gate

    def to_json(self) -> dict[str, Any]:
        """All of it, device by device, valid by `JSON_SCHEMA_FILE`; the samples are in `measurements.jsonl`."""
        devices = []
        for device in dict.fromkeys(self.asked):
            here = [at for at, name in enumerate(self.asked) if name == device]
            measured, found = [self.measurements[at] for at in here], [self.doubts[at] for at in here]
            its = summary(device, self.artifacts, measured, found, compare(measured))
            profiles = self.profiles.get(device, ())
            its["profiles"] = [one.to_json() for one in profiles]
            its["explanations"] = [asdict(one) for one in explanations(profiles)]
            its["sustained"] = [to_plain(one) for one in sustained(measured, machine_name, found)]
            devices.append(its)
        gate = None if self.gate is None else {"asked": self.gate, "met": self.gate_met and not self.fatal}
        failures = [
            {"device": device, "error": error.what, "fix": error.fix} for device, error in self.failures.items()
        ]
        unprofiled = [asdict(one) for one in self.unprofiled]
        return {"schema": 1, "devices": devices, "gate": gate, "failures": failures, "unprofiled": unprofiled}
