"""fastest: the fastest file that loses no more accuracy than is allowed, of the front that widths and precisions make.

`edgeprune.bracketing` says which cut to try next, `edgeprune.candidates` makes, judges and times it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgeprune.bracketing import search
from edgeprune.candidates import Cuts
from edgeprune.criteria import Criterion
from edgeprune.cutting import Traced
from edgeprune.deciding import Decision, predicted_times, prediction, scored_filters, untried
from edgeprune.errors import UsageError
from edgeprune.exporting import goal_of, wanted_files
from edgeprune.inputs import Photos
from edgeprune.journal import Journal
from edgeprune.latency import LatencyTable
from edgeprune.prune.prior import Prior
from edgeprune.prune.shapes import Shapes
from edgeprune.prune.timing import Times
from edgeprune.remembering import Remembered, TriedBefore, depends_on, forget
from edgeprune.report.front import Front
from edgeprune.request import Request
from edgeprune.target import Target
from edgeprune.trying import Board
from edgeprune.variants import VariantFiles


def fastest(
    request: Request,
    uncut: Traced,
    photos: Photos,
    criterion: Criterion,
    target: Target,
    times: LatencyTable | Prior,
    formats: Sequence[str],
    place: Path | None,
    journal: Journal,
) -> Decision:
    """Walk the front and take the fastest that loses at most `Request.max_drop` points on the images to choose by.

    What was tried before for the same is not tried again, see `edgeprune.remembering`.

    Args:
        request: says how much may be lost, and which precisions are tried.
        uncut: the network.
        photos: to score filters on, to calibrate with, to choose by.
        criterion: that scores filters.
        target: the board.
        times: of it, measured or predicted.
        formats: of the files; the first one is tried.
        place: a file for what is found of each candidate; None to keep nothing.
        journal: told of each step.

    Raises:
        BudgetError: nothing can be cut.
        EdgepruneError: the table knows nothing of this network, or the board cannot be reached.
    """
    with tempfile.TemporaryDirectory(prefix="edgeprune-") as name:
        known, board = _speeds(request, uncut, target, times, Path(name), journal)
        before = None
        if place is not None:
            what = depends_on(request, uncut, photos, target, times, timed=board is not None)
            before = _before(request, place, what, journal)
        scored = scored_filters(request, request.budget.share, uncut, photos, criterion, journal)
        assert request.max_drop is not None
        goal = goal_of(uncut, photos, request.max_drop, journal)
        assert goal is not None
        wanted = wanted_files(request, target, formats[:1], goal)
        tried = Cuts(request, uncut, photos, scored, wanted, known, board, Path(name), journal)
        cuts = Remembered(tried, before, timed=board is not None) if before else tried
        candidates = search(cuts, request.precisions, journal)
    front = Front(request.max_drop, goal.metric, len(goal.images), formats[0], *_where(times), candidates)
    journal.say(" ".join(front.sentences()))
    plan = tried.plans[front.chosen.plan]
    told = prediction(times, tried.foretold(plan), journal) if isinstance(times, Prior) and plan.keep else {}
    conditions = times.conditions if board and isinstance(times, LatencyTable) else None
    return Decision(plan, missed=front.missed, conditions=conditions, predicted=told, front=front)


def kept_in(request: Request, out: Path) -> Path | None:
    """The file beside a run folder that a walk of the front keeps its candidates in; None where there is no walk.

    A dry run keeps nothing.
    """
    if request.budget.max_drop is None or request.plan or request.dry_run:
        return None
    return out.with_name(f"{out.name}.front.jsonl")


def only_chosen(request: Request, decision: Decision) -> Request:
    """What is left to do once the front is walked: the files of the chosen precision, beside those in fp32.

    Where nothing could be timed, all precisions stay that were asked for; where nothing is cut, nothing is recovered.
    """
    front = decision.front
    assert front is not None
    if front.is_measured or front.chosen.is_reference:
        request = replace(request, precisions=tuple(dict.fromkeys(("fp32", front.chosen.precision))))
    return request if decision.plan.keep else replace(request, recover="none")


def walked_formats(request: Request, formats: tuple[str, ...], table: LatencyTable | None) -> tuple[str, ...]:
    """The formats to write, the one that the front is walked in first: alone, where none were named.

    Raises:
        UsageError: the table is of none of them.
    """
    if request.budget.max_drop is None or table is None:
        return formats
    its = table.conditions.format
    if request.formats is None:
        return (its,)
    if its not in formats:
        what = f"the table is of {its} files, and --formats names {', '.join(formats)} only"
        raise UsageError(what, where=str(request.table), fix=f"Add {its}, or name another --table.")
    return (its, *(name for name in formats if name != its))


def _before(request: Request, place: Path, dependencies: Mapping[str, Any], journal: Journal) -> TriedBefore:
    """What an interrupted walk has left, if it was the same one; nothing where it is to begin anew."""
    if request.restart:
        forget(place)
    found = TriedBefore(place, dependencies)
    found.tell(journal)
    return found


def _speeds(
    request: Request, uncut: Traced, target: Target, times: LatencyTable | Prior, folder: Path, journal: Journal
) -> tuple[Times, Board | None]:
    """What is foretold of the network, and where its files are timed; None where they cannot be."""
    if isinstance(times, Prior):
        return predicted_times(times, uncut, request.scope, target.channel_multiple), None
    shapes = Shapes(uncut.program, uncut.channel_map)
    files = VariantFiles(folder, uncut, target, times.conditions.format, journal)
    board = Board(request.device or "local", times, shapes, files, request.allow_mixed, journal)
    if why_not := untried(request, times.conditions):
        journal.warn(f"speed-ups are foretold by the table, not measured: {why_not}")
        return board.times, None
    return board.times, board


def _where(times: LatencyTable | Prior) -> tuple[str, int]:
    """The board that times are of, and how many threads."""
    if isinstance(times, Prior):
        return times.target, times.threads
    return times.conditions.board, times.conditions.threads
