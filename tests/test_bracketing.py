"""The largest speed-up that keeps the accuracy is narrowed down from both sides, precision by precision."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprune.bracketing import NEAR, ROUNDS, fastest, search
from edgeprune.errors import BudgetError
from edgeprune.journal import Journal, Nobody
from edgeprune.plan import Budget, PruningPlan
from edgeprune.report.front import Candidate
from edgeprune.report.scores import Change

FP32 = ("fp32",)
BOTH = ("fp32", "int8")


class Pretended:
    """A network that keeps its accuracy up to a limit of its own in each precision, on a board.

    Attributes:
        limits: precision -> the largest foretold speed-up that keeps the accuracy; below 1: none does, uncut too.
        factors: precision -> how many times as fast as fp32 a file is; empty where nothing can be timed.
        steps: of the speed-ups that plans can have, as a ratio; 1 for any.
        asked: the speed-ups that were judged, with their precisions.
        shares: of an int8 file's layers that might stay in float, each time.
    """

    def __init__(
        self,
        limits: Mapping[str, float],
        factors: Mapping[str, float],
        most: float = 6.0,
        steps: float = 1.0,
        busy: Sequence[int] = (),
    ) -> None:
        self.limits, self.factors, self.most, self.steps, self.busy = limits, factors, most, steps, busy
        self.asked: list[tuple[float, tuple[str, ...]]] = []
        self.shares: list[float] = []

    def plan(self, speedup: float) -> PruningPlan:
        if speedup > self.most:
            raise BudgetError("cannot be reached")
        reached = self.steps ** math.ceil(math.log(speedup, self.steps)) if self.steps > 1 else speedup
        return PruningPlan(f"{reached}", "l1", {}, Budget(speedup=reached), 8, {}, {}, 1 / reached)

    def foretold(self, plan: PruningPlan) -> float:
        assert plan.budget.speedup is not None
        return plan.budget.speedup

    def judged(
        self, number: int, speedup: float, plan: PruningPlan | None, precisions: Sequence[str], in_float: float = 1.0
    ) -> tuple[Candidate, ...]:
        self.asked.append((speedup, tuple(precisions)))
        self.shares.append(in_float)
        reached = self.foretold(plan) if plan else 1.0
        found: list[Candidate] = []
        for name in precisions:
            fits = reached <= self.limits[name]
            ratio = self.factors[name] * reached if self.factors and number not in self.busy else None
            if plan is None and name == "fp32":
                fits, ratio = True, 1.0
            found.append(
                Candidate(
                    round=number,
                    solved_for=speedup,
                    plan=plan.fingerprint if plan else "",
                    precision=name,
                    macs=1 / reached,
                    change=Change(0.0 if fits else -0.1, (-0.2, 0.1)),
                    fits=fits,
                    foretold=reached if name == "fp32" else None,
                    measured=ratio,
                    ci95=(ratio, ratio) if plan is None and name == "fp32" else ratio and (0.99 * ratio, 1.01 * ratio),
                )
            )
            if name == "fp32" and not fits:
                break
        return tuple(found)


def walked(network: Pretended, precisions: Sequence[str] = FP32) -> tuple[Candidate, tuple[Candidate, ...]]:
    found = search(network, precisions, Journal(Nobody()))
    (chosen,) = [one for one in found if one.chosen]
    return chosen, found


@given(limit=st.floats(1.1, 5.9), most=st.floats(6.0, 10.0))
def test_the_fastest_that_keeps_the_accuracy_is_found_to_a_few_percent_in_a_few_rounds(
    limit: float, most: float
) -> None:
    network = Pretended({"fp32": limit}, {"fp32": 1.0}, most)
    chosen, found = walked(network)
    assert chosen.fits
    assert chosen.measured == max(one.measured for one in found if one.fits and one.measured)
    assert limit / 1.04 <= (chosen.measured or 0) <= limit
    assert max(one.round for one in found) <= ROUNDS


@given(
    limits=st.tuples(st.floats(1.0, 6.0), st.floats(0.5, 6.0)),
    factor=st.floats(0.5, 4.0),
    steps=st.sampled_from([1.0, 1.07, 1.4, 2.5]),
    busy=st.sets(st.integers(1, ROUNDS), max_size=3),
)
def test_what_is_chosen_keeps_the_accuracy_and_nothing_that_does_was_surely_faster(
    limits: tuple[float, float], factor: float, steps: float, busy: set[int]
) -> None:
    fp32, int8 = limits
    network = Pretended({"fp32": fp32, "int8": min(fp32, int8)}, {"fp32": 1.0, "int8": factor}, 6.0, steps, tuple(busy))
    chosen, found = walked(network, BOTH)
    assert chosen.fits
    assert chosen.ci95 is not None
    assert chosen.ci95[0] == max(one.ci95[0] for one in found if one.fits and one.ci95)
    assert len({one.round for one in found}) <= ROUNDS + 1
    assert len({(one.plan, one.precision) for one in found}) == len(found)  # nothing is tried twice


def test_precisions_share_the_budget_and_the_one_that_can_win_decides_what_is_asked() -> None:
    network = Pretended({"fp32": 2.0, "int8": 1.5}, {"fp32": 1.0, "int8": 3.0})
    chosen, found = walked(network, BOTH)
    assert chosen.precision == "int8"
    assert chosen.plan
    assert 4.5 / 1.05 <= (chosen.measured or 0) <= 4.5
    # Cut for 2x, fp32 cannot beat int8 uncut: nothing is asked that tells of fp32 alone.
    assert all("int8" in precisions for _, precisions in network.asked)
    assert len(found) < 2 * (ROUNDS + 1)


def test_fp32_wins_where_int8_costs_too_much_however_fast_it_is() -> None:
    network = Pretended({"fp32": 2.0, "int8": 0.9}, {"fp32": 1.0, "int8": 3.0})
    chosen, _ = walked(network, BOTH)
    assert chosen.precision == "fp32"
    assert 2.0 / 1.05 <= (chosen.measured or 0) <= 2.0
    assert [precisions for _, precisions in network.asked[1:]] == [FP32] * (len(network.asked) - 1)


def test_a_precision_that_is_not_surely_faster_uncut_is_tried_no_further() -> None:
    network = Pretended({"fp32": 2.0, "fp16": 2.0}, {"fp32": 1.0, "fp16": 1.005})
    chosen, _ = walked(network, ("fp32", "fp16"))
    assert (chosen.precision, network.asked[0][1]) == ("fp32", ("fp32", "fp16"))
    assert {precisions for _, precisions in network.asked[1:]} == {FP32}


def test_where_no_cut_fits_the_best_precision_of_the_uncut_network_is_taken() -> None:
    chosen, found = walked(Pretended({"fp32": 1.0, "int8": 1.0}, {"fp32": 1.0, "int8": 2.0}), BOTH)
    assert (chosen.plan, chosen.precision) == ("", "int8")
    assert not any(one.fits for one in found if one.plan)


def test_where_nothing_is_surely_faster_the_reference_is_taken() -> None:
    chosen, _ = walked(Pretended({"fp32": 4.0, "int8": 4.0}, {"fp32": 0.2, "int8": 0.3}), BOTH)
    assert chosen.is_reference


def test_a_cut_that_costs_too_much_in_fp32_is_tried_in_nothing_else() -> None:
    network = Pretended({"fp32": 1.2, "int8": 1.2}, {"fp32": 1.0, "int8": 2.0})
    _, found = walked(network, BOTH)
    too_much = {one.round for one in found if one.precision == "fp32" and not one.fits}
    assert too_much
    assert not [one for one in found if one.round in too_much and one.precision == "int8"]


def test_no_more_layers_of_an_int8_file_stay_in_float_than_leave_it_the_fastest() -> None:
    network = Pretended({"fp32": 2.0, "int8": 1.5}, {"fp32": 1.0, "int8": 3.0})
    walked(network, BOTH)
    (first, _), second = network.asked[1], network.shares[1]
    assert network.shares[0] == 1.0  # of the uncut network nothing is known yet
    # A share f in float of a cut for 2.45x takes (f + (1 - f) / 3) / 2.45 of the time; uncut in int8 takes 1 / 3.
    assert (second + (1 - second) / 3) / first == pytest.approx(1 / 3)
    assert all(0 <= share <= 1 for share in network.shares)
    assert min(network.shares[2:]) < 0.5


def test_where_int8_is_no_faster_any_layer_may_stay_in_float() -> None:
    network = Pretended({"fp32": 2.0, "int8": 2.0}, {"fp32": 1.0, "int8": 0.9})
    walked(network, BOTH)
    assert set(network.shares) == {1.0}


def test_steps_of_the_table_are_not_tried_twice() -> None:
    network = Pretended({"fp32": 3.0}, {"fp32": 1.0}, steps=2.0)
    chosen, found = walked(network)
    assert chosen.measured == pytest.approx(2.0)
    assert sorted(round(1 / one.macs) for one in found) == [1, 2, 4]


def test_where_nothing_can_be_timed_all_precisions_must_keep_the_accuracy() -> None:
    chosen, found = walked(Pretended({"fp32": 3.0, "int8": 1.5}, {}), BOTH)
    assert all(one.measured is None for one in found if not one.is_reference)
    assert (chosen.precision, chosen.measured) == ("fp32", None)
    assert 1.5 / 1.05 <= (chosen.foretold or 0) <= 1.5


def test_where_nothing_can_be_timed_and_nothing_fits_the_reference_is_taken() -> None:
    chosen, _ = walked(Pretended({"fp32": 1.0, "int8": 1.0}, {}), BOTH)
    assert chosen.is_reference


def test_a_round_on_a_busy_board_costs_its_candidates_and_no_more() -> None:
    chosen, found = walked(Pretended({"fp32": 2.0}, {"fp32": 1.0}, busy=(1, 2)))
    assert chosen.round > 2
    assert 2.0 / 1.05 <= (chosen.measured or 0) <= 2.0
    assert {one.round for one in found if one.measured is None} == {1, 2}


def test_a_network_that_can_become_no_faster_is_not_cut() -> None:
    network = Pretended({"fp32": 9.0}, {"fp32": 1.0}, most=1.0 + (NEAR - 1) / 2)
    chosen, found = walked(network)
    assert (chosen.is_reference, len(found)) == (True, 1)


def test_each_round_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    class Heard(Nobody):
        def say(self, line: str) -> None:
            print(line)

    search(Pretended({"fp32": 2.0}, {"fp32": 1.0}), FP32, Journal(Heard()))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "uncut: fp32 1x"
    assert lines[1].startswith("round 1, cut for 2.45x: fp32 2.45x [2.42, 2.47], -10.0 [-20.0, +10.0] points, too much")


def test_the_fastest_is_judged_by_the_lower_end_of_its_interval() -> None:
    sure = Candidate(1, 1.5, "a", "fp32", 0.5, Change(0.0, (0.0, 0.0)), True, 1.5, 1.5, (1.45, 1.55))
    wild = Candidate(1, 1.5, "a", "int8", 0.5, Change(0.0, (0.0, 0.0)), True, None, 1.7, (1.1, 2.3))
    assert fastest([sure, wild], BOTH) is sure
