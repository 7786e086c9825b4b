"""reaching: a plan is tried on the board, and another made, until it is surely as fast as was asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgeprune.errors import SpeedupError
from edgeprune.journal import Journal
from edgeprune.plan import PruningPlan
from edgeprune.trying import Tried, Tries

ROUNDS = 3
"""How often a plan is made, tried, and made anew for more than was asked, before what was found is taken."""


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
        return f"solved for {self.solved_for:.3g}x, measured {self.speed_up}"

    @property
    def speed_up(self) -> str:
        """What was measured, with its interval."""
        low, high = self.ci95
        return f"{self.measured:.3g}x [{low:.3g}, {high:.3g}]"


@dataclass(frozen=True, eq=False)
class Reached:
    """How far plans came.

    Attributes:
        plan: the one whose lower end is highest, or the first that is fast enough.
        trials: of all plans, in the order they were made; empty where nothing could be tried.
        missed: why the speed-up that was asked for is not reached; empty if it is, or nothing could be tried.
    """

    plan: PruningPlan
    trials: tuple[Trial, ...] = ()
    missed: str = ""


def reach(
    goal: float,
    plan_for: Callable[[float], PruningPlan],
    board: Tries,
    asked: Callable[[Tried], float],
    journal: Journal,
) -> Reached:
    """Try a plan; if it is not surely as fast as was asked, correct the table by what was measured, and make another.

    What the corrected table still foretells wrongly of the plan that was tried is asked for in proportion, and a
    quarter of the interval's width more: the next interval scatters, too, and one that ends at what was asked on the
    average misses it half of the time (ours). A plan that is as fast as was asked, though not surely, is timed for
    longer before another is made, and that time alone counts: each new plan errs anew. The last round has none after
    it, and so asks for as much more as the table was too hopeful of the plan before it (ours). Where no plan is
    foretold to be so fast, the one that is foretold to be fastest is tried: it may be faster than that. If it is not
    fast enough, it is the last; if it is, the table learns from it, and may tell of one that is slower and still fast
    enough.

    Args:
        goal: speed-up to make the first plan for.
        plan_for: makes a plan for a speed-up, or raises SpeedupError.
        board: where plans are tried.
        asked: speed-up that the lower end of a measured interval must reach.
        journal: told of each trial.

    Raises:
        SpeedupError: no plan is foretold to be so fast, and the one that comes nearest is not.
    """
    goal, plan, refusal = _made(plan_for, goal)
    at_once, trials, plans, needed = refusal, list[Trial](), [plan], goal
    enough: PruningPlan | None = None
    while (found := board.tried(plans[-1])) is not None:
        foretold, shown = board.foretold(plans[-1]), f"round {len(trials) + 1}: "
        if found.ci95[0] < asked(found) <= found.ratio:
            journal.say(f"{shown}{Trial(goal, foretold, found.ratio, found.ci95)}: perhaps, timed for longer")
            found = board.tried(plans[-1], longer=True) or found
        ratio, (low, high) = found.ratio, found.ci95
        trials.append(Trial(goal, foretold, ratio, found.ci95))
        journal.say(f"{shown}{trials[-1]}")
        needed = asked(found)
        fast_enough = low >= needed
        enough = plans[-1] if fast_enough else enough
        as_asked = refusal is None  # else it is the fastest, and only a slower one is left to look for
        if len(trials) == ROUNDS or fast_enough == as_asked:
            break
        board.learn(plans[-1])
        learned = board.foretold(plans[-1])
        more = learned * needed / low * (1 + (high - low) / (4 * ratio))
        if len(trials) == ROUNDS - 1:
            more *= max(1.0, foretold / learned)
        goal, plan, refusal = _made(plan_for, more)
        if any(plan.keep == one.keep for one in plans):
            break
        plans.append(plan)
    if enough:
        return Reached(enough, tuple(trials))
    if at_once:
        raise _beside_what_was_measured(at_once, trials)
    if not trials:
        return Reached(plans[0])
    best = max(range(len(trials)), key=lambda place: trials[place].ci95[0])
    missed = f"asked for {needed:.4g}x, the fastest of {len(trials)} plans is {trials[best].speed_up}"
    return Reached(plans[best], tuple(trials), missed)


def _made(plan_for: Callable[[float], PruningPlan], speedup: float) -> tuple[float, PruningPlan, SpeedupError | None]:
    """The speed-up that a plan is made for, the plan, and why it is not made for what was asked, if it is not."""
    try:
        return speedup, plan_for(speedup), None
    except SpeedupError as error:
        if error.most <= 1:
            raise
        return error.most, plan_for(error.most), error


def _beside_what_was_measured(refusal: SpeedupError, trials: Sequence[Trial]) -> SpeedupError:
    if not trials:
        return refusal
    what = f"{refusal.what}; measured, that plan is {trials[0].speed_up}"
    return SpeedupError(what, most=refusal.most, fix=refusal.fix)
