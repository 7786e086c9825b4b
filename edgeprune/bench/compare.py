"""Is the pruned file faster than the uncut one? A ratio with its interval, and a verdict in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgeprune.bench.trust import clean_blocks
from edgeprune.measurement import Measurement
from edgeprune.stats import MIN_ROUNDS, Verdict, detectable_change, ratio_interval, verdict_of


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
        verdict: "faster" or "slower" only where the interval excludes 1.
        rounds: how many paired rounds it rests on.
        detectable: the smallest true change it would have found 4 times out of 5, as a share: 0.02 is 2 %.
        device: facts of the machine.
    """

    baseline: str
    candidate: str
    runtime: str
    threads: int
    ratio: float
    ci95: tuple[float, float]
    verdict: Verdict
    rounds: int
    detectable: float
    device: Mapping[str, Any]


def compare(measurements: Sequence[Measurement]) -> tuple[Comparison, ...]:
    """Compare each cut file with the uncut fp32 file of the same format, runtime and thread count.

    Where the uncut model was not timed in fp32, it is compared with the one of its own precision. Only measurements of
    one session are compared: times of different runs differ by heat and load as much as by the model. Blocks that are
    tainted (see `edgeprune.bench.trust`) are left out, and emulated times are not compared; what sustained load does to
    a speed-up is of `edgeprune.sustained`.

    Args:
        measurements: of one or more sessions.

    Returns:
        One comparison for each cut file that shares at least `MIN_ROUNDS` clean rounds with its uncut partner, in
        the order of the cut files.
    """
    timed = [one for one in measurements if not one.emulated and not one.sustained]
    baselines = {_conditions(one): one for one in timed if one.role == "baseline"}
    cut = [one for one in timed if one.role == "pruned"]
    partners = (baselines.get(_conditions(one, "fp32")) or baselines.get(_conditions(one)) for one in cut)
    found = (_compare_pair(baseline, one) for baseline, one in zip(partners, cut, strict=True) if baseline)
    return tuple(one for one in found if one)


def _conditions(one: Measurement, precision: str = "") -> tuple[str, str, str, str, int]:
    """What two measurements must share to be comparable; in another precision, if one is named."""
    return one.session, one.format, precision or one.precision, one.runtime, one.threads


def _compare_pair(baseline: Measurement, candidate: Measurement) -> Comparison | None:
    slow, fast = ({block.round: block.median_ns for block in clean_blocks(one)} for one in (baseline, candidate))
    rounds = sorted(slow.keys() & fast.keys())
    if len(rounds) < MIN_ROUNDS:
        return None
    ratio, low, high = ratio_interval([slow[r] for r in rounds], [fast[r] for r in rounds])
    return Comparison(
        baseline=baseline.path,
        candidate=candidate.path,
        runtime=baseline.runtime,
        threads=baseline.threads,
        ratio=ratio,
        ci95=(low, high),
        verdict=verdict_of(low, high),
        rounds=len(rounds),
        detectable=detectable_change(low, high),
        device=baseline.device,
    )
