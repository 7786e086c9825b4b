"""The statistics, on timings we construct ourselves: the method is tested here, not the clock."""

from __future__ import annotations

import math

import numpy as np
import pytest

from edgeprune.stats import (
    detectable_change,
    median,
    paired_difference,
    percentile,
    ratio_interval,
    robust_spread,
    unpaired_ratio_interval,
    verdict_of,
)


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


def test_the_interval_is_that_of_the_signed_rank_table():
    # Six rounds: the extremes, at 96.9 %. Ten: the 9th of 55 means of pairs (Hollander, Wolfe & Chicken, table A.4).
    ratios = np.exp([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    assert np.log(ratio_interval(list(ratios), [1.0] * 6)) == pytest.approx([0.35, 0.1, 0.6])
    logs = np.random.default_rng(7).standard_normal(10)
    means = sorted((logs[i] + logs[j]) / 2 for i in range(10) for j in range(i, 10))
    assert np.log(ratio_interval(list(np.exp(logs)), [1.0] * 10)[1:]) == pytest.approx([means[8], means[-9]])


@pytest.mark.parametrize("count", [1, 2, 5])
def test_few_rounds_say_nothing_about_the_interval(count):
    assert ratio_interval([2.0] * count, [1.0] * count) == (pytest.approx(2.0), 0.0, float("inf"))


@pytest.mark.slow
def test_many_rounds_are_no_trouble():
    ratio, low, high = ratio_interval(*rounds(np.random.default_rng(8), 1.3, count=1500))
    assert 1.29 < low < ratio < high < 1.31


def test_swapping_the_files_turns_the_interval_over():
    baseline, candidate = rounds(np.random.default_rng(9), 1.2)
    ratio, low, high = ratio_interval(baseline, candidate)
    assert ratio_interval(candidate, baseline) == pytest.approx((1 / ratio, 1 / high, 1 / low))


def test_runs_on_different_days_are_compared_without_pairing():
    rng = np.random.default_rng(10)
    baseline, candidate = rounds(rng, 1.3, count=20)
    ratio, low, high = unpaired_ratio_interval(baseline, candidate[:12])
    assert 1.2 < low < ratio < high < 1.4
    shuffled = list(rng.permutation(candidate[:12]))
    assert unpaired_ratio_interval(baseline, shuffled) == pytest.approx((ratio, low, high))
    assert unpaired_ratio_interval([2.0], [1.0]) == (pytest.approx(2.0), 0.0, float("inf"))


def test_the_detectable_change_is_a_little_wider_than_half_the_interval():
    assert detectable_change(0.98, 1.02) == pytest.approx(0.029, abs=0.001)
    assert detectable_change(1.96, 2.04) == pytest.approx(detectable_change(0.98, 1.02))
    assert detectable_change(0.0, float("inf")) == float("inf")


@pytest.mark.parametrize(
    ("baseline", "candidate"), [([], []), ([1.0], [1.0, 2.0]), ([0.0, 1.0], [1.0, 1.0]), ([1.0], [float("nan")])]
)
def test_rounds_that_are_not_pairs_of_times_are_refused(baseline, candidate):
    with pytest.raises(ValueError, match="must be"):
        ratio_interval(baseline, candidate)


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (1.01, 1.2, "faster"),
        (0.8, 0.99, "slower"),
        (0.99, 1.2, "no significant difference"),
        (1.0, 1.2, "no significant difference"),
    ],
)
def test_the_verdict_follows_from_the_interval(low, high, words):
    assert verdict_of(low, high) == words


def test_the_interval_of_a_paired_difference_by_hand():
    """10 gained and 30 lost of 100: (10.5 - 30.5) / 102 = -0.196, standard error sqrt(41/102 - 0.0384) / sqrt(102)."""
    low, high = paired_difference(10, 30, 100)
    centre, half = -20 / 102, 1.959964 * math.sqrt((41 / 102 - (20 / 102) ** 2) / 102)
    assert (low, high) == pytest.approx((centre - half, centre + half), rel=1e-6)
    assert paired_difference(0, 0, 10)[0] < 0 < paired_difference(0, 0, 10)[1]
    assert paired_difference(0, 1, 1)[0] >= -1


@pytest.mark.parametrize("counts", [(-1, 0, 5), (3, 3, 5), (0, 0, 0)])
def test_counts_that_do_not_fit_together_have_no_difference(counts):
    with pytest.raises(ValueError, match="of"):
        paired_difference(*counts)


@pytest.mark.parametrize(("gain", "loss", "total"), [(0.05, 0.10, 500), (0.01, 0.02, 200), (0.0, 0.03, 300)])
def test_the_interval_of_a_paired_difference_holds_the_true_one_in_about_95_of_100_trials(gain, loss, total):
    random = np.random.default_rng(0)
    counts = random.multinomial(total, [gain, loss, 1 - gain - loss], size=4000)
    intervals = [paired_difference(int(gained), int(lost), total) for gained, lost, _ in counts]
    held = np.mean([low <= gain - loss <= high for low, high in intervals])
    assert 0.93 <= held <= 0.985
