"""The widths that cost least within a time, against every choice there is."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprune.prune import solve
from edgeprune.prune.solve import Problem, Term


def random_problem(seed: int, spaces: int, choices: int, tied: float) -> tuple[Problem, list[str]]:
    """Damage that grows and times that mostly fall with narrower widths, some layers between two spaces."""
    random = np.random.default_rng(seed)
    names = [f"s{place}" for place in range(spaces)]
    damage = {name: np.cumsum(random.exponential(size=choices)) - 0.1 for name in names}
    terms = [Term((name,), np.sort(random.exponential(size=choices))[::-1].copy()) for name in names]
    pairs = [pair for pair in itertools.combinations(names, 2) if random.random() < tied]
    terms += [Term(pair, random.exponential(size=(choices, choices))) for pair in pairs]
    return Problem(damage, terms, constant_ms=0.5), names


def every_choice(problem: Problem, names: list[str], choices: int) -> list[tuple[float, float]]:
    """Time and damage of all of them."""
    found = (dict(zip(names, each, strict=True)) for each in itertools.product(range(choices), repeat=len(names)))
    return [(problem.ms(choice), problem.damage(choice)) for choice in found]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    spaces=st.integers(1, 4),
    choices=st.integers(1, 4),
    tied=st.sampled_from([0.0, 0.5, 1.0]),
    share=st.floats(0.0, 1.0),
)
def test_no_choice_within_the_time_is_better_than_the_gap_says(
    seed: int, spaces: int, choices: int, tied: float, share: float
) -> None:
    problem, names = random_problem(seed, spaces, choices, tied)
    everything = every_choice(problem, names, choices)
    slowest, fastest = max(ms for ms, _ in everything), min(ms for ms, _ in everything)
    goal = fastest + share * (slowest - fastest) + 1e-12
    found = problem.solve(goal)
    assert found is not None
    assert found.ms <= goal
    best = min(damage for ms, damage in everything if ms <= goal)
    assert found.gap is not None
    assert found.damage - found.gap - 1e-9 <= best <= found.damage + 1e-9


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), spaces=st.integers(1, 4), choices=st.integers(1, 4))
def test_the_fastest_choice_is_the_fastest_of_all_and_less_time_cannot_be_had(
    seed: int, spaces: int, choices: int
) -> None:
    problem, names = random_problem(seed, spaces, choices, tied=0.5)
    least = min(ms for ms, _ in every_choice(problem, names, choices))
    assert problem.fastest().ms == pytest.approx(least)
    assert problem.solve(least * 0.999) is None


def test_a_width_that_costs_and_buys_no_time_is_never_chosen() -> None:
    """The second choice is as slow as the first: a stair. The third saves time."""
    problem = Problem({"a": np.array([0.0, 1.0, 2.0])}, [Term(("a",), np.array([3.0, 3.0, 1.0]))])
    assert [problem.solve(goal).choice["a"] for goal in (3.0, 2.9, 1.0)] == [0, 2, 2]  # type: ignore[union-attr]


def test_of_two_spaces_the_one_gives_way_that_loses_less_for_the_same_time() -> None:
    time = np.array([4.0, 2.0])
    problem = Problem(
        {"dear": np.array([0.0, 5.0]), "cheap": np.array([0.0, 1.0])}, [Term(("dear",), time), Term(("cheap",), time)]
    )
    found = problem.solve(6.0)
    assert found is not None
    assert found.choice == {"dear": 0, "cheap": 1}
    assert found.gap == pytest.approx(0.0, abs=1e-9)


def test_where_too_many_spaces_meet_a_choice_is_found_without_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    problem, _ = random_problem(3, spaces=4, choices=3, tied=1.0)
    goal = 1.5 * problem.fastest().ms
    exact = problem.solve(goal)
    monkeypatch.setattr(solve, "_MOST_ENTRIES", 5)
    found = problem.solve(goal)
    assert exact is not None
    assert found is not None
    assert found.gap is None
    assert found.ms <= goal
    assert found.damage >= exact.damage - (exact.gap or 0.0)


def test_a_hundred_spaces_in_a_chain_are_solved_to_within_a_hundredth() -> None:
    random = np.random.default_rng(0)
    names = [f"s{place}" for place in range(100)]
    widths = np.arange(16, 0, -1.0)
    damage = {name: random.exponential() * (16 / widths - 1) for name in names}
    terms = [Term(pair, 0.01 * np.outer(widths, widths)) for pair in itertools.pairwise(names)]
    problem = Problem(damage, terms)
    found = problem.solve(0.5 * problem.ms(dict.fromkeys(names, 0)))
    assert found is not None
    assert found.gap is not None
    assert found.gap < 0.01 * found.damage
