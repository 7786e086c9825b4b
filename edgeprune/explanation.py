"""Explanation: where the time of a cut file goes, layer by layer beside the uncut one, and why it is not less."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LayerChange:
    """One layer of the uncut file, and of the cut one.

    Attributes:
        layer: its name; "everything else" for all operators that are no layer.
        ms: (uncut, cut).
        macs: (uncut, cut).
        gflops: achieved, (uncut, cut), a MAC counted as two; 0 where there are no MACs.
        channels: of the cut layer, (in, out); (0, 0) for what is no layer.
        bound: what the board's peaks say the cut layer cannot be faster for: "compute", "memory", or empty where they
            are not known.
        limit_ms: the least time the peaks allow the cut layer; 0 where they are not known.
    """

    layer: str
    ms: tuple[float, float]
    macs: tuple[int, int]
    gflops: tuple[float, float]
    channels: tuple[int, int]
    bound: str = ""
    limit_ms: float = 0.0


@dataclass(frozen=True)
class Finding:
    """One reason why fewer MACs did not become less time.

    Attributes:
        cause: its name in the closed list, see `edgeprune.bench.explain.Cause`.
        said: what was seen.
        share: of the cut file's time that it is about, 0 to 1.
        remedy: what to do about it.
        layers: that it is about; may be empty.
    """

    cause: str
    said: str
    share: float
    remedy: str
    layers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Explanation:
    """A cut file beside its uncut one, in one runtime, with one number of threads, on one machine; both profiled.

    Attributes:
        baseline: path of the uncut file.
        candidate: path of the cut one.
        runtime: that executed both.
        threads: that it used.
        ms: of a call while profiled, (uncut, cut).
        macs: (uncut, cut).
        layers: in the order they ran.
        findings: that with the greatest share first.
        peak_gflops: the machine's for this many threads; 0 where not known.
        peak_gb_per_s: of its memory; 0 where not known.
        peak_source: where the peaks are from; empty where they are not known.
        device: name of the machine; empty where what it belongs to says it.
    """

    baseline: str
    candidate: str
    runtime: str
    threads: int
    ms: tuple[float, float]
    macs: tuple[int, int]
    layers: tuple[LayerChange, ...]
    findings: tuple[Finding, ...]
    peak_gflops: float = 0.0
    peak_gb_per_s: float = 0.0
    peak_source: str = ""
    device: str = ""
