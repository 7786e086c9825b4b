"""A speed-up is tried on the board, and asked for anew in proportion, until it is surely reached."""

from __future__ import annotations

from types import MappingProxyType

import pytest

from edgeprune.bench.compare import Comparison
from edgeprune.deciding import ROUNDS, reach
from edgeprune.errors import BudgetError
from edgeprune.journal import Journal, Nobody
from edgeprune.plan import Budget, PruningPlan


def plan_for(speedup: float, most: float = 10.0) -> PruningPlan:
    """A plan that says in its budget what it was made for."""
    if speedup > most:
        raise BudgetError("cannot be reached")
    return PruningPlan("f", "l1", {}, Budget(speedup=speedup), 8, {}, {}, 0.5)


def comparison(ratio: float) -> Comparison:
    ends = (0.98 * ratio, 1.02 * ratio)
    return Comparison("uncut", "cut", "onnxruntime", 1, ratio, ends, "faster", 16, 0.01, MappingProxyType({}))


def asked_of(plan: PruningPlan) -> float:
    assert plan.budget.speedup is not None
    return plan.budget.speedup


def tried_at(share: float):
    """A board that reaches a share of what the table foretells."""
    return lambda plan: comparison(share * asked_of(plan))


def test_a_plan_that_is_fast_enough_is_taken_at_once() -> None:
    found = reach(1.5, plan_for(1.5), plan_for, tried_at(1.1), asked_of, Journal(Nobody()))
    assert asked_of(found.plan) == 1.5
    assert len(found.trials) == 1
    assert not found.missed


def test_a_slower_board_is_asked_for_more_until_the_lower_end_reaches_what_was_asked() -> None:
    found = reach(1.5, plan_for(1.5), plan_for, tried_at(0.9), asked_of, Journal(Nobody()))
    assert [round(trial.solved_for, 3) for trial in found.trials] == [1.5, 1.701]
    assert found.trials[-1].ci95[0] == pytest.approx(1.5)
    assert not found.missed


def test_after_three_rounds_the_fastest_is_taken_and_the_miss_is_told() -> None:
    speeds = iter([1.3, 1.45, 1.4])
    journal = Journal(Nobody())
    found = reach(1.5, plan_for(1.5), plan_for, lambda _: comparison(next(speeds)), asked_of, journal)
    assert len(found.trials) == ROUNDS
    assert found.plan.budget.speedup == pytest.approx(found.trials[1].solved_for)
    assert found.missed == "asked for 1.5x, the fastest of 3 plans is 1.45x [1.42, 1.48]"


def test_where_no_more_can_be_asked_for_what_was_found_is_taken() -> None:
    def few(speedup: float) -> PruningPlan:
        return plan_for(speedup, most=1.6)

    found = reach(1.5, few(1.5), few, tried_at(0.9), asked_of, Journal(Nobody()))
    assert len(found.trials) == 1
    assert found.missed


def test_a_busy_machine_confirms_nothing_and_the_report_says_so() -> None:
    journal = Journal(Nobody())
    found = reach(1.5, plan_for(1.5), plan_for, lambda _: None, asked_of, journal)
    assert found.trials == ()
    assert not found.missed
    assert "too busy to confirm" in journal.warnings[0]
