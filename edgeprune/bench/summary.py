"""What a bench found, device by device, as a JSON document; the terminal draws the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from edgeprune.artifact import Artifact
from edgeprune.bench.compare import Comparison
from edgeprune.bench.trust import Doubt, verdict
from edgeprune.measurement import Measurement


def summary(
    device: str,
    artifacts: Sequence[Artifact],
    measurements: Sequence[Measurement],
    doubts: Sequence[Sequence[Doubt]],
    comparisons: Sequence[Comparison],
) -> dict[str, Any]:
    """One device's rows; where it is an emulator, without any time.

    Args:
        device: what the user calls it.
        artifacts: the files, those of the measurements at least.
        measurements: taken on this device.
        doubts: what speaks against each of them.
        comparisons: of these measurements.
    """
    files = {artifact.sha256: artifact for artifact in artifacts}
    pairs = {(one.candidate, one.runtime, one.threads): one for one in comparisons}
    references = {(one.baseline, one.runtime, one.threads) for one in comparisons}
    rows = []
    for one, found in zip(measurements, doubts, strict=True):
        key = (one.path, one.runtime, one.threads)
        pair = pairs.get(key) if one.role == "pruned" else None
        rows.append(
            _row(one, files[one.artifact], verdict(found))
            | {"reference": one.role == "baseline" and key in references, "speed_up": _speed_up(pair) if pair else None}
        )
    fatal = [doubt for found in doubts for doubt in found if doubt.fatal]
    return {
        "device": device,
        "facts": dict(measurements[0].device) if measurements else {},
        "at_end": dict(measurements[-1].blocks[-1].sensors) if measurements else {},
        "trust": "ok" if not fatal else str(fatal[0]),
        "doubts": _told(measurements, doubts),
        "rows": rows,
    }


def _row(one: Measurement, artifact: Artifact, trust: str) -> dict[str, Any]:
    row = {
        "artifact": one.path,
        "role": one.role,
        "runtime": one.runtime,
        "runtime_version": one.runtime_version,
        "placement": dict(one.placement),
        "threads": one.threads,
        "bytes": artifact.bytes,
        "parity": asdict(artifact.parity) if artifact.parity else None,
        "trust": trust,
        "device_parity": dict(one.parity) or None,
        "energy": dict(one.energy) or None,
    }
    if one.emulated:
        return row | {"functional": True}
    times = {"p50_ms": one.p50_ms, "p90_ms": one.p90_ms, "p99_ms": one.p99_ms, "first_ms": one.first_ns / 1e6}
    samples = {"samples": len(one.samples_ns), "peak_rss_bytes": one.peak_rss_bytes, "load_ms": one.load_ns / 1e6}
    return row | times | samples


def _speed_up(pair: Comparison) -> dict[str, Any]:
    names = ("baseline", "ratio", "ci95", "verdict", "rounds", "detectable")
    return {name: getattr(pair, name) for name in names} | {"ci95": list(pair.ci95)}


def _told(measurements: Sequence[Measurement], doubts: Sequence[Sequence[Doubt]]) -> list[Mapping[str, Any]]:
    """Each reason once: what was said first, of which measurement, and of how many it was said."""
    told: dict[tuple[str, bool], dict[str, Any]] = {}
    for one, found in zip(measurements, doubts, strict=True):
        for doubt in found:
            seen = told.setdefault(
                (doubt.reason.name, doubt.fatal),
                {
                    "reason": doubt.reason.name,
                    "said": doubt.said,
                    "fatal": doubt.fatal,
                    "remedy": doubt.reason.value.remedy,
                    "artifact": one.path,
                    "runtime": one.runtime,
                    "threads": one.threads,
                    "measurements": 0,
                },
            )
            seen["measurements"] += 1
    return list(told.values())
