"""A speed-up is tried on the board, and asked for anew in proportion, until it is surely reached."""

from __future__ import annotations

import pytest
from listeners import Heard

from edgeprune.errors import SpeedupError
from edgeprune.journal import Journal, Nobody
from edgeprune.plan import Budget, PruningPlan
from edgeprune.reaching import ROUNDS, Reached, reach
from edgeprune.trying import Tried


def plan_for(speedup: float, most: float = 10.0) -> PruningPlan:
    """A plan that says in its budget what it was made for, and keeps the fewer filters the faster it is."""
    if speedup > most:
        raise SpeedupError("at most 1 times as fast", most=most, fix="Ask for less.")
    kept = tuple(range(round(1000 / speedup)))
    return PruningPlan("f", "l1", {}, Budget(speedup=speedup), 8, {}, {"space": kept}, 0.5)


def asked_of(plan: PruningPlan) -> float:
    assert plan.budget.speedup is not None
    return plan.budget.speedup


class Pretended:
    """A board that reaches a share of what the table foretells, or the speeds that are named, one after the other.

    Attributes:
        learned: the plans whose times the table was corrected by.
        longer: the plans that were timed for longer.
    """

    def __init__(self, share: float = 1.0, speeds: tuple[float | None, ...] = (), uncut_ms: float = 60.0) -> None:
        self.share, self.speeds, self.uncut_ms = share, list(speeds), uncut_ms
        self.learned: list[float] = []
        self.longer: list[float] = []

    def tried(self, plan: PruningPlan, longer: bool = False) -> Tried | None:
        if longer:
            self.longer.append(asked_of(plan))
        ratio = self.speeds.pop(0) if self.speeds else self.share * asked_of(plan)
        if ratio is None:
            return None
        scatter = 0.01 if longer else 0.02
        return Tried(ratio, ((1 - scatter) * ratio, (1 + scatter) * ratio), self.uncut_ms)

    def learn(self, plan: PruningPlan) -> None:
        self.learned.append(asked_of(plan))

    def foretold(self, plan: PruningPlan) -> float:
        return asked_of(plan)


class Corrected(Pretended):
    """A board of which the table foretells the plan that was tried rightly once it has learned from it."""

    def foretold(self, plan: PruningPlan) -> float:
        return (self.share if asked_of(plan) in self.learned else 1.0) * asked_of(plan)


def found_by(board: Pretended, asked: float = 1.5, most: float = 10.0) -> Reached:
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
    assert str(found.trials[0]).startswith("solved for 1.5x, measured 1.35x")


def test_what_the_table_has_learned_is_not_asked_for_twice() -> None:
    found = found_by(Corrected(0.9))
    assert found.trials[1].solved_for == pytest.approx(1.5 / 0.98 * 1.01)


def test_the_last_round_asks_for_what_the_table_was_too_hopeful_of_in_the_round_before() -> None:
    found = found_by(Corrected(0.9))
    second, third = found.trials[1:]
    assert third.solved_for == pytest.approx(second.solved_for / 0.9)
    assert not found.missed


def test_a_plan_that_is_perhaps_fast_enough_is_timed_for_longer_and_that_time_alone_counts() -> None:
    journal = Heard()
    board = Pretended(speeds=(1.51, 1.52))
    found = reach(1.5, plan_for, board, lambda _: 1.5, Journal(journal))
    assert board.longer == [1.5]
    assert [(trial.measured, trial.ci95[0]) for trial in found.trials] == [(1.52, pytest.approx(0.99 * 1.52))]
    assert not found.missed
    assert not board.learned
    assert journal.lines == [
        "round 1: solved for 1.5x, measured 1.51x [1.48, 1.54]: perhaps, timed for longer",
        "round 1: solved for 1.5x, measured 1.52x [1.5, 1.54]",
    ]


