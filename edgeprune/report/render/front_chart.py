"""The plot of the files that were tried for an accuracy that alone was asked for."""

from __future__ import annotations

from edgeprune.report.front import Candidate, Front
from edgeprune.report.render.pareto import ParetoChart, Spot, chart
from edgeprune.report.scores import Change


def front_chart(front: Front | None) -> ParetoChart | None:
    """The accuracy of each file that was tried against its speed-up; None where none was measured.

    What is only foretold is not drawn.
    """
    if front is None or not front.is_measured:
        return None
    spots = [_spot(one, one.measured) for one in front.candidates if one.measured is not None]
    return chart(spots, missing=len(front.candidates) - len(spots), limit=-front.max_drop)


def _spot(one: Candidate, speed: float) -> Spot:
    if one.is_reference:  # it has no interval: it is what all others are compared with
        return Spot(speed, None, Change(0.0, (0.0, 0.0)), one.precision, f"uncut, {one}")
    what = f"cut for {one.solved_for:.3g}x" if one.plan else "uncut"
    verdict = "chosen" if one.chosen else "kept" if one.fits else "lost"
    return Spot(speed, one.ci95, one.change, one.precision, f"{what}, {one}", verdict)
