"""timing_check: how well a table foretells variants that were held out, and how well multiply-accumulates do."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgeprune.latency import Network, Variant
from edgeprune.prune.shapes import Shapes
from edgeprune.prune.solve import Floats
from edgeprune.prune.timing import Times, line

_HELD_OUT_EVERY = 5


@dataclass(frozen=True)
class Check:
    """How well times are foretold that were held out.

    Attributes:
        variants: how many were.
        median_error: of the foretold speed-up, relative, of all of these.
        worst_error: the same of the one that was foretold worst.
        rank_correlation: Spearman's, of foretold and measured times.
    """

    variants: int
    median_error: float
    worst_error: float
    rank_correlation: float


def check(shapes: Shapes, found: Network) -> Check | None:
    """How well a network's times foretell every fifth variant from the others; None where it has too few."""
    rest, held = _apart(found)
    if len(held) < 2:
        return None
    times = Times(shapes, rest)
    return _check(held, lambda widths: times.ms(widths) / times.uncut_ms)


def check_by_macs(shapes: Shapes, found: Network) -> Check | None:
    """The same by a line over multiply-accumulates, which is what a budget in MACs takes for granted."""
    rest, held = _apart(found)
    return _check(held, line_over_macs(shapes, rest.variants)) if len(held) >= 2 else None


def line_over_macs(shapes: Shapes, variants: Sequence[Variant]) -> Callable[[Mapping[str, int]], float]:
    """Widths -> the share of the uncut time, by a line over multiply-accumulates that is fitted to variants."""

    def macs(widths: Mapping[str, int]) -> float:
        return float(sum(one.macs for one in shapes.at(widths)))

    taken = np.array([one.ms / one.uncut_ms for one in variants])
    fixed, slope = line(np.array([macs(one.widths) for one in variants]), taken, 1 / taken)
    return lambda widths: fixed + slope * macs(widths)


def compared(foretold: Floats, taken: Floats) -> Check:
    """Foretold times beside measured ones, each as a share of the uncut network's, float64 [variants]."""
    errors = np.abs(foretold / taken - 1)
    ranks = [_ranks(one) for one in (foretold, taken)]
    correlation = float(np.corrcoef(ranks[0], ranks[1])[0, 1]) if min(map(np.ptp, ranks)) > 0 else 0.0
    return Check(len(taken), float(np.median(errors)), float(errors.max()), correlation)


def _apart(found: Network) -> tuple[Network, tuple[Variant, ...]]:
    """What to learn from, and what to foretell."""
    held = found.variants[_HELD_OUT_EVERY - 1 :: _HELD_OUT_EVERY]
    rest = tuple(one for place, one in enumerate(found.variants, start=1) if place % _HELD_OUT_EVERY)
    return Network(found.name, rest), held


def _check(held: Sequence[Variant], share: Callable[[Mapping[str, int]], float]) -> Check:
    return compared(np.array([share(one.widths) for one in held]), np.array([one.ms / one.uncut_ms for one in held]))


def _ranks(values: Floats) -> Floats:
    """The place of each value among all; equal ones, but for rounding, share the mean of theirs."""
    rounded = np.round(values / max(float(np.abs(values).max()), 1e-30), 9)
    _, group, counts = np.unique(rounded, return_inverse=True, return_counts=True)
    found: Floats = (np.cumsum(counts) - (counts + 1) / 2)[group.reshape(-1)]
    return found
