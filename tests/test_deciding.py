"""A speed-up is tried on the board, and asked for anew in proportion, until it is surely reached."""

from __future__ import annotations

from dataclasses import replace

import pytest
import simulated_board

from edgeprune.criteria import configure
from edgeprune.cutting import traced
from edgeprune.deciding import ROUNDS, Decision, decide_on, reach
from edgeprune.errors import BudgetError
from edgeprune.inputs import named_model, named_photos
from edgeprune.journal import Journal, Nobody
from edgeprune.latency import Network, Variant
from edgeprune.plan import Budget, PruningPlan
from edgeprune.prune.shapes import Shapes
from edgeprune.prune.time_budget import foretold
from edgeprune.prune.timing import Times
from edgeprune.request import Request
from edgeprune.target import load_target
from edgeprune.trying import Tried, widths_of
from edgeprune.variants import choices_of, variants_of


def plan_for(speedup: float, most: float = 10.0) -> PruningPlan:
    """A plan that says in its budget what it was made for."""
    if speedup > most:
        raise BudgetError("cannot be reached")
    return PruningPlan("f", "l1", {}, Budget(speedup=speedup), 8, {}, {}, 0.5)


def asked_of(plan: PruningPlan) -> float:
    assert plan.budget.speedup is not None
    return plan.budget.speedup


class Pretended:
    """A board that reaches a share of what the table foretells, or the speeds that are named, one after the other.

    Attributes:
        learned: the plans whose times the table was corrected by.
    """

    def __init__(self, share: float = 1.0, speeds: tuple[float | None, ...] = (), uncut_ms: float = 60.0) -> None:
        self.share, self.speeds, self.uncut_ms = share, list(speeds), uncut_ms
        self.learned: list[float] = []

    def tried(self, plan: PruningPlan) -> Tried | None:
        ratio = self.speeds.pop(0) if self.speeds else self.share * asked_of(plan)
        if ratio is None:
            return None
        return Tried(ratio, (0.98 * ratio, 1.02 * ratio), self.uncut_ms)

    def learn(self, plan: PruningPlan) -> None:
        self.learned.append(asked_of(plan))

    def foretold(self, plan: PruningPlan) -> float:
        return asked_of(plan)


class Corrected(Pretended):
    """A board of which the table foretells the plan that was tried rightly once it has learned from it."""

    def foretold(self, plan: PruningPlan) -> float:
        return (self.share if asked_of(plan) in self.learned else 1.0) * asked_of(plan)


def found_by(board: Pretended, asked: float = 1.5, most: float = 10.0) -> Decision:
    return reach(asked, lambda speedup: plan_for(speedup, most), board, lambda _: asked, Journal(Nobody()))


def test_a_plan_that_is_fast_enough_is_taken_at_once() -> None:
    board = Pretended(1.1)
    found = found_by(board)
    assert asked_of(found.plan) == 1.5
    assert len(found.trials) == 1
    assert not found.missed
    assert not board.learned


def test_a_slower_board_is_asked_for_more_until_the_lower_end_reaches_what_was_asked() -> None:
    board = Pretended(0.9)
    found = found_by(board)
    assert [round(trial.solved_for, 3) for trial in found.trials] == [1.5, 1.718]
    # 1.5 / 0.9 would be 1.5x on the average; its lower end is 2 % below that, and a quarter of the width is to spare.
    assert found.trials[-1].ci95[0] == pytest.approx(1.5 * 1.01)
    assert not found.missed
    assert board.learned == [1.5]
    assert found.notes[0].startswith("Round 1: solved for 1.5x, measured 1.35x")


def test_what_the_table_has_learned_is_not_asked_for_twice() -> None:
    found = found_by(Corrected(0.9))
    assert found.trials[1].solved_for == pytest.approx(1.5 / 0.98 * 1.01)


def test_after_three_rounds_the_fastest_is_taken_and_the_miss_is_told() -> None:
    board = Pretended(speeds=(1.3, 1.45, 1.4))
    found = found_by(board)
    assert len(found.trials) == ROUNDS
    assert found.plan.budget.speedup == pytest.approx(found.trials[1].solved_for)
    assert found.missed == "asked for 1.5x, the fastest of 3 plans is 1.45x [1.42, 1.48]"
    assert len(board.learned) == ROUNDS - 1


def test_where_no_more_can_be_asked_for_what_was_found_is_taken() -> None:
    found = found_by(Pretended(0.9), most=1.6)
    assert len(found.trials) == 1
    assert found.missed


def test_what_cannot_be_reached_at_all_is_an_error() -> None:
    with pytest.raises(BudgetError):
        found_by(Pretended(), most=1.2)


def test_a_board_that_confirms_nothing_leaves_the_plan_as_it_was_foretold() -> None:
    found = found_by(Pretended(speeds=(None,)))
    assert found.trials == ()
    assert not found.missed


def test_a_time_is_asked_of_the_uncut_network_as_it_was_timed_in_the_same_run() -> None:
    board = Pretended(speeds=(1.6, 1.7), uncut_ms=66.0)
    found = reach(1.5, plan_for, board, lambda tried: tried.uncut_ms / 40.0, Journal(Nobody()))
    assert [round(trial.solved_for, 3) for trial in found.trials] == [1.5, 1.594]  # 1.6x would do for 60 ms, not for 66
    assert not found.missed


MORE_MS = 0.5
"""What a call takes on the board beside what the table was made of."""


class Slower:
    """The simulated board, each call of it longer by a part that no cut makes shorter; what it times is exact."""

    def __init__(self, shapes: Shapes, table: Network) -> None:
        self._shapes, self._table = shapes, table

    @property
    def times(self) -> Times:
        return Times(self._shapes, self._table)

    def _timed(self, plan: PruningPlan) -> Variant:
        found = simulated_board.variant_at(self._shapes, widths_of(plan))
        return replace(found, ms=found.ms + MORE_MS, uncut_ms=found.uncut_ms + MORE_MS)

    def tried(self, plan: PruningPlan) -> Tried:
        found = self._timed(plan)
        ratio = found.uncut_ms / found.ms
        return Tried(ratio, (ratio, ratio), found.uncut_ms)

    def learn(self, plan: PruningPlan) -> None:
        self._table = replace(self._table, variants=(*self._table.variants, self._timed(plan)))

    def foretold(self, plan: PruningPlan) -> float:
        return foretold(self.times, widths_of(plan))


def test_plans_are_solved_on_tried_on_and_corrected_by_whatever_board_is_given() -> None:
    request, journal, target = Request(budget=Budget(speedup=1.5)), Journal(Nobody()), load_target("rpi4")
    uncut = traced(named_model(request, journal), journal)
    shapes = Shapes(uncut.program, uncut.channel_map)
    table = simulated_board.network(shapes, variants_of(choices_of(uncut, "inner", target.channel_multiple)))
    asked = (request, uncut, named_photos(request, uncut.model, journal), configure("l1", {}), target, journal)
    found = decide_on(Slower(shapes, table), *asked)
    first, *_, last = found.trials
    assert 1 < len(found.trials) <= ROUNDS
    assert first.measured < 1.5 <= last.measured
    assert first.foretold >= 1.5
    assert not found.missed
    assert found.plan.budget == request.budget
    assert {len(kept) % target.channel_multiple for kept in found.plan.keep.values()} == {0}
    whole, cut = (simulated_board.call_ms(shapes, widths) + MORE_MS for widths in ({}, widths_of(found.plan)))
    assert last.measured == pytest.approx(whole / cut)
