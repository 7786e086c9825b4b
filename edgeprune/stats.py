"""Statistics of latencies: percentiles, a spread that outliers do not move, and the interval of a paired speed-up."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

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
    baseline: Sequence[float],
    candidate: Sequence[float],
    *,
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> tuple[float, float, float]:
    """How many times faster the candidate is than the baseline, with its interval.

    The estimate is the median over rounds of `baseline / candidate`. Both of a round ran side by side, so what slows
    both (heat, another process) cancels in the ratio. The interval is a percentile bootstrap over rounds (Efron &
    Tibshirani 1993, chapter 13) with the tails widened for few rounds (the expanded percentile interval
    of Hesterberg, "What Teachers Should Know About the Bootstrap", 2015): without it, 14 rounds without a real
    difference are called different in about 7 of 100 cases instead of 5.

    Args:
        baseline: one value a round (the median time of its block), positive, [rounds].
        candidate: the same rounds of the other file, [rounds].
        confidence: of the interval, 0 < confidence < 1.
        resamples: how often the rounds are drawn anew.
        seed: of the drawing; the same seed gives the same interval.

    Returns:
        (ratio, low, high); a ratio above 1 says that the candidate is faster. With one round, low is 0 and high
        infinite.

    Raises:
        ValueError: no rounds, unequal numbers of rounds, or a value that is not positive.
    """
    ratios = _paired_ratios(baseline, candidate)
    estimate = float(np.median(ratios))
    if len(ratios) < 2:
        return estimate, 0.0, float("inf")
    drawn = np.random.default_rng(seed).integers(0, len(ratios), size=(resamples, len(ratios)))
    medians = np.median(ratios[drawn], axis=1)
    tail = _widened_tail((1 - confidence) / 2, len(ratios))
    low, high = np.quantile(medians, [tail, 1 - tail])
    return estimate, float(low), float(high)


def _paired_ratios(baseline: Sequence[float], candidate: Sequence[float]) -> np.ndarray:
    """Round by round, how many times faster the candidate was: float64 [rounds]."""
    slow, fast = np.asarray(baseline, dtype=np.float64), np.asarray(candidate, dtype=np.float64)
    if slow.shape != fast.shape or slow.ndim != 1 or not slow.size:
        raise ValueError(f"rounds must be paired: {slow.shape} against {fast.shape}")
    if not (slow.min() > 0 and fast.min() > 0):
        raise ValueError("times must be positive")
    ratios: np.ndarray = slow / fast
    return ratios


def _widened_tail(tail: float, rounds: int) -> float:
    """The bootstrap quantile that stands for `tail` with n rounds: Phi(sqrt(n / (n - 1)) * t(tail; n - 1))."""
    normal = NormalDist()
    z, v = normal.inv_cdf(tail), rounds - 1
    # The expansion of Student's t quantile around the normal one: Abramowitz & Stegun 26.7.5.
    t = z + (z**3 + z) / (4 * v) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * v**2)
    t += (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * v**3)
    return normal.cdf(t * (rounds / v) ** 0.5)
