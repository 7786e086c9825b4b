"""The front of speed against accuracy that --max-drop walks: what was tried, and what was taken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from edgeprune.report.numbers import count, kept, speed_up
from edgeprune.report.scores import Change
from edgeprune.report.table import Column, Table

_METRICS = {"top1": "top-1", "agreement": "top-1 agreement"}


@dataclass(frozen=True)
class Candidate:
    """A file that was tried: the network at some widths, in some precision.

    Attributes:
        round: in which it was tried, from 0, the uncut network.
        solved_for: the speed-up its widths were solved for; 1 for the uncut network.
        plan: fingerprint of the plan; empty for the uncut network.
        precision: of the file.
        macs: share of the uncut network's MACs that is left.
        change: of the accuracy against the uncut model, on the images to choose by.
        fits: whether it loses no more than is allowed.
        foretold: how many times as fast in fp32 as uncut in fp32, by the table or the prior; None in other precisions.
        measured: how many times as fast as uncut in fp32, timed side by side; None where that says nothing. 1 for that
            itself, by definition.
        ci95: the 95 % interval of `measured`.
        in_float: layers of an int8 file that stayed in float.
        chosen: whether it is the one that is handed over.
    """

    round: int
    solved_for: float
    plan: str
    precision: str
    macs: float
    change: Change
    fits: bool
    foretold: float | None = None
    measured: float | None = None
    ci95: tuple[float, float] | None = None
    in_float: int = 0
    chosen: bool = False

    @property
    def is_reference(self) -> bool:
        """Whether it is the uncut network in fp32."""
        return not self.plan and self.precision == "fp32"

    def __str__(self) -> str:
        lost = "" if self.is_reference else f", {self.change.points} points{'' if self.fits else ', too much'}"
        return f"{self.precision} {_speed(self)}{lost}"


@dataclass(frozen=True)
class Front:
    """All that was tried.

    Attributes:
        max_drop: how many points of accuracy may be lost.
        metric: "top1" (against labels) or "agreement" (with the uncut model).
        images: how many it was counted on; they are not those that the rest of the report counts on.
        format: of the files.
        board: on which they were timed, or for which their speed was foretold.
        threads: with how many.
        candidates: round by round.
    """

    max_drop: float
    metric: Literal["top1", "agreement"]
    images: int
    format: str
    board: str
    threads: int
    candidates: tuple[Candidate, ...]

    @property
    def chosen(self) -> Candidate:
        """The one that is handed over."""
        return next(one for one in self.candidates if one.chosen)

    @property
    def is_measured(self) -> bool:
        """Whether anything was timed, beside the reference."""
        return is_measured(self.candidates)

    @property
    def missed(self) -> str:
        """Why nothing faster is handed over; empty if something is."""
        if not self.chosen.is_reference:
            return ""
        if self.is_measured:
            left = sum(one.fits and one.measured is None for one in self.candidates)
            more = f"; {left} that could not be timed may be" if left else ""
            return f"no file that {self._loses} is surely faster than the uncut model in fp32{more}"
        return f"no cut that was tried {self._loses}"

    @property
    def _limit(self) -> str:
        return f"at most {self.max_drop:g} point{'' if self.max_drop == 1 else 's'} of {_METRICS[self.metric]}"

    @property
    def _loses(self) -> str:
        return f"loses {self._limit}"

    def sentences(self) -> tuple[str, ...]:
        """What was chosen and why."""
        one, images = self.chosen, f"on {count(self.images)} images to choose by"
        if one.is_reference:
            return (f"Nothing is cut: {self.missed} ({images}).",)
        if one.plan and self.is_measured:
            return (
                f"Of {len(self.candidates)} files tried, the fastest that {self._loses} ({images}): {_named(one)}.",
            )
        if one.plan:
            precisions = " and ".join(dict.fromkeys(its.precision for its in self.candidates if its.round == one.round))
            foretold = f"Cut for {one.solved_for:.3g}x, the most that was tried"
            return (f"{foretold} of which {precisions} lost {self._limit} ({images}); foretold, not measured.",)
        others = [other for other in self.candidates if other.plan and other.fits]
        why = "is faster" if others else "was found"
        return (f"Nothing is cut: no cut that {self._loses} ({images}) {why}. {_named(one).capitalize()}.",)


def is_measured(candidates: Sequence[Candidate]) -> bool:
    """Whether any of these was timed, beside the reference."""
    return any(one.measured is not None for one in candidates if not one.is_reference)


def table(front: Front | None) -> Table:
    """One row for each file that was tried."""
    columns = (
        Column("cut for"),
        Column("precision"),
        Column("MACs kept", number=True, minor=True),
        Column("in float", number=True, minor=True),
        Column("points [95 %]", number=True),
        Column("foretold", number=True, minor=True),
        Column("speed-up [95 %]", number=True),
        Column("verdict"),
    )
    if front is None:
        return Table("front", "", "", columns, ())
    timed = "timed in turns with the uncut file in fp32" if front.is_measured else "not measured"
    note = (
        f"Points of {_METRICS[front.metric]} against the uncut model, on {count(front.images)} images to choose by, "
        f"which no other table counts on but that of layers in float; at most {front.max_drop:g} were to be lost. "
        f"{front.format} files on {front.board}, threads: {front.threads}, {timed}. The largest speed-up that may be "
        "asked for is narrowed down from both sides, for the precision first that can still become the fastest."
    )
    return Table("front", "Speed against accuracy", note, columns, tuple(map(_row, front.candidates)))


def _row(one: Candidate) -> tuple[str, ...]:
    return (
        f"{one.solved_for:.3g}x" if one.plan else "uncut",
        one.precision,
        kept(one.macs, 1.0),
        str(one.in_float or "-"),
        "-" if one.is_reference else one.change.points,
        "-" if one.foretold is None else f"{one.foretold:.3g}x",
        _speed(one),
        "chosen" if one.chosen else "kept" if one.fits else "too much lost",
    )


def _speed(one: Candidate) -> str:
    if one.measured is None or one.ci95 is None:
        return "not measured"
    return "1x" if one.is_reference else speed_up(one.measured, one.ci95)


def _named(one: Candidate) -> str:
    what = f"cut for {one.solved_for:.3g}x, in {one.precision}" if one.plan else f"the uncut model in {one.precision}"
    return f"{what}: {_speed(one)}, {one.change.points} points"
