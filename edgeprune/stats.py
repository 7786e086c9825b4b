"""Statistics of latencies: percentiles, a spread that outliers do not move, and the interval of a paired speed-up."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Literal

import numpy as np

Verdict = Literal["faster", "slower", "no significant difference"]

MIN_ROUNDS = 6
"""Fewest paired rounds from which a difference may be claimed.

If two files are equally fast, each wins a round with probability 1/2; all n rounds fall to one side with probability
2 * (1/2)^n, which is below 5 % only from n = 6 on (the exact two-sided sign test, Dixon & Mood 1946).
"""

_MAD_TO_SIGMA = (
    1.4826  # 1 / Phi^-1(3/4): makes the MAD of normal data estimate its standard deviation (Rousseeuw & Croux 1993)
)


def percentile(samples: Sequence[float], q: float) -> float:
    """The value below which `q` percent of the samples lie, in the samples' unit.

    Definition: linear interpolation between the two nearest order statistics at rank `(n - 1) * q / 100`, counted
    from 0 (type 7 of Hyndman & Fan, "Sample Quantiles in Statistical Packages", 1996; numpy's and R's default).

    Args:
        samples: at least one value.
        q: 0 to 100.

    Raises:
        ValueError: there are no samples.
    """
    if not len(samples):
        raise ValueError("no samples")
    return float(np.percentile(np.asarray(samples, dtype=np.float64), q))


def median(samples: Sequence[float]) -> float:
    """The middle value (of an even number of samples, the mean of the middle two)."""
    return percentile(samples, 50)


def robust_spread(samples: Sequence[float]) -> float:
    """The relative spread, comparable to a coefficient of variation, but unmoved by a few outliers.

    Returns:
        1.4826 * MAD / median: 0.02 says that a typical sample is 2 % from the middle.
    """
    middle = median(samples)
    deviations = np.abs(np.asarray(samples, dtype=np.float64) - middle)
    return _MAD_TO_SIGMA * float(np.median(deviations)) / middle


def ratio_interval(
    baseline: Sequence[float], candidate: Sequence[float], *, confidence: float = 0.95
) -> tuple[float, float, float]:
    """How many times faster the candidate is than the baseline, with its interval.

    Both of a round ran side by side, so what slows both (heat, another process) cancels in the ratio of their times.
    The estimate is the Hodges-Lehmann one of the rounds' log ratios, the median of the means of all pairs of rounds;
    the interval is the exact one of Wilcoxon's signed-rank test (Hollander, Wolfe & Chicken, "Nonparametric Statistical
    Methods", 2014, section 3.2-3.4). It needs the noise of a round to be alike for both files, of whatever
    distribution. docs/decisions/0005 compares it with others on simulated timings.

    Args:
        baseline: one value a round (the median time of its block), positive, [rounds].
        candidate: the same rounds of the other file, [rounds].
        confidence: of the interval, 0 < confidence < 1. It is at least that: ranks come in steps.

    Returns:
        (ratio, low, high); a ratio above 1 says that the candidate is faster. With fewer rounds than can give this
        confidence (5 or fewer for 0.95), low is 0 and high infinite.

    Raises:
        ValueError: no rounds, unequal numbers of rounds, or a value that is not positive.
    """
    logs = np.log(_paired_ratios(baseline, candidate))
    left, right = np.triu_indices(len(logs))
    return _between(np.sort((logs[left] + logs[right]) / 2), _signed_rank((1 - confidence) / 2, len(logs)))


def unpaired_ratio_interval(
    baseline: Sequence[float], candidate: Sequence[float], *, confidence: float = 0.95
) -> tuple[float, float, float]:
    """The same for times that were not taken side by side: nothing cancels, and what changed between them counts.

    The Hodges-Lehmann estimate of the shift between the logs of two samples, and the interval of the Wilcoxon rank sum
    test in its normal approximation (the same book, section 4.2-4.3).

    Args:
        baseline: block medians of one run, positive, [n].
        candidate: block medians of another run, [m].
        confidence: of the interval, 0 < confidence < 1.

    Returns:
        (ratio, low, high), as `ratio_interval`.

    Raises:
        ValueError: no values, or a value that is not positive.
    """
    slow, fast = _positive(baseline), _positive(candidate)
    n, m = len(slow), len(fast)
    z = NormalDist().inv_cdf((1 - confidence) / 2)
    rank = math.floor(n * m / 2 + z * math.sqrt(n * m * (n + m + 1) / 12))
    return _between(np.sort(np.subtract.outer(np.log(slow), np.log(fast)).ravel()), rank)


def share_interval(share: float, total: int) -> tuple[float, float]:
    """The 95 % interval of a share that was counted.

    Wilson's score interval (E. B. Wilson, JASA 22, 1927): unlike `p +- 1.96 SE` it stays honest near 0 and 1.

    Args:
        share: 0 to 1.
        total: of how many things.

    Raises:
        ValueError: there are none.
    """
    if total < 1:
        raise ValueError("a share of nothing")
    z2 = NormalDist().inv_cdf(0.975) ** 2
    centre = (share + z2 / (2 * total)) / (1 + z2 / total)
    half = math.sqrt(z2) * math.sqrt(share * (1 - share) / total + z2 / (4 * total * total)) / (1 + z2 / total)
    return max(0.0, min(centre - half, share)), min(1.0, max(centre + half, share))


def paired_difference(gained: int, lost: int, total: int) -> tuple[float, float]:
    """The 95 % interval of the difference of two shares that were counted on the same things.

    Wald's interval after half a thing is added to each of the four counts (Agresti, Min, "Simple improved confidence
    intervals for comparing matched proportions", Statistics in Medicine 24, 2005): honest, too, where little changed.

    Args:
        gained: things that count only the second time, as images that only the second model gets right.
        lost: things that count only the first time.
        total: how many things there are.

    Raises:
        ValueError: the counts do not fit together.
    """
    if min(gained, lost) < 0 or gained + lost > total or total < 1:
        raise ValueError(f"{gained} gained and {lost} lost of {total}")
    more, less, n = gained + 0.5, lost + 0.5, total + 2
    difference = (more - less) / n
    half = NormalDist().inv_cdf(0.975) * math.sqrt((more + less) / n - difference**2) / math.sqrt(n)
    return max(-1.0, difference - half), min(1.0, difference + half)


def detectable_change(low: float, high: float) -> float:
    """The smallest true change of speed that a comparison with this 95 % interval would have found 4 times out of 5.

    For a normal estimate it is (1.96 + 0.84) standard errors, hence 1.43 times the interval's half width (J. Cohen,
    "Statistical Power Analysis", 1988).

    Args:
        low: lower end of the ratio's interval.
        high: upper end.

    Returns:
        A share: 0.02 says that a file 2 % faster would have been told apart. Infinite where the interval is.
    """
    if low <= 0:
        return math.inf
    normal = NormalDist()
    wider = 1 + normal.inv_cdf(0.8) / normal.inv_cdf(0.975)
    return math.expm1(wider * math.log(high / low) / 2)


def verdict_of(low: float, high: float) -> Verdict:
    """What an interval of the speed-up lets one say."""
    if low <= 1 <= high:
        return "no significant difference"
    return "faster" if low > 1 else "slower"


def _between(sorted_logs: np.ndarray, rank: int) -> tuple[float, float, float]:
    """Median, and the values at `rank` from either end (counted from 1); rank 0 lies beyond all values."""
    middle = math.exp(np.median(sorted_logs))
    if rank < 1:
        return middle, 0.0, math.inf
    return middle, math.exp(sorted_logs[rank - 1]), math.exp(sorted_logs[-rank])


def _signed_rank(tail: float, rounds: int) -> int:
    """How many values of the signed-rank statistic lie in a tail of at most this probability."""
    most = rounds * (rounds + 1) // 2
    ways = np.zeros(most + 1)
    ways[0] = 1.0
    for rank in range(1, rounds + 1):  # each rank is positive or negative with probability 1/2
        ways = (ways + np.concatenate((np.zeros(rank), ways[:-rank]))) / 2
    return int(np.searchsorted(np.cumsum(ways), tail, side="right"))


def _positive(times: Sequence[float]) -> np.ndarray:
    values = np.asarray(times, dtype=np.float64)
    if values.ndim != 1 or not values.size or not values.min() > 0:
        raise ValueError("times must be positive, and there must be some")
    return values


def _paired_ratios(baseline: Sequence[float], candidate: Sequence[float]) -> np.ndarray:
    """Round by round, how many times faster the candidate was: float64 [rounds]."""
    if len(baseline) != len(candidate):
        raise ValueError(f"rounds must be paired: {len(baseline)} against {len(candidate)}")
    ratios: np.ndarray = _positive(baseline) / _positive(candidate)
    return ratios
