"""The geometry of a Pareto plot: accuracy against speed, with the intervals of both, and the front that none beats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgeprune.report.render.charts import Axis, Mark, round_values
from edgeprune.report.scores import Change


@dataclass(frozen=True)
class Spot:
    """What is drawn as one mark.

    Attributes:
        speed: how many times as fast, or with how many times fewer MACs.
        speed95: its 95 % interval; None where it is exact.
        change: of the accuracy, as a share.
        precision: of the file.
        text: shown where it is pointed at.
        verdict: "chosen" (ringed), "kept", or "lost" (hollow: not to be counted on).
    """

    speed: float
    speed95: tuple[float, float] | None
    change: Change
    precision: str
    text: str
    verdict: str = "kept"

    @property
    def across(self) -> tuple[float, float]:
        """How far its interval reaches from left to right."""
        return self.speed95 or (self.speed, self.speed)


@dataclass(frozen=True)
class Point:
    """A mark: where it stands from the left and from the top, how far its intervals reach, and what it is."""

    at: float
    left: float
    right: float
    height: float
    top: float
    bottom: float
    precision: str
    verdict: str
    text: str


@dataclass(frozen=True)
class ParetoChart:
    """A plot; every position is a percentage of its width or height.

    Attributes:
        across: marks of the speed.
        up: marks of the points of accuracy.
        one: where the speed is 1.
        limit: where no more points may be lost; None where nothing was said of that.
        front: an SVG path in a square of 100 along the spots that none beats in both.
        precisions: that occur.
        points: what is chosen last, so that nothing hides it.
        missing: how many there are beside these of which one of the two is not known.
    """

    across: tuple[Mark, ...]
    up: tuple[Mark, ...]
    one: float
    limit: float | None
    front: str
    precisions: tuple[str, ...]
    points: tuple[Point, ...]
    missing: int


def chart(spots: Sequence[Spot], missing: int = 0, limit: float | None = None) -> ParetoChart | None:
    """The plot of some spots; None where there are none.

    Args:
        spots: in the order of their key.
        missing: how many others there are that cannot be drawn.
        limit: the change of accuracy, in points, below which too much is lost.
    """
    if not spots:
        return None
    speeds = [end for one in spots for end in (*one.across, one.speed)]
    points = [100 * end for one in spots for end in (*one.change.ci95, one.change.difference)]
    across = _axis(min(1.0, *speeds), max(1.0, *speeds))
    up = _axis(max(0.0, *points), min(0.0 if limit is None else limit, *points))  # from the top down
    return ParetoChart(
        across=_marks(across, "{:.4g}x"),
        up=_marks(up, "{:+.3g}"),
        one=across.at(1.0),
        limit=None if limit is None else up.at(limit),
        front=_path(front(spots), across, up),
        precisions=tuple(dict.fromkeys(one.precision for one in spots)),
        points=tuple(_point(one, across, up) for one in sorted(spots, key=lambda one: one.verdict == "chosen")),
        missing=missing,
    )


def front(spots: Sequence[Spot]) -> list[Spot]:
    """Those that no other is both faster and more accurate than, the fastest first."""
    best: list[Spot] = []
    for one in sorted(spots, key=lambda one: (-one.speed, -one.change.difference)):
        if not best or one.change.difference > best[-1].change.difference:
            best.append(one)
    return best


def _axis(start: float, end: float) -> Axis:
    margin = 0.06 * (end - start) or 0.02
    return Axis(start - margin, end + margin)


def _marks(axis: Axis, text: str) -> tuple[Mark, ...]:
    values = round_values(*sorted((axis.start, axis.end)))
    return tuple(Mark(axis.at(value), text.format(value) if value else "0") for value in values)


def _point(one: Spot, across: Axis, up: Axis) -> Point:
    (left, right), (worst, best) = one.across, one.change.ci95
    return Point(
        at=across.at(one.speed),
        left=across.at(left),
        right=across.at(right),
        height=up.at(100 * one.change.difference),
        top=up.at(100 * best),
        bottom=up.at(100 * worst),
        precision=one.precision,
        verdict=one.verdict,
        text=one.text,
    )


def _path(best: Sequence[Spot], across: Axis, up: Axis) -> str:
    """From the fastest to the most accurate one, in steps."""
    places = [(across.at(one.speed), up.at(100 * one.change.difference)) for one in best]
    return f"M{places[0][0]} {places[0][1]}" + "".join(f"V{down}H{at}" for at, down in places[1:])
