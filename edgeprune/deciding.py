"""Which filters stay: scored, allocated to the budget, and where that is a time, tried on the board first."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from edgeprune.bench.compare import Comparison, compare
from edgeprune.bench.session import device_facts, measure
from edgeprune.bench.single import made_up_images
from edgeprune.bench.transport import Local
from edgeprune.bench.trust import doubts
from edgeprune.criteria import Criterion
from edgeprune.cutting import Traced
from edgeprune.errors import BudgetError
from edgeprune.inputs import Photos
from edgeprune.journal import Journal
from edgeprune.latency import Conditions, LatencyTable
from edgeprune.plan import Budget, PruningPlan
from edgeprune.prune.allocate import Scored, allocate, left_whole
from edgeprune.prune.score import Scorer
from edgeprune.prune.shapes import Shapes
from edgeprune.prune.time_budget import foretold
from edgeprune.prune.timing import Times
from edgeprune.report.machines import machine_name
from edgeprune.request import Request
from edgeprune.target import Target
from edgeprune.variants import VariantFiles

ROUNDS = 3
"""How often a plan is made, tried, and made anew for more than was asked, before what was found is taken."""
_BLOCKS = 16


@dataclass(frozen=True)
class Trial:
    """A plan that was tried on the board, with weights that are still those before recovery.

    Attributes:
        solved_for: the speed-up it was made for.
        foretold: by the table.
        measured: the speed-up.
        ci95: its 95 % interval.
    """

    solved_for: float
    foretold: float
    measured: float
    ci95: tuple[float, float]

    def __str__(self) -> str:
        low, high = self.ci95
        return f"solved for {self.solved_for:.3g}x, measured {self.measured:.3g}x [{low:.3g}, {high:.3g}]"


@dataclass(frozen=True, eq=False)
class Decision:
    """What was decided.

    Attributes:
        plan: which filters stay.
        trials: of plans for a speed-up, in the order they were made; the plan is that of the one that was fastest at
            least, or of the first that is fast enough. Empty for other budgets, and where nothing could be tried.
        missed: why the speed-up that was asked for is not reached; empty if it is, or was not asked for.
        conditions: under which plans were tried; None where none were.
    """

    plan: PruningPlan
    trials: tuple[Trial, ...] = ()
    missed: str = ""
    conditions: Conditions | None = None


def decide(
    request: Request, uncut: Traced, photos: Photos, criterion: Criterion, target: Target, journal: Journal
) -> Decision:
    """Score the filters and decide which stay.

    Raises:
        BudgetError: the budget cannot be reached.
        EdgepruneError: the table is not one, or knows nothing of this network.
    """
    table = LatencyTable.load(request.table) if request.table else None
    times = Times.of(table, Shapes(uncut.program, uncut.channel_map)) if table else None
    scored = _scored(request, uncut, photos, criterion, journal)

    def plan_for(budget: Budget) -> PruningPlan:
        with journal.stage("allocate"):
            return allocate(uncut.channel_map, scored, budget, target.channel_multiple, times)

    plan = plan_for(request.budget)
    if request.budget.speedup is None or table is None or times is None or request.dry_run:
        return Decision(plan)
    if why_not := _untried(request, table.conditions):
        journal.warn(f"the speed-up of {request.budget.speedup:g} is foretold by the table, not measured: {why_not}")
        return Decision(plan)
    with tempfile.TemporaryDirectory(prefix="edgeprune-") as folder:
        files = VariantFiles(Path(folder), uncut, target, table.conditions.format, journal)
        found = reach(
            request.budget.speedup,
            plan,
            lambda speedup: plan_for(Budget(speedup=speedup)),
            lambda tried: _tried(files, tried, table.conditions, journal),
            lambda tried: foretold(times, _widths(tried)),
            journal,
        )
    return replace(found, conditions=table.conditions)


def reach(
    asked: float,
    plan: PruningPlan,
    plan_for: Callable[[float], PruningPlan],
    tried: Callable[[PruningPlan], Comparison | None],
    foretold_of: Callable[[PruningPlan], float],
    journal: Journal,
) -> Decision:
    """Try a plan; if it is not surely as fast as was asked, make one for more, in proportion; and so on.

    Args:
        asked: speed-up that the lower end of the measured interval must reach.
        plan: made for it.
        plan_for: makes one for another speed-up, or raises BudgetError.
        tried: measures one; None where that is not to be trusted.
        foretold_of: what the table says of one.
        journal: told of each trial.
    """
    goal, trials, plans = asked, list[Trial](), list[PruningPlan]()
    while len(trials) < ROUNDS:
        found = tried(plan)
        if found is None:
            journal.warn("the speed-up is foretold by the table; the machine was too busy to confirm it")
            break
        trials.append(Trial(goal, foretold_of(plan), found.ratio, found.ci95))
        plans.append(plan)
        journal.say(f"round {len(trials)}: {trials[-1]}")
        if found.ci95[0] >= asked:
            return Decision(plan, tuple(trials))
        goal *= asked / found.ci95[0]
        try:
            plan = plan_for(goal)
        except BudgetError:
            break
    if not trials:
        return Decision(plan)
    best = max(range(len(trials)), key=lambda place: trials[place].ci95[0])
    low, high = trials[best].ci95
    missed = f"asked for {asked:g}x, the fastest of {len(trials)} plans is {trials[best].measured:.3g}x "
    return Decision(plans[best], tuple(trials), f"{missed}[{low:.3g}, {high:.3g}]")


def _scored(request: Request, uncut: Traced, photos: Photos, criterion: Criterion, journal: Journal) -> Scored:
    whole = left_whole(uncut.channel_map, request.scope)
    names = [space.name for space in uncut.channel_map.spaces if space.name not in whole]
    with journal.stage("score") as tick:
        scorer = Scorer(uncut.channel_map, uncut.program, uncut.model.module, photos.batches(uncut.model))
        return scorer.score(
            criterion,
            names,
            seed=request.seed,
            share=request.budget.share,
            tick=tick,
            damage=request.allocation == "damage" and request.budget.ratio != "auto",
        )


def _untried(request: Request, conditions: Conditions) -> str:
    """Why a plan cannot be tried here; empty if it can."""
    if not request.bench:
        return "--no-bench was given"
    with tempfile.TemporaryDirectory(prefix="edgeprune-") as folder, Local() as transport:
        here = machine_name(device_facts(transport, Path(folder)))
    if here == conditions.board:
        return ""
    return f"it is of another machine ({conditions.board}); measure there with edgeprune bench RUN --device ..."


def _tried(files: VariantFiles, plan: PruningPlan, conditions: Conditions, journal: Journal) -> Comparison | None:
    """A plan's widths against the uncut network, as the table was measured; None where that is not to be trusted."""
    artifacts = files.of([_widths(plan)])
    with journal.stage("try") as tick, Local() as transport:
        measured = measure(
            artifacts,
            files.folder,
            made_up_images(artifacts[0].input_shape),
            (conditions.threads,),
            transport=transport,
            runtimes=(conditions.runtime,),
            rounds=_BLOCKS,
            tick=tick,
        )
    if any(doubt.fatal for one in measured for doubt in doubts(one)):
        return None
    return next(iter(compare(measured)), None)


def _widths(plan: PruningPlan) -> dict[str, int]:
    return {name: len(kept) for name, kept in plan.keep.items()}
