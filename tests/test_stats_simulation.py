"""The interval of a speed-up, tried on timings whose true speed-up is known; docs/decisions/0005 has the figures."""

from __future__ import annotations

import numpy as np
import pytest
from simulated_timings import CALLS, KINDS, blocks, calls

from edgeprune.bench.session import ROUNDS
from edgeprune.stats import MIN_ROUNDS, ratio_interval

TRIALS = 2000


def share_inside(kind: str, ratio: float, rounds: int, trials: int) -> float:
    """In how large a share of runs the 95 % interval holds the true ratio."""
    rng, inside = np.random.default_rng([KINDS.index(kind), rounds]), 0
    for _ in range(trials):
        _, low, high = ratio_interval(*blocks(rng, kind, ratio, rounds))
        inside += low <= ratio <= high
    return inside / trials


def naive_share_inside(kind: str, trials: int) -> float:
    """The same for 50 calls of one file and then 50 of the other, means compared, with Welch's normal interval."""
    rng, inside = np.random.default_rng(1), 0
    for _ in range(trials):
        first, second = (calls(rng, kind, np.arange(at, at + 3), 32).ravel()[:50] for at in (0, 16))
        difference = first.mean() - second.mean()
        inside += abs(difference) <= 1.96 * np.sqrt(first.var(ddof=1) / 50 + second.var(ddof=1) / 50)
    return inside / trials


@pytest.mark.parametrize("kind", KINDS)
def test_the_interval_holds_the_truth_about_as_often_as_it_says(kind):
    # Three standard errors around 93 to 97 %: 400 trials cannot tell more.
    assert 0.93 - 0.04 <= share_inside(kind, 1.3, ROUNDS, 400) <= 0.97 + 0.03


@pytest.mark.slow
@pytest.mark.parametrize("rounds", [ROUNDS, 2 * ROUNDS])
@pytest.mark.parametrize("kind", KINDS)
def test_the_interval_holds_the_truth_in_93_to_97_of_100_runs(kind, rounds):
    assert 0.93 <= share_inside(kind, 1.3, rounds, TRIALS) <= 0.97


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_file_against_itself_is_called_different_in_at_most_5_of_100_runs(kind):
    assert 1 - share_inside(kind, 1.0, ROUNDS, 5 * TRIALS) <= 0.05  # 2,000 would leave it to chance


@pytest.mark.slow
def test_the_fewest_rounds_allowed_promise_no_more_than_they_hold():
    assert all(share_inside(kind, 1.0, MIN_ROUNDS, TRIALS) >= 0.95 for kind in KINDS)


@pytest.mark.parametrize("kind", ["drift", "modes", "all"])
def test_one_file_after_the_other_calls_equal_files_different_in_many_runs(kind):
    assert CALLS == 20  # 50 calls are about three blocks
    assert naive_share_inside(kind, 400) < 0.7
