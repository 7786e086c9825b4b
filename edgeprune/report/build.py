"""The values that walked through a run, gathered into a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Any, Protocol

from edgeprune import __version__
from edgeprune.artifact import Artifact
from edgeprune.course import course, histogram
from edgeprune.explanation import Explanation
from edgeprune.measurement import Measurement
from edgeprune.plan import Cost, PruningPlan
from edgeprune.report.bench import BenchReport
from edgeprune.report.document import Report
from edgeprune.report.energy import energy_of
from edgeprune.report.machines import machine_name, machines
from edgeprune.report.parts import (
    Board,
    BudgetFacts,
    Costs,
    DataUse,
    Layer,
    Method,
    Protected,
    RunFacts,
    SpeedUp,
    Subject,
    Timing,
)
from edgeprune.report.precisions import FileAccuracy
from edgeprune.report.scores import Accuracy
from edgeprune.stats import Verdict, percentile
from edgeprune.sustained import Doubted, Sustained, sustained
from edgeprune.target import Target


class Compared(Protocol):
    """What a report wants of a comparison; `edgeprune.bench` makes them."""

    @property
    def baseline(self) -> str:
        """Path of the uncut file."""

    @property
    def candidate(self) -> str:
        """Path of the cut file."""

    @property
    def runtime(self) -> str:
        """That ran both."""

    @property
    def threads(self) -> int:
        """That the runtime used."""

    @property
    def ratio(self) -> float:
        """Time of the baseline over time of the candidate."""

    @property
    def ci95(self) -> tuple[float, float]:
        """The ratio's 95 % interval."""

    @property
    def verdict(self) -> Verdict:
        """What may be said."""

    @property
    def rounds(self) -> int:
        """How many paired rounds it rests on."""

    @property
    def detectable(self) -> float:
        """The smallest true change it would have found 4 times out of 5, as a share."""

    @property
    def device(self) -> Mapping[str, Any]:
        """Facts of the machine."""


@dataclass(frozen=True)
class Pruning:
    """What was decided and done to the model.

    Attributes:
        plan: the decision.
        baseline: cost of the uncut model.
        pruned: cost of the cut model.
        protected: layer name to the reason for which it was left whole.
        recovery: how it was made good again, Method("none") if it was not.
    """

    plan: PruningPlan
    baseline: Cost
    pruned: Cost
    protected: Mapping[str, str]
    recovery: Method


@dataclass(frozen=True)
class Evidence:
    """What was found out about the result.

    Attributes:
        data: the images used.
        accuracy: None if there was nothing to score on.
        artifacts: the files handed over.
        measurements: of these files.
        comparisons: of these measurements.
        doubts: what speaks against each measurement, the fatal first; as many as there are measurements.
        files: how often each file is right; empty if all are fp32.
    """

    data: DataUse
    accuracy: Accuracy | None = None
    artifacts: Sequence[Artifact] = ()
    measurements: Sequence[Measurement] = ()
    comparisons: Sequence[Compared] = ()
    doubts: Sequence[Sequence[Doubted]] = ()
    files: Sequence[FileAccuracy] = ()


def build(model: Subject, target: Target, pruning: Pruning, evidence: Evidence, run: RunFacts) -> Report:
    """Gather a run's values into a report. It computes nothing that its parts do not already say."""
    plan = pruning.plan
    report = Report(
        edgeprune_version=__version__,
        model=model,
        target=Board(target.name, target.title, target.arch, plan.channel_multiple, target.warnings),
        devices=(),
        data=evidence.data,
        criterion=Method(plan.criterion, plan.settings),
        recovery=pruning.recovery,
        budget=BudgetFacts(plan.budget.to_json(), {"macs": plan.macs_kept}, plan.fingerprint, plan.allocation),
        cost=Costs(pruning.baseline, pruning.pruned),
        accuracy=evidence.accuracy,
        layers=tuple(Layer(name, size, plan.width(name)) for name, size in plan.sizes.items()),
        protected=tuple(Protected(name, reason) for name, reason in pruning.protected.items()),
        artifacts=tuple(evidence.artifacts),
        measurements=(),
        comparisons=(),
        run=run,
        files=tuple(evidence.files),
    )
    return with_times(report, evidence.measurements, evidence.comparisons, evidence.doubts)


