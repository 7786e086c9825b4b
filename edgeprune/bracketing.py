"""bracketing: how large a speed-up may be asked for before too much accuracy is lost, precision by precision.

Accuracy falls as more is cut, so the largest speed-up that keeps it lies between one that does and one that does not;
each round halves what lies between them, as a ratio. Precisions share one budget: looked at first is the one that can
still become the fastest, and none that no longer can (branch and bound, A. H. Land and A. G. Doig, 1960,
https://doi.org/10.2307/1910129).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from edgeprune.errors import BudgetError
from edgeprune.journal import Journal
from edgeprune.plan import PruningPlan
from edgeprune.report.front import Candidate, is_measured

ROUNDS = 6
"""Cuts that are tried at most, beside the uncut network."""
NEAR = 1.03
"""Speed-ups whose ratio is less are not told apart."""


class Cuts(Protocol):
    """What can be asked for, and what comes of it."""

    @property
    def most(self) -> float:
        """The largest speed-up that any widths are foretold to reach."""

    def plan(self, speedup: float) -> PruningPlan:
        """The plan for a speed-up, or BudgetError."""

    def foretold(self, plan: PruningPlan) -> float:
        """How many times as fast as the uncut network a plan is foretold to be."""

    def judged(
        self, number: int, speedup: float, plan: PruningPlan | None, precisions: Sequence[str], in_float: float = 1.0
    ) -> tuple[Candidate, ...]:
        """The files of a plan (None: of the uncut network) in these precisions; fp32 alone where it loses too much.

        At most so large a share of the layers of an int8 file stays in float.
        """


@dataclass(frozen=True)
class _Bracket:
    """What is known of one precision, or of several that are all to keep the accuracy.

    Attributes:
        precisions: these.
        low: the largest speed-up asked for that keeps the accuracy.
        high: the smallest that does not, or the largest there is.
        speed: how many times as fast a file is at `low`.
        uncut: how many times as fast it is uncut.
    """

    precisions: tuple[str, ...]
    low: float
    high: float
    speed: float
    uncut: float

    @property
    def potential(self) -> float:
        """How fast a file can become at most, if it gains what is asked for."""
        return self.speed * self.high / self.low

    @property
    def is_open(self) -> bool:
        return self.high / self.low > NEAR

    def narrowed(self, asked: float, reached: float, found: Mapping[str, Candidate]) -> _Bracket:
        """After a plan that was made for one speed-up, and is foretold to reach more."""
        if not self.low < asked < self.high:
            return self
        if not all(name in found and found[name].fits for name in self.precisions):
            return replace(self, high=asked)
        reached = min(reached, self.high)
        measured = _speed(found[self.precisions[0]])
        return replace(self, low=reached, speed=measured or self.speed * reached / self.low)


def search(cuts: Cuts, precisions: Sequence[str], journal: Journal) -> tuple[Candidate, ...]:
    """Try the uncut network in every precision, then cuts of it, until what is left to gain is too little to tell.

    Args:
        cuts: to try.
        precisions: of the files, fp32 first.
        journal: told of each round.

    Returns:
        All candidates in the order they were tried, the fastest that keeps the accuracy marked.
    """
    tried = list(cuts.judged(0, 1.0, None, precisions))
    journal.say(f"uncut: {'; '.join(map(str, tried))}")
    brackets = [_Bracket(names, 1.0, cuts.most, speed, speed) for names, speed in _groups(tried, precisions)]
    rounds, seen = 0, dict[str, dict[str, Candidate]]()
    while (asked := _next(brackets)) is not None:
        try:
            plan = cuts.plan(asked)
        except BudgetError:
            brackets = [replace(one, high=min(one.high, max(asked, one.low))) for one in brackets]
            continue
        known = seen.setdefault(plan.fingerprint, {})
        wanted = [name for one in brackets if one.low < asked < one.high for name in one.precisions]
        missing = [name for name in wanted if name not in known]
        if missing and not ("fp32" in known and not known["fp32"].fits):
            if rounds == ROUNDS:
                break
            rounds += 1
            found = cuts.judged(rounds, asked, plan, missing, _most_in_float(brackets, asked))
            journal.say(f"round {rounds}, cut for {asked:.3g}x: {'; '.join(map(str, found))}")
            tried += found
            known.update({one.precision: one for one in found})
        reached = max(asked, cuts.foretold(plan))
        brackets = [one.narrowed(asked, reached, known) for one in brackets]
    chosen = fastest(tried, precisions)
    return tuple(replace(one, chosen=one is chosen) for one in tried)


def fastest(tried: Sequence[Candidate], precisions: Sequence[str]) -> Candidate:
    """The fastest of those that keep the accuracy, by the lower end of its interval.

    Where nothing could be timed, the first of the cut that is foretold to be fastest of which all precisions keep it:
    how fast the others are is not known then. The uncut network in fp32 where there is none.
    """
    if is_measured(tried):
        timed = [one for one in tried if (one.fits or one.is_reference) and one.ci95 is not None]
        return max(timed, key=lambda one: one.ci95[0] if one.ci95 else 0.0)
    rounds: dict[int, list[Candidate]] = {}
    for one in tried:
        rounds.setdefault(one.round, []).append(one)
    whole = [its[0] for its in rounds.values() if {one.precision for one in its if one.fits} == set(precisions)]
    return max(whole, key=lambda one: one.foretold or 0.0, default=tried[0])


def _groups(uncut: Sequence[Candidate], precisions: Sequence[str]) -> list[tuple[tuple[str, ...], float]]:
    """What is narrowed down for itself, and how fast it is uncut.

    Each precision that uncut is surely faster than fp32 and keeps the accuracy; all together where no time is known.
    """
    if is_measured(uncut) or len(precisions) == 1:
        useful = [one for one in uncut if one.is_reference or (one.fits and one.ci95 and one.ci95[0] > 1)]
        return [((one.precision,), _speed(one) or 1.0) for one in useful]
    return [(tuple(precisions), 1.0)] if len([one for one in uncut if one.fits]) == len(precisions) else []


def _next(brackets: Sequence[_Bracket]) -> float | None:
    """The speed-up to ask for; None where none can become faster than what was found."""
    best = max((one.speed for one in brackets), default=1.0)
    open_ones = [one for one in brackets if one.is_open and one.potential > best * NEAR]
    if not open_ones:
        return None
    first = max(open_ones, key=lambda one: one.potential)
    return math.sqrt(first.low * first.high)


def _most_in_float(brackets: Sequence[_Bracket], asked: float) -> float:
    """The share of an int8 file's layers that may stay in float if it is to become the fastest, 0 to 1.

    A cut so many times as fast takes 1 / asked of the uncut network's time in float, and 1 / (asked * uncut) in int8;
    what lies between is taken to be linear in the share, each layer as long as any other (our reckoning). 1 where int8
    is not narrowed down for itself.
    """
    uncut = next((one.uncut for one in brackets if one.precisions == ("int8",)), 1.0)
    if uncut <= 1:
        return 1.0
    best = max(one.speed for one in brackets)
    return min(max((asked / best - 1 / uncut) / (1 - 1 / uncut), 0.0), 1.0)


def _speed(one: Candidate) -> float | None:
    return one.foretold if one.measured is None else one.measured