def test_a_longer_time_that_does_not_confirm_the_plan_makes_another() -> None:
    found = found_by(Pretended(speeds=(1.51, 1.49, 1.6)))
    assert [trial.measured for trial in found.trials] == [1.49, 1.6]
    assert not found.missed


def test_where_the_board_is_too_busy_for_a_longer_time_the_shorter_one_counts() -> None:
    found = found_by(Pretended(speeds=(1.51, None, 1.6)))
    assert [trial.measured for trial in found.trials] == [1.51, 1.6]


def test_a_plan_that_is_too_slow_is_not_timed_for_longer() -> None:
    board = Pretended(speeds=(1.49, 1.6))
    found_by(board)
    assert not board.longer


def test_after_three_rounds_the_fastest_is_taken_and_the_miss_is_told() -> None:
    board = Pretended(speeds=(1.3, 1.45, 1.4))
    found = found_by(board)
    assert len(found.trials) == ROUNDS
    assert found.plan.budget.speedup == pytest.approx(found.trials[1].solved_for)
    assert found.missed == "asked for 1.5x, the fastest of 3 plans is 1.45x [1.42, 1.48]"
    assert len(board.learned) == ROUNDS - 1


def test_where_no_more_can_be_asked_for_the_fastest_is_tried_as_the_last() -> None:
    found = found_by(Pretended(0.9), most=1.6)
    assert [trial.solved_for for trial in found.trials] == [1.5, 1.6]
    assert asked_of(found.plan) == 1.6
    assert found.missed == "asked for 1.5x, the fastest of 2 plans is 1.44x [1.41, 1.47]"


def test_the_fastest_is_not_tried_twice() -> None:
    board = Pretended(0.9)
    found = found_by(board, most=1.5)
    assert len(found.trials) == 1
    assert found.missed


def test_what_the_table_holds_for_too_fast_is_tried_before_it_is_refused() -> None:
    found = found_by(Pretended(1.1), most=1.4)
    assert [trial.solved_for for trial in found.trials] == [1.4]
    assert not found.missed


def test_the_fastest_that_is_faster_than_asked_makes_room_for_one_that_loses_less() -> None:
    board = Corrected(2.0)
    found = reach(
        1.5, lambda speedup: plan_for(speedup, 4.0 if board.learned else 1.4), board, lambda _: 1.5, Journal(Nobody())
    )
    assert [round(trial.measured, 2) for trial in found.trials] == [2.8, 3.09]
    assert asked_of(found.plan) == pytest.approx(1.5 / 0.98 * 1.01)


def test_what_cannot_be_reached_at_all_is_an_error_that_says_what_was_measured() -> None:
    board = Pretended()
    with pytest.raises(SpeedupError, match=r"1 times as fast; measured, that plan is 1\.2x \[1\.18, 1\.22\]\n"):
        found_by(board, most=1.2)
    assert not board.learned


def test_what_cannot_be_reached_is_an_error_where_nothing_can_be_measured_or_cut_too() -> None:
    with pytest.raises(SpeedupError, match=r"1 times as fast\n"):
        found_by(Pretended(speeds=(None,)), most=1.2)
    with pytest.raises(SpeedupError, match=r"1 times as fast\n"):
        found_by(Pretended(), most=1.0)


def test_a_board_that_confirms_nothing_leaves_the_plan_as_it_was_foretold() -> None:
    found = found_by(Pretended(speeds=(None,)))
    assert found.trials == ()
    assert not found.missed


def test_a_time_is_asked_of_the_uncut_network_as_it_was_timed_in_the_same_run() -> None:
    board = Pretended(speeds=(1.6, 1.7), uncut_ms=66.0)
    found = reach(1.5, plan_for, board, lambda tried: tried.uncut_ms / 40.0, Journal(Nobody()))
    assert [round(trial.solved_for, 3) for trial in found.trials] == [1.5, 1.594]  # 1.6x would do for 60 ms, not for 66
    assert not found.missed
