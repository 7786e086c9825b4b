"""Widths: where filters go, if it is known what each space loses by them."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprune.prune.widths import least_damage

SIZES = {"a": 8, "b": 8, "c": 4}
STEPS = {name: list(range(1, size + 1)) for name, size in SIZES.items()}


def macs_at(widths) -> float:
    """A chain: image -> a -> b -> c -> classes."""
    cost = 3 * widths["a"] + widths["a"] * widths["b"] + widths["b"] * widths["c"] + 10 * widths["c"]
    return cost / (3 * 8 + 8 * 8 + 8 * 4 + 10 * 4)


def falling(steps: list[float]) -> np.ndarray:
    """Damage by width from what each step costs, the last filter's first."""
    return np.array([*np.cumsum(steps)[::-1], 0.0])


costs = st.floats(0, 10, allow_nan=False)
damages = st.fixed_dictionaries(
    {name: st.lists(costs, min_size=size, max_size=size).map(falling) for name, size in SIZES.items()}
)


@settings(max_examples=200, deadline=None)
@given(damages, st.floats(0.1, 0.99))
def test_the_budget_is_kept_and_no_filter_is_left_out_that_would_fit(damage, goal):
    widths = least_damage(damage, goal, STEPS, macs_at)
    assert macs_at(widths) <= goal
    for name, width in widths.items():
        assert width in STEPS[name]
        if width < SIZES[name]:
            assert macs_at({**widths, name: width + 1}) > goal


@settings(max_examples=100, deadline=None)
@given(
    st.fixed_dictionaries(
        {name: st.lists(costs, min_size=size, max_size=size).map(sorted).map(falling) for name, size in SIZES.items()}
    ),
    st.floats(0.3, 0.95),
)
def test_it_is_near_the_best_of_all_choices_where_each_filter_costs_more_than_the_last(damage, goal):
    """Within the dearest single steps: greedy is blind to how the last of the budget is best used."""

    def total(widths) -> float:
        return sum(float(damage[name][width]) for name, width in widths.items())

    choices = (dict(zip(STEPS, widths, strict=True)) for widths in product(*STEPS.values()))
    least = min(total(widths) for widths in choices if macs_at(widths) <= goal)
    dearest = sum(float(-np.diff(damage[name]).min()) for name in SIZES)
    assert total(least_damage(damage, goal, STEPS, macs_at)) <= least + dearest


def test_a_space_that_costs_nothing_goes_first_and_a_dear_one_stays():
    damage = {"a": np.zeros(9), "b": 100.0 * np.arange(8, -1, -1), "c": np.arange(4, -1, -1.0)}
    widths = least_damage(damage, 0.7, STEPS, macs_at)
    assert widths["b"] == 8
    assert widths["a"] < 8


def test_a_dear_first_step_is_no_barrier_before_cheap_ones():
    cliff = np.array([9.0, 5.0, 5.0, 5.0, 5.0, 5.0, 5.0, 5.0, 0.0])
    damage = {"a": cliff, "b": 2.0 * np.arange(8, -1, -1), "c": 100.0 * np.arange(4, -1, -1)}
    assert least_damage(damage, 0.6, STEPS, macs_at)["a"] <= 2


@pytest.mark.parametrize("goal", [1.0, 0.999])
def test_all_stay_where_all_may(goal):
    damage = {name: np.arange(size, -1, -1.0) for name, size in SIZES.items()}
    widths = least_damage(damage, goal, STEPS, macs_at)
    assert sum(SIZES.values()) - sum(widths.values()) == (goal < 1)
