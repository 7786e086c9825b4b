"""candidates: cuts of a network as files, each recovered, judged on the images to choose by, and timed on the board."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeprune.artifact import Artifact
from edgeprune.cutting import Traced, cut
from edgeprune.errors import ExportError, ParityError
from edgeprune.export.calibration import Calibration
from edgeprune.export.execute import classes_of
from edgeprune.exporting import PARITY_IMAGES, Wanted, calibration_for, export_file
from edgeprune.inputs import Photos
from edgeprune.journal import Journal, Listener
from edgeprune.model import Model
from edgeprune.plan import Budget, Cost, PruningPlan
from edgeprune.progress import Tick
from edgeprune.prune.allocate import Scored, allocate, allowed_widths
from edgeprune.prune.time_budget import foretold, most_in_time
from edgeprune.prune.timing import Times
from edgeprune.recovery import recover
from edgeprune.report.front import Candidate
from edgeprune.report.scores import change_between
from edgeprune.request import Request
from edgeprune.trying import Board, widths_of


class Cuts:
    """Cuts of a network, made and judged; see `edgeprune.bracketing.Cuts`.

    Args:
        request: how each is recovered.
        uncut: the network.
        photos: to recover and calibrate with, and to choose by.
        scored: its filters.
        wanted: how files are written, and what they may lose.
        times: what is foretold of the network.
        board: where files are timed; None where none can be.
        folder: for the files.
        journal: told of what goes wrong.

    Attributes:
        plans: by their fingerprints; the one that cuts nothing is under "".
    """

    def __init__(
        self,
        request: Request,
        uncut: Traced,
        photos: Photos,
        scored: Scored,
        wanted: Wanted,
        times: Times,
        board: Board | None,
        folder: Path,
        journal: Journal,
    ) -> None:
        self._request, self._uncut, self._photos, self._scored = request, uncut, photos, scored
        self._wanted, self._times, self._board, self._folder, self._journal = wanted, times, board, folder, journal
        self._quiet = Journal(_Stages(journal.listener), journal.seconds)
        self.plans = {"": self._nothing_cut()}

    @cached_property
    def most(self) -> float:
        """The largest speed-up that any widths are foretold to reach."""
        spaces = [space for space in self._uncut.channel_map.spaces if space.name in self._scored.scores]
        multiple = self._wanted.target.channel_multiple
        return most_in_time(self._times, {space.name: allowed_widths(space, multiple) for space in spaces})

    def plan(self, speedup: float) -> PruningPlan:
        """The plan for a speed-up.

        Raises:
            BudgetError: it cannot be reached.
        """
        multiple = self._wanted.target.channel_multiple
        with self._journal.stage("allocate"):
            budget = Budget(speedup=speedup)
            found = allocate(self._uncut.channel_map, self._scored, budget, multiple, self._times)
        self.plans[found.fingerprint] = replace(found, budget=self._request.budget)
        return found

    def foretold(self, plan: PruningPlan) -> float:
        """How many times as fast as the uncut network a plan is foretold to be."""
        return foretold(self._times, widths_of(plan))

    def judged(
        self, number: int, speedup: float, plan: PruningPlan | None, precisions: Sequence[str], in_float: float = 1.0
    ) -> tuple[Candidate, ...]:
        """The files of a plan (None: of the uncut network) in these precisions; fp32 alone where it loses too much.

        Args:
            number: of the round.
            speedup: that the plan was made for.
            plan: to cut by.
            precisions: of the files, fp32 first if it is among them.
            in_float: the largest share of an int8 file's layers that may stay in float.

        Raises:
            ParityError: a file in fp32 does not compute what its model computes.
            EdgepruneError: the cut model cannot be recovered, or the board cannot be reached.
        """
        made = self._made(plan)
        files: list[Artifact] = []
        found: list[Candidate] = []
        for precision in precisions:
            if (file := self._file(made, precision, f"{number}-{precision}", in_float)) is None:
                continue
            files.append(file)
            found.append(self._candidate(file, number, speedup, plan))
            if precision == "fp32" and not found[-1].fits:
                break
        return self._timed(files, found)

    def _candidate(self, file: Artifact, number: int, speedup: float, plan: PruningPlan | None) -> Candidate:
        """A file with what it loses; it is not timed yet."""
        reference, before = self._reference
        after, goal = before if file is reference else self._classes(file), self._wanted.goal
        assert goal is not None
        right = after == goal.truth
        return Candidate(
            round=number,
            solved_for=speedup,
            plan=plan.fingerprint if plan else "",
            precision=file.precision,
            macs=plan.macs_kept if plan else 1.0,
            change=change_between(before == goal.truth, right),
            fits=goal.met(100 * (goal.right - int(right.sum())) / len(right)),
            foretold=self.foretold(plan) if plan and file.precision == "fp32" else None,
            in_float=len(file.details.get("mixed", {}).get("in_float", ())),
        )

    def _timed(self, files: Sequence[Artifact], found: Sequence[Candidate]) -> tuple[Candidate, ...]:
        """The candidates with their speed-ups, where these can be had."""
        others = [file for file, one in zip(files, found, strict=True) if not one.is_reference]
        its = self._board.timed((self._reference[0], *others), self._folder) if self._board and others else {}

        def speed(file: Artifact, one: Candidate) -> Candidate:
            if one.is_reference:
                return replace(one, measured=1.0, ci95=(1.0, 1.0))
            told = its.get(file.path)
            return replace(one, measured=told.ratio, ci95=told.ci95) if told else one

        return tuple(map(speed, files, found))

    @cached_property
    def _reference(self) -> tuple[Artifact, NDArray[np.int64]]:
        """The uncut network's file in fp32, and the highest class of each image by it."""
        file = replace(self._written((self._uncut.model, self._uncut.cost), "fp32", "uncut"), role="baseline")
        return file, self._classes(file)

    def _file(self, made: tuple[Model, Cost], precision: str, name: str, in_float: float) -> Artifact | None:
        """A file in the folder; None where that precision cannot be had of the network, which is told."""
        if precision == "fp32":
            return self._reference[0] if made[0] is self._uncut.model else self._written(made, precision, name)
        try:
            return self._written(made, precision, name, in_float)
        except (ExportError, ParityError) as error:
            self._journal.warn(f"a candidate in {precision} is left out: {error.what}")
            return None

    def _written(self, made: tuple[Model, Cost], precision: str, name: str, in_float: float = 1.0) -> Artifact:
        path, goal = self._folder / f"{name}.{self._wanted.formats[0]}", self._wanted.goal
        wanted = replace(self._wanted, goal=goal and replace(goal, in_float=in_float))
        file = export_file(made, wanted, precision, path, self._calibration, self._held_out, self._quiet)
        return replace(file, path=path.name, role="pruned")

    def _classes(self, file: Artifact) -> NDArray[np.int64]:
        """The highest class of each image to choose by."""
        assert self._wanted.goal is not None
        images = self._wanted.goal.images
        found: list[NDArray[np.int64]] = []
        with self._quiet.stage("accuracy of files") as tick:
            for classes in classes_of(file, self._folder, images.batches(self._uncut.model.input)):
                found.append(classes)
                tick(sum(map(len, found)), len(images))
        return np.concatenate(found)

    @cached_property
    def _calibration(self) -> Calibration | None:
        return calibration_for(self._wanted.precisions, self._uncut.model, self._photos)

    @cached_property
    def _held_out(self) -> NDArray[np.float32]:
        return self._photos.held_out(self._uncut.model, PARITY_IMAGES)

    def _made(self, plan: PruningPlan | None) -> tuple[Model, Cost]:
        """The network, cut and recovered, without the training that only the chosen one gets."""
        if plan is None:
            return self._uncut.model, self._uncut.cost
        uncut, pruned = cut(plan, self._uncut, self._quiet)
        place = self._folder / "recovery"
        found = recover(self._request, plan, uncut, pruned, self._photos, place, self._quiet)
        return found.model, pruned.cost

    def _nothing_cut(self) -> PruningPlan:
        channel_map = self._uncut.channel_map
        return PruningPlan(
            model=channel_map.fingerprint,
            criterion=self._scored.criterion,
            settings=self._scored.settings,
            budget=self._request.budget,
            channel_multiple=self._wanted.target.channel_multiple,
            sizes={space.name: space.size for space in channel_map.spaces},
            keep={},
            macs_kept=1.0,
            allocation="damage" if self._scored.damage else "uniform",
        )


class _Stages:
    """A listener that is shown the stages of candidates, and not told of each one's faults: only the chosen one's."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener

    def stage(self, name: str) -> AbstractContextManager[Tick]:
        """As the listener shows it."""
        return self._listener.stage(name)

    def say(self, line: str) -> None:
        """Nothing is shown."""
