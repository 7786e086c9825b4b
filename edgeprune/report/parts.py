"""What a report is made of. Every part carries the field names of `report.json`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from edgeprune.course import BlockTime, Histogram
from edgeprune.data import InputSpec
from edgeprune.draw import Draw
from edgeprune.plan import Allocation, Cost
from edgeprune.report.energy import Energy
from edgeprune.stats import Verdict


@dataclass(frozen=True)
class Subject:
    """The uncut model.

    Attributes:
        name: short name ("mobilenet_v2").
        source: what rebuilds it, as named on the command line.
        parameters: number of learned weights.
        input: what it wants of an image.
        weights: the file its weights were read from; empty if they came with the model.
    """

    name: str
    source: str
    parameters: int
    input: InputSpec
    weights: str = ""


@dataclass(frozen=True)
class Board:
    """The board the model was pruned for.

    Attributes:
        name: its key ("rpi4").
        title: its full name.
        arch: instruction set ("aarch64").
        channel_multiple: widths were rounded to multiples of this.
        warnings: what its board file warns of.
    """

    name: str
    title: str
    arch: str
    channel_multiple: int
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Machine:
    """A machine that measurements were taken on.

    Attributes:
        name: one line that tells it from others.
        is_target: whether it is the board the model was pruned for.
        facts: what it says of itself, JSON values only.
    """

    name: str
    is_target: bool
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Method:
    """A named choice and its settings, JSON values only: the criterion, or the recovery."""

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class BudgetFacts:
    """How much was asked to go, and what was reached.

    Attributes:
        asked: {"ratio": r} (share of each layer's filters to remove, or "auto": what the criterion itself removes) or
            {"macs": m} (share of MACs to keep) or {"speedup": s} (how many times as fast to become on a board) or
            {"latency_ms": t} (the longest that a call may take on it) or {"max_drop": p} (points of accuracy that may
            be lost to become the fastest on it).
        reached: {"macs": m}, share of the uncut model's MACs that is left.
        plan: fingerprint of the plan.
        allocation: how it was decided how much each space gives up, see `edgeprune.plan.PruningPlan`.
        predicted: where the board was not at hand: "speedup" on "board" with "threads", from published latencies
            ("source") that foretell each other with a relative "error" (median) and "worst_error"; else empty.
    """

    asked: Mapping[str, float | str]
    reached: Mapping[str, float]
    plan: str
    allocation: Allocation = "uniform"
    predicted: Mapping[str, float | str] = field(default_factory=dict)


@dataclass(frozen=True)
class Costs:
    """What one image costs, before and after."""

    baseline: Cost
    pruned: Cost


@dataclass(frozen=True)
class Layer:
    """A layer's number of filters, before and after."""

    name: str
    before: int
    after: int


@dataclass(frozen=True)
class Protected:
    """A layer that was left whole, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Timing:
    """How long one artifact takes for one image, in one runtime, with one number of threads, on one machine.

    Attributes:
        artifact: its path in the run folder.
        runtime: "onnxruntime" or "litert".
        runtime_version: of that runtime.
        threads: how many it was given.
        samples: how many timed runs there are (each kept in measurements.jsonl); warm-up runs are not among them.
        p50_ms: median; like all times in milliseconds for one image.
        p90_ms: 90th percentile.
        p99_ms: 99th percentile.
        quantiles_ms: the quantiles 0 %, 5 % ... 100 % of the samples; empty if not known.
        load_ms: time to read the file and be ready.
        first_ms: time of the first call, warm-up not done.
        peak_rss_bytes: the most memory the measuring process held, interpreter and runtime included.
        device: name of the machine, one of the report's devices.
        trust: "ok", or why the numbers should not be relied on ("THROTTLED: ...").
        warnings: what was noticed while measuring, each beginning with the name of its kind.
        histogram: how the samples are distributed; None if not known.
        blocks: how the times went through the run; empty if not known.
        energy: of one image; None where it was not asked for.
    """

    artifact: str
    runtime: str
    runtime_version: str
    threads: int
    samples: int
    p50_ms: float
    p90_ms: float
    p99_ms: float
    quantiles_ms: tuple[float, ...]
    load_ms: float
    first_ms: float
    peak_rss_bytes: int
    device: str
    trust: str
    warnings: tuple[str, ...] = ()
    histogram: Histogram | None = None
    blocks: tuple[BlockTime, ...] = ()
    energy: Energy | None = None


@dataclass(frozen=True)
class SpeedUp:
    """How much faster the candidate is than the baseline, timed side by side.

    Attributes:
        baseline: path of the uncut artifact.
        candidate: path of the pruned artifact.
        runtime: both ran in.
        threads: both were given.
        ratio: the baseline's time divided by the candidate's; above 1 is faster.
        ci95: 95 % confidence interval of `ratio`.
        verdict: what may be said.
        rounds: how many paired rounds it rests on.
        device: name of the machine, one of the report's devices.
        detectable: the smallest true change it would have found 4 times out of 5, as a share.
    """

    baseline: str
    candidate: str
    runtime: str
    threads: int
    ratio: float
    ci95: tuple[float, float]
    verdict: Verdict
    rounds: int
    device: str
    detectable: float


@dataclass(frozen=True)
class Stage:
    """A stage of the run and its wall time in seconds."""

    name: str
    seconds: float


@dataclass(frozen=True)
class Images:
    """Where images came from: what they were taken from, how many were used, and the names of the broken ones."""

    source: str
    images: int
    skipped: tuple[str, ...] = ()


@dataclass(frozen=True)
class DataUse:
    """The images that scored filters and fitted weights, and the images that scored accuracy; they share none.

    `draw` is how the latter were drawn; None in reports of older versions, and after `edgeprune train`.
    """

    calibration: Images | None
    scoring: Images | None
    draw: Draw | None = None


@dataclass(frozen=True)
class RunFacts:
    """How the run was started and how it went.

    Attributes:
        command: the argument vector.
        seed: of everything random.
        created: when it ended, ISO 8601 with the offset from UTC.
        versions: package name to version, what a reproduction needs.
        stages: in the order they ran.
        warnings: each one sentence.
        notes: what a reader should know, each one sentence.
    """

    command: tuple[str, ...]
    seed: int
    created: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    stages: tuple[Stage, ...] = ()
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
