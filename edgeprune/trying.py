"""trying: a plan's widths timed on the board of a table, here or over SSH, and what that teaches the table."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from edgeprune.artifact import Artifact
from edgeprune.bench.compare import Comparison, compare
from edgeprune.bench.profiling import profile as profile_files
from edgeprune.bench.session import device_facts, measure
from edgeprune.bench.single import made_up_images
from edgeprune.bench.slots import slot
from edgeprune.bench.transport import open_device
from edgeprune.bench.trust import Doubt, Reason, doubts
from edgeprune.channels import Kept
from edgeprune.errors import UsageError
from edgeprune.journal import Journal
from edgeprune.latency import Conditions, LatencyTable, Variant
from edgeprune.measurement import Measurement
from edgeprune.plan import PruningPlan
from edgeprune.profile import Profile
from edgeprune.prune.shapes import Shapes
from edgeprune.prune.time_budget import foretold
from edgeprune.prune.timing import Times, profiled_variant
from edgeprune.report.machines import machine_name
from edgeprune.variants import VariantFiles

_BLOCKS = 16
_BLOCKS_OF_A_PLAN = 32
"""A speed-up is reached by the lower end of its interval, so half of what the interval is wide is cut in vain."""
_LONGER = 3
"""Times as many rounds for a plan that is as fast as was asked, though not surely: some three minutes on a PC."""
_Said = tuple[tuple[Measurement, ...], tuple[Comparison, ...], tuple[Doubt, ...]]
"""Times of files, what they say, and the fatal doubts."""


@dataclass(frozen=True)
class Tried:
    """A plan that was timed beside the uncut network.

    Attributes:
        ratio: the speed-up.
        ci95: its 95 % interval, (low, high).
        uncut_ms: median time of the uncut network in the same run.
    """

    ratio: float
    ci95: tuple[float, float]
    uncut_ms: float


class Tries(Protocol):
    """Where plans are tried, and what is foretold there."""

    @property
    def times(self) -> Times:
        """What plans are solved on, corrected by what was learned."""

    def tried(self, plan: PruningPlan, longer: bool = False) -> Tried | None:
        """Time a plan, perhaps for longer, so that its interval is narrower; None where that says nothing."""

    def learn(self, plan: PruningPlan) -> None:
        """Correct what is foretold by the plan that was timed last."""

    def foretold(self, plan: PruningPlan) -> float:
        """How many times as fast as the uncut network a plan is foretold to be."""


class Board:
    """The board that a table was measured on; `Tries` there.

    Args:
        device: a device string.
        table: of the board.
        shapes: of the uncut network.
        files: of it and of what is tried.
        mixed: whether other conditions than the table's are accepted.
        journal: told of each step.
    """

    def __init__(
        self, device: str, table: LatencyTable, shapes: Shapes, files: VariantFiles, mixed: bool, journal: Journal
    ) -> None:
        self._device, self._table, self._shapes = device, table, shapes
        self._files, self._mixed, self._journal = files, mixed, journal
        self._artifacts: tuple[Artifact, ...] = ()
        self._last: tuple[Measurement, ...] = ()
        self.times = Times.of(table, shapes)
        if unseen := self.times.unseen:
            journal.warn(
                f"no profile tells of {len(unseen)} of {len(shapes.layers)} layers, first {', '.join(unseen[:3])}: "
                "what their widths are worth is not known; edgeprune profile in another --runtime may tell"
            )

    def foretold(self, plan: PruningPlan) -> float:
        """How many times as fast as the uncut network a plan is foretold to be."""
        return foretold(self.times, widths_of(plan))

    def tried(self, plan: PruningPlan, longer: bool = False) -> Tried | None:
        """Time a plan as the table was measured, twice where that says nothing; None where it still does not.

        Then the journal is told why. For longer is three times as many rounds: three fifths of the interval's width.

        Raises:
            DeviceError: the device cannot be reached, or its runtime does not run the file.
            UsageError: the device is not as it was when the table was measured.
        """
        artifacts = self._files.of([plan.keep])
        rounds = _BLOCKS_OF_A_PLAN * (_LONGER if longer else 1)
        measured, found, fatal = self._measured_twice(artifacts, self._files.folder, rounds)
        if not found:
            self._journal.warn(f"the speed-up is foretold by the table, not measured; {_unconfirmed(fatal)}")
            return None
        self._artifacts, self._last = artifacts, measured
        return Tried(found[0].ratio, found[0].ci95, median_ms(measured[0]))

    def timed(self, artifacts: Sequence[Artifact], folder: Path, rounds: int = _BLOCKS) -> dict[str, Comparison]:
        """How fast files are beside the uncut one in fp32, the first, by path, timed as the table was measured.

        They are timed once more where that says nothing; then those of which nothing can be said are not in it, which
        is told.

        Raises:
            DeviceError, UsageError: see `tried`.
        """
        _, found, fatal = self._measured_twice(artifacts, folder, rounds)
        line = f"not measured on {self._device}: {_unconfirmed(fatal)}"
        if not found and line not in self._journal.warnings:
            self._journal.warn(line)
        return {one.candidate: one for one in found}

    def _measured_twice(self, artifacts: Sequence[Artifact], folder: Path, rounds: int) -> _Said:
        """Measured once more where it says nothing, unless no time there ever says anything."""
        said = self._measured(artifacts, folder, rounds)
        if said[1] or any(doubt.reason is Reason.EMULATED for doubt in said[2]):
            return said
        return self._measured(artifacts, folder, rounds)

    def _measured(self, artifacts: Sequence[Artifact], folder: Path, rounds: int) -> _Said:
        """Times of files, what they say, and the fatal doubts, if any; with these, or too few clean rounds, nothing."""
        conditions = self._table.conditions
        with slot(self._device), self._journal.stage("try") as tick, open_device(self._device) as transport:
            measured = measure(
                artifacts,
                folder,
                made_up_images(artifacts[0].input_shape),
                (conditions.threads,),
                transport=transport,
                runtimes=(conditions.runtime,),
                rounds=rounds,
                tick=tick,
            )
        fatal = tuple(doubt for one in measured for doubt in doubts(one) if doubt.fatal)
        found = () if fatal else compare(measured)
        if found:
            accept(conditions.differ(conditions_of(measured[0])), self._mixed, "the table", self._journal)
        return measured, found, fatal

    def learn(self, plan: PruningPlan) -> None:
        """Ask the runtime what each layer took in the plan that was timed last, and add it to what is foretold from."""
        conditions, artifacts = self._table.conditions, self._artifacts
        images = made_up_images(artifacts[0].input_shape)
        with slot(self._device), self._journal.stage("profile") as tick, open_device(self._device) as transport:
            profiles, refused = profile_files(
                artifacts,
                self._files.folder,
                images,
                conditions.threads,
                transport=transport,
                runtimes=(conditions.runtime,),
                tick=tick,
            )
        if not refused:
            found = timed_variants([plan.keep], self._last, profiles, self._shapes)
            self._table = self._table.with_variants(self._shapes.fingerprint, "", found)
            self.times = Times.of(self._table, self._shapes)


def facts_of(device: str) -> dict[str, Any]:
    """What a device says of itself, see `edgeprune.bench.session.device_facts`.

    Raises:
        DeviceError: it cannot be reached.
    """
    with tempfile.TemporaryDirectory(prefix="edgeprune-") as folder, slot(device), open_device(device) as transport:
        return device_facts(transport, Path(folder))


def accept(different: str, mixed: bool, what: str, journal: Journal) -> None:
    """Refuse conditions that differ from a table's; tell of them where they may be mixed.

    Raises:
        UsageError: they differ, and may not be mixed.
    """
    if different and not mixed:
        fix = "Name another file with --table; --allow-mixed takes it all the same, and says so."
        raise UsageError(f"{what} is of other conditions than these: {different}", fix=fix)
    if different and not any(different in line for line in journal.warnings):
        journal.warn(f"MIXED: {what} is of other conditions than these: {different}")


def conditions_of(measured: Measurement) -> Conditions:
    """Under which conditions something was timed."""
    board = machine_name(measured.device)
    return Conditions(board, measured.runtime, measured.runtime_version, measured.threads, measured.format)


def timed_variants(
    keeps: Sequence[Kept], measured: Sequence[Measurement], profiles: Sequence[Profile], shapes: Shapes
) -> tuple[Variant, ...]:
    """What was measured of each variant; the uncut network is measured first, and counts where it is among them.

    A variant's time is the uncut network's over its speed-up, round by round, by which plans are judged, too; where too
    few clean rounds are left to compare, it is its own.
    """
    ratios = {one.candidate: one.ratio for one in compare(measured)}
    uncut_ms = median_ms(measured[0])
    found = []
    for keep in keeps:
        place = 1 + [one for one in keeps if one].index(keep) if keep else 0
        operators = [(one.macs, one.ms) for one in profiles[place].operators]
        ratio = ratios.get(measured[place].path)
        ms = uncut_ms / ratio if ratio else median_ms(measured[place])
        found.append(profiled_variant(shapes, keep, ms, uncut_ms, operators))
    return tuple(found)


def median_ms(measured: Measurement) -> float:
    """Time of a call, the median of its blocks'."""
    return float(np.median([block.median_ns for block in measured.blocks])) / 1e6


def widths_of(plan: PruningPlan) -> dict[str, int]:
    """How many filters of each space that is cut stay."""
    return {name: len(kept) for name, kept in plan.keep.items()}


def _unconfirmed(fatal: Sequence[Doubt]) -> str:
    if not fatal:
        return "too few clean rounds were left to confirm it"
    if fatal[0].reason is Reason.EMULATED:
        return "EMULATED: the plan's file works there, and no time taken there says anything"
    return f"the machine was too busy to confirm it ({fatal[0]})"


def look_at(device: str, table: LatencyTable | None, mixed: bool, journal: Journal) -> None:
    """Refuse a device that is another board than a table's, before any work is done for it.

    Raises:
        DeviceError: it cannot be reached.
        UsageError: it is another board.
    """
    facts = facts_of(device)
    if facts.get("emulated"):
        journal.warn(f"EMULATED: {device} is {machine_name(facts)}; whether files work there is shown, never a time")
    elif table:
        board = table.conditions.board
        here = machine_name(facts)
        accept("" if here == board else f"board: {board} and {here}", mixed, "the table", journal)
