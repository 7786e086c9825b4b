"""Is the pruned file faster than the uncut one? A ratio with its interval, and a verdict in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from edgeprune.measurement import Measurement
from edgeprune.stats import MIN_ROUNDS, ratio_interval

Verdict = Literal["faster", "slower", "no significant difference"]


@dataclass(frozen=True)
class Comparison:
    """The uncut file against the cut one, under the same conditions, round by round.

    Attributes:
        baseline: path of the uncut file.
        candidate: path of the cut file.
        runtime: that ran both.
        threads: that the runtime used.
        ratio: time of the baseline over time of the candidate: 1.5 says 1.5 times as fast.
        ci95: the ratio's 95 % interval, (low, high).
        verdict: "faster" or "slower" only where the interval excludes 1 and there were enough rounds.
        rounds: how many paired rounds it rests on.
    """

    baseline: str
    candidate: str
    runtime: str
    threads: int
    ratio: float
    ci95: tuple[float, float]
    verdict: Verdict
    rounds: int


def compare(measurements: Sequence[Measurement]) -> tuple[Comparison, ...]:
    """Compare each cut file with the uncut one of the same format, precision, runtime and thread count.

    Only measurements of one session are compared: times of different runs differ by heat and load as much as by the
    model.

    Args:
        measurements: of one or more sessions.

    Returns:
        One comparison for each cut file whose uncut partner shares at least one round with it, in the order of the
        cut files.
    """
    baselines = {_conditions(one): one for one in measurements if one.role == "baseline"}
    pairs = [
        (baselines[_conditions(one)], one)
        for one in measurements
        if one.role == "pruned" and _conditions(one) in baselines
    ]
    return tuple(
        _compare_pair(baseline, candidate) for baseline, candidate in pairs if _shared_rounds(baseline, candidate)
    )


def verdict_of(low: float, high: float, rounds: int) -> Verdict:
    """What an interval of the speed-up lets one say; with fewer than `MIN_ROUNDS` rounds, nothing."""
    if rounds < MIN_ROUNDS or low <= 1 <= high:
        return "no significant difference"
    return "faster" if low > 1 else "slower"


def _conditions(measurement: Measurement) -> tuple[str, str, str, str, int]:
    """What two measurements must share to be comparable."""
    one = measurement
    return one.session, one.format, one.precision, one.runtime, one.threads


def _shared_rounds(baseline: Measurement, candidate: Measurement) -> list[int]:
    return sorted({block.round for block in baseline.blocks} & {block.round for block in candidate.blocks})


def _compare_pair(baseline: Measurement, candidate: Measurement) -> Comparison:
    rounds = _shared_rounds(baseline, candidate)
    slow = {block.round: block.median_ns for block in baseline.blocks}
    fast = {block.round: block.median_ns for block in candidate.blocks}
    ratio, low, high = ratio_interval([slow[r] for r in rounds], [fast[r] for r in rounds])
    verdict = verdict_of(low, high, len(rounds))
    return Comparison(
        baseline.path, candidate.path, baseline.runtime, baseline.threads, ratio, (low, high), verdict, len(rounds)
    )
