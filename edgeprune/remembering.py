"""remembering: what was found of each candidate of a front, on disk, so that an interrupted walk goes on.

A line of JSON is added for each file as soon as it is judged and timed, under a fingerprint of all that it depends on;
lines of another one count for nothing and stay, so that a mistyped option costs no walk. History of the schema: 1, the
first; 2, layers stay in float only while that can make the fastest file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from edgeprune.bench.faults import ConnectionLostError
from edgeprune.bracketing import Cuts
from edgeprune.cutting import Traced
from edgeprune.errors import DeviceError, EdgepruneError
from edgeprune.exporting import PARITY_IMAGES
from edgeprune.files import append_lines, output_error, sha256_of_arrays, sha256_of_json, whole_lines
from edgeprune.inputs import Photos
from edgeprune.journal import Journal
from edgeprune.latency import LatencyTable
from edgeprune.plan import PruningPlan
from edgeprune.prune.prior import Prior
from edgeprune.report.front import Candidate
from edgeprune.report.plain import from_plain, to_plain
from edgeprune.request import Request
from edgeprune.resize import all_tensors
from edgeprune.target import Target
from edgeprune.versions import versions

SCHEMA = 2
"""Another number where other things would be found of the same candidate, or where they are written otherwise."""
_GOES_ON = "What was tried before is kept: the same command goes on."
_NOT_OF_CANDIDATES = frozenset({"out", "overwrite", "restart", "command", "budget"})
"""Fields of a request that decide nothing of a candidate; the budget is `max_drop` once more."""
_OPTIONS = {"model": "MODEL", "input_shape": "--input", "criterion_options": "--criterion-option"}
"""Fields of a request that the command line calls otherwise."""
_NAMED = 4


class TriedBefore:
    """The candidates in a file that were found under what they depend on.

    Args:
        place: the file; it need not be there.
        dependencies: all that decides what is found of a candidate, in words -> JSON values; see `depends_on`.

    Raises:
        EdgepruneError: the file cannot be read.
    """

    def __init__(self, place: Path, dependencies: Mapping[str, Any]) -> None:
        self.place, self._dependencies, self._key = place, dependencies, sha256_of_json(dependencies)
        self._found: dict[tuple[str, str], Candidate] = {}
        self._others: Mapping[str, Any] | None = None
        self._begun = False
        for line in whole_lines(place):
            if line.get("schema") == SCHEMA:
                self._read(line)

    def _read(self, line: Mapping[str, Any]) -> None:
        if line.get("key") != self._key:
            self._others = line.get("depends_on", self._others)
        elif "depends_on" in line:
            self._begun = True
        else:
            try:
                found = from_plain(Candidate, line.get("candidate"))
            except EdgepruneError:  # not written by us: then it is tried again
                return
            self._found[found.plan, found.precision] = found

    def of(self, plan: PruningPlan | None) -> dict[str, Candidate]:
        """What was found of a plan (None: of the uncut network), by precision."""
        fingerprint = plan.fingerprint if plan else ""
        return {precision: one for (of, precision), one in self._found.items() if of == fingerprint}

    def keep(self, one: Candidate) -> None:
        """Write down what was found; it is on the disk when this returns.

        Raises:
            OutputError: the disk is full, or the folder cannot be written.
        """
        first = [] if self._begun else [{"depends_on": self._dependencies}]
        told = [{"schema": SCHEMA, "key": self._key, **line} for line in (*first, {"candidate": to_plain(one)})]
        append_lines(self.place, told)
        self._begun = True
        self._found[one.plan, one.precision] = one

    def tell(self, journal: Journal) -> None:
        """Say what there is to go on from, or why what there is does not count."""
        number = len(self._found)
        if number:
            were = "1 candidate was" if number == 1 else f"{number} candidates were"
            journal.say(f"{were} tried before; going on from {self.place}")
        elif self._others is not None:
            changed = [name for name, its in self._dependencies.items() if self._others.get(name) != its]
            named = ", ".join(changed[:_NAMED]) + (" and others" if len(changed) > _NAMED else "")
            journal.say(f"what {self.place} tells of was tried under other conditions ({named}): all is tried anew")


class Remembered:
    """Cuts of which none is tried again that was tried before; an `edgeprune.bracketing.Cuts`.

    Args:
        cuts: that are tried otherwise.
        before: what was found, and where it is kept.
        timed: whether candidates are timed: then those that could not be are not kept, but tried again.
    """

    def __init__(self, cuts: Cuts, before: TriedBefore, *, timed: bool) -> None:
        self._cuts, self._before, self._timed = cuts, before, timed

    @property
    def most(self) -> float:
        """The largest speed-up that any widths are foretold to reach."""
        return self._cuts.most

    def plan(self, speedup: float) -> PruningPlan:
        """The plan for a speed-up, or BudgetError."""
        return self._cuts.plan(speedup)

    def foretold(self, plan: PruningPlan) -> float:
        """How many times as fast as the uncut network a plan is foretold to be."""
        return self._cuts.foretold(plan)

    def judged(
        self, number: int, speedup: float, plan: PruningPlan | None, precisions: Sequence[str], in_float: float = 1.0
    ) -> tuple[Candidate, ...]:
        """The files of a plan in these precisions, made and judged where that was not done before.

        Raises:
            OutputError: what was found cannot be kept.
            EdgepruneError: see `edgeprune.candidates.Cuts.judged`.
        """
        known = self._before.of(plan)
        held = {name: replace(known[name], round=number, solved_for=speedup) for name in precisions if name in known}
        missing = [name for name in precisions if name not in held]
        too_much = "fp32" in held and not held["fp32"].fits
        found = self._cuts.judged(number, speedup, plan, missing, in_float) if missing and not too_much else ()
        for one in found:
            if one.measured is not None or not self._timed:
                self._before.keep(one)
        every = {**held, **{one.precision: one for one in found}}
        return tuple(every[name] for name in precisions if name in every)


def depends_on(
    request: Request, uncut: Traced, photos: Photos, target: Target, times: LatencyTable | Prior, *, timed: bool
) -> dict[str, Any]:
    """All that decides what is found of a candidate, in words -> JSON values.

    Which filters stay, and so the criterion's own code, is not in it: that is the plan's fingerprint.
    """
    options = {name: value for name, value in vars(request).items() if name not in _NOT_OF_CANDIDATES}
    tensors = all_tensors(uncut.model.module)
    choosing, held_out = photos.choosing, photos.scoring.images[:PARITY_IMAGES]
    assert choosing is not None
    program = [str(uncut.program.graph), uncut.channel_map.fingerprint, uncut.model.input.to_json(), sorted(tensors)]
    if isinstance(times, LatencyTable):
        network = times.networks.get(uncut.channel_map.fingerprint)
        taken = {"conditions": asdict(times.conditions), "network": to_plain(network)}
    else:
        taken = {"predicted": asdict(times)}
    return {
        **{_OPTIONS.get(name, f"--{name.replace('_', '-')}"): _plain(value) for name, value in options.items()},
        "the weights": sha256_of_arrays(one.numpy(force=True) for one in tensors.values()),
        "the network": sha256_of_json([*program, sha256_of_arrays(map(_array, uncut.program.constants.values()))]),
        "the images": sha256_of_arrays([photos.calibration.images, choosing.images, choosing.labels, held_out]),
        "the board's file": sha256_of_json(target.to_json()),
        "the table": sha256_of_json(taken),
        "whether files are timed": timed,
        "versions": versions(),
        "threads here": torch.get_num_threads(),
    }


def _array(tensor: torch.Tensor) -> Any:
    return tensor.numpy(force=True)


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else to_plain(value)


@contextmanager
def kept_until_done(place: Path | None, journal: Journal) -> Iterator[None]:
    """The file of candidates stays where the block does not end well, which is told, and is removed where it does.

    Args:
        place: the file, there or not; None where none is kept.
        journal: told what the same command goes on from.

    Raises:
        DeviceError: the board was lost; it says that the same command goes on, if it does.
        OutputError: the file cannot be removed.
    """
    try:
        yield
    except DeviceError as error:
        if place is None or not place.is_file():
            raise
        alone = "The board finishes alone what it is at." if isinstance(error, ConnectionLostError) else error.fix
        raise DeviceError(error.what, where=error.where, fix=f"{alone} {_GOES_ON}".strip()) from error
    except (EdgepruneError, KeyboardInterrupt):
        if place is not None and place.is_file():
            journal.say(f"what was tried so far is in {place}: the same command goes on from there")
        raise
    if place is not None:
        forget(place)


def forget(place: Path) -> None:
    """Remove the file of candidates, if it is there.

    Raises:
        OutputError: that is not allowed.
    """
    try:
        place.unlink(missing_ok=True)
    except OSError as error:
        raise output_error(error, place) from error
