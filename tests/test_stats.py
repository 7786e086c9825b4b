"""The statistics, on timings we construct ourselves: the method is tested here, not the clock."""

from __future__ import annotations

import numpy as np
import pytest

from edgeprune.stats import median, percentile, ratio_interval, robust_spread


def test_percentile_interpolates_between_the_nearest_order_statistics():
    samples = [40, 10, 30, 20]
    assert percentile(samples, 0) == 10
    assert percentile(samples, 100) == 40
    assert percentile(samples, 50) == 25
    assert percentile(samples, 90) == pytest.approx(37)  # rank 3 * 0.9 = 2.7


def test_percentile_of_nothing_is_refused():
    with pytest.raises(ValueError, match="no samples"):
        percentile([], 50)


def test_median_of_an_even_number_is_the_mean_of_the_middle_two():
    assert median([1, 2, 3, 100]) == 2.5


def test_robust_spread_estimates_the_coefficient_of_variation_of_normal_samples():
    samples = np.random.default_rng(0).normal(100, 5, 20_000)
    assert robust_spread(samples) == pytest.approx(0.05, rel=0.05)


def test_robust_spread_is_not_moved_by_a_spike():
    assert robust_spread([100, 101, 99, 100, 102, 98, 100]) == robust_spread([100, 101, 99, 100, 102, 98, 100_000])


def rounds(
    rng: np.random.Generator, ratio: float, *, count: int = 16, noise: float = 0.02
) -> tuple[list[float], list[float]]:
    """Block medians in ns of a baseline of 10 ms and a candidate `ratio` times as fast."""
    baseline = 1e7 * np.exp(noise * rng.standard_t(4, count))
    candidate = 1e7 / ratio * np.exp(noise * rng.standard_t(4, count))
    return list(baseline), list(candidate)


def test_a_real_speed_up_is_found_with_its_size():
    ratio, low, high = ratio_interval(*rounds(np.random.default_rng(1), 1.3))
    assert 1 < low < ratio < high
    assert ratio == pytest.approx(1.3, rel=0.03)


def test_equal_files_are_called_different_in_few_of_many_runs():
    rng, wrong = np.random.default_rng(2), 0
    for _ in range(400):
        _, low, high = ratio_interval(*rounds(rng, 1.0), resamples=1000)
        wrong += not low <= 1 <= high
    # 5 % of 400 is 20; 33 is three standard errors more, so the test does not depend on the seed.
    assert wrong <= 33


def test_the_interval_covers_the_true_ratio_in_most_runs_and_is_not_needlessly_wide():
    rng, covered, widths = np.random.default_rng(3), 0, []
    for _ in range(400):
        _, low, high = ratio_interval(*rounds(rng, 1.3), resamples=1000)
        covered += low <= 1.3 <= high
        widths.append((high - low) / 1.3)
    assert covered >= 0.92 * 400
    assert np.median(widths) < 0.06


def test_a_drift_that_hits_both_alike_cancels():
    drift = np.linspace(1, 2, 16)  # the board throttles to half its clock during the run
    baseline, candidate = rounds(np.random.default_rng(4), 1.3, noise=0.01)
    ratio, low, high = ratio_interval(baseline * drift, candidate * drift)
    still = ratio_interval(baseline, candidate)
    assert (ratio, low, high) == pytest.approx(still)
    # The same samples measured one file after the other would tell another story.
    assert np.median(baseline * drift[:16]) / np.median(np.asarray(candidate) * 2) < 1.1


def test_a_spike_in_one_round_does_not_move_the_verdict():
    baseline, candidate = rounds(np.random.default_rng(5), 1.3, noise=0.01)
    candidate[3] *= 50
    ratio, low, _ = ratio_interval(baseline, candidate)
    assert low > 1.2
    assert ratio == pytest.approx(1.3, rel=0.03)


def test_the_same_seed_gives_the_same_interval():
    pair = rounds(np.random.default_rng(6), 1.1)
    assert ratio_interval(*pair, seed=7) == ratio_interval(*pair, seed=7)


def test_one_round_says_nothing_about_the_interval():
    assert ratio_interval([2.0], [1.0]) == (2.0, 0.0, float("inf"))


@pytest.mark.parametrize(
    ("baseline", "candidate"), [([], []), ([1.0], [1.0, 2.0]), ([0.0, 1.0], [1.0, 1.0]), ([1.0], [float("nan")])]
)
def test_rounds_that_are_not_pairs_of_times_are_refused(baseline, candidate):
    with pytest.raises(ValueError, match="must be"):
        ratio_interval(baseline, candidate)