def with_times(
    report: Report,
    measurements: Sequence[Measurement],
    comparisons: Sequence[Compared],
    doubts: Sequence[Sequence[Doubted]],
) -> Report:
    """The report with these times instead of its own. Emulated ones are told of, never shown.

    Args:
        report: of the run whose files were measured.
        measurements: of these files, on one or more machines.
        comparisons: of these measurements.
        doubts: what speaks against each measurement.
    """
    fields = _times(_names(report.artifacts, measurements), report.target, measurements, comparisons, doubts)
    told = _emulated(measurements)
    kept = tuple(warning for warning in report.run.warnings if not warning.startswith("EMULATED: "))
    return replace(report, **fields, run=replace(report.run, warnings=(*kept, *told)))


def bench_report(
    artifacts: Sequence[Artifact],
    measurements: Sequence[Measurement],
    comparisons: Sequence[Compared],
    doubts: Sequence[Sequence[Doubted]],
    run: RunFacts,
    explanations: Sequence[Explanation] = (),
) -> BenchReport:
    """The report of files that are of no run, called by their names where these tell them apart."""
    plain = [PurePath(artifact.path).name for artifact in artifacts]
    called = tuple(
        replace(one, path=name if plain.count(name) == 1 else one.path)
        for one, name in zip(artifacts, plain, strict=True)
    )
    names = {one.path: other.path for one, other in zip(artifacts, called, strict=True)}
    fields = _times(names, None, measurements, comparisons, doubts)
    run = replace(run, warnings=(*run.warnings, *_emulated(measurements)))
    told = tuple(replace(one, baseline=names[one.baseline], candidate=names[one.candidate]) for one in explanations)
    return BenchReport(edgeprune_version=__version__, artifacts=called, run=run, explanations=told, **fields)


def _emulated(measurements: Sequence[Measurement]) -> tuple[str, ...]:
    names = dict.fromkeys(machine_name(one.device) for one in measurements if one.emulated)
    return tuple(f"EMULATED: the files work on {name}; times taken there are not shown" for name in names)


def _times(
    names: Mapping[str, str],
    target: Board | None,
    measurements: Sequence[Measurement],
    comparisons: Sequence[Compared],
    doubts: Sequence[Sequence[Doubted]],
) -> dict[str, Any]:
    """What a report says of times; of emulated ones, nothing."""
    timed = [
        (one, its) for one, its in zip(measurements, doubts, strict=True) if not one.emulated and not one.sustained
    ]
    return {
        "devices": machines([one for one in measurements if not one.emulated], target),
        "sustained": tuple(_renamed(one, names) for one in sustained(measurements, machine_name, doubts)),
        "measurements": tuple(_timing(one, its, names) for one, its in timed),
        "comparisons": tuple(_speed_up(one, names) for one in comparisons),
    }


def _renamed(one: Sustained, names: Mapping[str, str]) -> Sustained:
    return replace(
        one, files=tuple(replace(file, artifact=names.get(file.artifact, file.artifact)) for file in one.files)
    )


def _names(artifacts: Sequence[Artifact], measurements: Sequence[Measurement]) -> dict[str, str]:
    """The path a file was measured at to its path in the run folder; their hashes tell which is which."""
    names = {artifact.sha256: artifact.path for artifact in artifacts}
    return {one.path: names.get(one.artifact, one.path) for one in measurements}


def _timing(one: Measurement, doubts: Sequence[Doubted], names: Mapping[str, str]) -> Timing:
    samples = one.samples_ns
    return Timing(
        artifact=names.get(one.path, one.path),
        runtime=one.runtime,
        runtime_version=one.runtime_version,
        threads=one.threads,
        samples=len(samples),
        p50_ms=one.p50_ms,
        p90_ms=one.p90_ms,
        p99_ms=one.p99_ms,
        quantiles_ms=tuple(percentile(samples, percent) / 1e6 for percent in range(0, 101, 5)),
        load_ms=one.load_ns / 1e6,
        first_ms=one.first_ns / 1e6,
        peak_rss_bytes=one.peak_rss_bytes,
        device=machine_name(one.device),
        trust=str(doubts[0]) if doubts and doubts[0].fatal else "ok",
        warnings=tuple(map(str, doubts)),
        histogram=histogram(one),
        blocks=course(one),
        energy=energy_of(one.energy),
    )


def _speed_up(one: Compared, names: Mapping[str, str]) -> SpeedUp:
    return SpeedUp(
        baseline=names.get(one.baseline, one.baseline),
        candidate=names.get(one.candidate, one.candidate),
        runtime=one.runtime,
        threads=one.threads,
        ratio=one.ratio,
        ci95=one.ci95,
        verdict=one.verdict,
        rounds=one.rounds,
        device=machine_name(one.device),
        detectable=one.detectable,
    )
