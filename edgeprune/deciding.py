"""Which filters stay: scored, allocated to the budget, and where that is a time, tried on the board first."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from edgeprune.criteria import Criterion
from edgeprune.cutting import Traced
from edgeprune.errors import BudgetError
from edgeprune.inputs import Photos
from edgeprune.journal import Journal
from edgeprune.latency import Conditions, LatencyTable
from edgeprune.plan import Budget, PruningPlan
from edgeprune.prune.allocate import Scope, Scored, allocate, left_whole
from edgeprune.prune.prior import Prior
from edgeprune.prune.score import Scorer
from edgeprune.prune.shapes import Shapes
from edgeprune.prune.time_budget import foretold
from edgeprune.prune.timing import Times
from edgeprune.reaching import Trial, reach
from edgeprune.report.front import Front
from edgeprune.report.machines import machine_name
from edgeprune.request import Request
from edgeprune.target import Target
from edgeprune.trying import Board, Tried, Tries, facts_of, widths_of
from edgeprune.variants import VariantFiles, choices_of, variant


@dataclass(frozen=True, eq=False)
class Decision:
    """What was decided.

    Attributes:
        plan: which filters stay.
        trials: of plans for a speed-up, in order; empty for other budgets, and where nothing could be tried.
        missed: why the speed-up that was asked for is not reached; empty if it is, or was not asked for.
        conditions: under which plans were tried; None where none were.
        predicted: where the board is not at hand, see `edgeprune.report.parts.BudgetFacts.predicted`; else empty.
        front: what was tried for an accuracy that alone was asked for, see `edgeprune.fastest`; else None.
    """

    plan: PruningPlan
    trials: tuple[Trial, ...] = ()
    missed: str = ""
    conditions: Conditions | None = None
    predicted: Mapping[str, float | str] = field(default_factory=dict)
    front: Front | None = None

    @property
    def notes(self) -> tuple[str, ...]:
        """The trials, one sentence each, or what was chosen of the front."""
        rounds = tuple(f"Round {number}: {trial}" for number, trial in enumerate(self.trials, start=1))
        return (*rounds, *(self.front.sentences() if self.front else ()))


def decide(
    request: Request,
    uncut: Traced,
    photos: Photos,
    criterion: Criterion,
    target: Target,
    times: LatencyTable | Prior | None,
    journal: Journal,
) -> Decision:
    """Score the filters and decide which stay.

    Args:
        request: says how much is to go.
        uncut: the network.
        photos: to score filters on.
        criterion: that scores them.
        target: the board.
        times: of it, that a budget of time is solved on: measured, or predicted; None for other budgets.
        journal: told of each step.

    Raises:
        BudgetError: the budget cannot be reached.
        EdgepruneError: the table knows nothing of this network, or the board cannot be reached.
    """
    if isinstance(times, LatencyTable):
        why_not = untried(request, times.conditions)
        with tempfile.TemporaryDirectory(prefix="edgeprune-") as folder:
            files = VariantFiles(Path(folder), uncut, target, times.conditions.format, journal)
            shapes = Shapes(uncut.program, uncut.channel_map)
            board = Board(request.device or "local", times, shapes, files, request.allow_mixed, journal)
            found = decide_on(board, request, uncut, photos, criterion, target, journal, why_not)
        return found if why_not else replace(found, conditions=times.conditions)
    scored = scored_filters(request, request.budget.share, uncut, photos, criterion, journal)
    if times is None:
        return Decision(_plan(request.budget, uncut, scored, target, None, journal))
    foreseen = predicted_times(times, uncut, request.scope, target.channel_multiple)
    plan = _plan(request.budget, uncut, scored, target, foreseen, journal)
    return Decision(plan, predicted=prediction(times, foretold(foreseen, widths_of(plan)), journal))


def decide_on(
    board: Tries,
    request: Request,
    uncut: Traced,
    photos: Photos,
    criterion: Criterion,
    target: Target,
    journal: Journal,
    why_not: str = "",
) -> Decision:
    """Decide for a budget of time: solved on what a board foretells, and tried there.

    Args:
        board: where plans are tried.
        request: says how fast, in a budget of time.
        uncut: the network.
        photos: to score filters on.
        criterion: that scores them.
        target: says which widths are allowed.
        journal: told of each step.
        why_not: why nothing can be tried there; empty if it can.

    Raises:
        BudgetError: the budget cannot be reached.
    """
    goal = _goal(request.budget, board.times)
    scored = scored_filters(request, goal.share, uncut, photos, criterion, journal)
    assert goal.speedup is not None

    def plan_for(speedup: float) -> PruningPlan:
        return _plan(Budget(speedup=speedup), uncut, scored, target, board.times, journal)

    if why_not:
        journal.warn(f"the speed-up of {goal.speedup:.4g} is foretold by the table, not measured: {why_not}")
        return Decision(replace(plan_for(goal.speedup), budget=request.budget))
    found = reach(goal.speedup, plan_for, board, lambda tried: _goal_there(request.budget, tried), journal)
    return Decision(replace(found.plan, budget=request.budget), found.trials, found.missed)


def _plan(
    budget: Budget, uncut: Traced, scored: Scored, target: Target, times: Times | None, journal: Journal
) -> PruningPlan:
    with journal.stage("allocate"):
        return allocate(uncut.channel_map, scored, budget, target.channel_multiple, times)


def predicted_times(prior: Prior, uncut: Traced, scope: Scope, multiple: int) -> Times:
    """What a prior foretells of a network."""
    shapes = Shapes(uncut.program, uncut.channel_map)
    choices = choices_of(uncut, scope, multiple)
    every = [variant(choices, number) for number in range(1 + max(map(len, choices.values()), default=0))]
    return Times(shapes, prior.network(shapes, uncut.model.name, every))


def prediction(prior: Prior, speedup: float, journal: Journal) -> dict[str, float | str]:
    """What a report says of a speed-up that is predicted, see `Decision.predicted`; told to the user, too."""
    journal.warn(f"PREDICTED, not measured: {speedup:.3g}x on {prior}. Measure it: edgeprune bench RUN --device ...")
    told = {"speedup": speedup, "error": prior.error, "worst_error": prior.worst_error, "threads": prior.threads}
    return {**told, "board": prior.target, "source": prior.source}


def _goal(budget: Budget, times: Times) -> Budget:
    """The speed-up to solve for.

    Raises:
        BudgetError: the uncut network is as fast already.
    """
    if budget.latency_ms is None:
        return budget
    if times.uncut_ms <= budget.latency_ms:
        what = f"--latency {budget.latency_ms:g}ms: the uncut model took {times.uncut_ms:.3g} ms when it was profiled"
        raise BudgetError(what, fix="Nothing needs to go. Ask for less time, or for --macs.")
    return Budget(speedup=times.uncut_ms / budget.latency_ms)


def _goal_there(budget: Budget, tried: Tried) -> float:
    """The speed-up that is wanted beside the uncut network as it was timed in the same run."""
    if budget.latency_ms is not None:
        return tried.uncut_ms / budget.latency_ms
    assert budget.speedup is not None
    return budget.speedup


def scored_filters(
    request: Request, share: float, uncut: Traced, photos: Photos, criterion: Criterion, journal: Journal
) -> Scored:
    """The filters' scores, and what their removal costs, where about a share of them is to go."""
    whole = left_whole(uncut.channel_map, request.scope)
    names = [space.name for space in uncut.channel_map.spaces if space.name not in whole]
    with journal.stage("score") as tick:
        scorer = Scorer(uncut.channel_map, uncut.program, uncut.model.module, photos.batches(uncut.model))
        return scorer.score(
            criterion,
            names,
            seed=request.seed,
            share=share,
            tick=tick,
            damage=request.allocation == "damage" and request.budget.ratio != "auto",
        )


def untried(request: Request, conditions: Conditions) -> str:
    """Why a plan cannot be tried; empty if it can."""
    if request.dry_run:
        return "--dry-run was given"
    if not request.bench:
        return "--no-bench was given"
    if request.device is not None or machine_name(facts_of("local")) == conditions.board:
        return ""
    return f"the table is of another machine ({conditions.board}); name it with --device"
