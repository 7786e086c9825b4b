"""A budget of time is solved on what the board foretells, and tried there."""

from __future__ import annotations

from dataclasses import replace

import pytest
import simulated_board

from edgeprune.criteria import configure
from edgeprune.cutting import traced
from edgeprune.deciding import decide_on
from edgeprune.inputs import named_model, named_photos
from edgeprune.journal import Journal, Nobody
from edgeprune.latency import Network, Variant
from edgeprune.plan import Budget, PruningPlan
from edgeprune.prune.shapes import Shapes
from edgeprune.prune.time_budget import foretold
from edgeprune.prune.timing import Times
from edgeprune.reaching import ROUNDS
from edgeprune.request import Request
from edgeprune.target import load_target
from edgeprune.trying import Tried, widths_of
from edgeprune.variants import choices_of, variants_of

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

    def tried(self, plan: PruningPlan, longer: bool = False) -> Tried:
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
    assert found.notes[0].startswith("Round 1: solved for 1.5x, measured 1.")
    assert {len(kept) % target.channel_multiple for kept in found.plan.keep.values()} == {0}
    whole, cut = (simulated_board.call_ms(shapes, widths) + MORE_MS for widths in ({}, widths_of(found.plan)))
    assert last.measured == pytest.approx(whole / cut)
