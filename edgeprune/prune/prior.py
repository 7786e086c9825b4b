"""prior: how much faster a cut network will be on a board that is not at hand, from its file. Predicted, not measured.

A layer takes so long for each multiply-accumulate and so long for each byte it moves (maps read, maps written,
weights), one after the other. Both rates are fitted to latencies of other networks that were published of the board, so
that its cores, clock, caches, memory and the cost of its operators are in them as far as they show there.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgeprune.errors import UsageError
from edgeprune.latency import LayerTime, Network, Variant
from edgeprune.prune.shapes import Shapes
from edgeprune.prune.solve import Floats
from edgeprune.target import Target

_PUBLISHED = {
    "mobilenet_v2": (0.3007743, 67.664),
    "mobilenet_v3": (0.2165898, 57.476),
    "resnet18": (1.8140733, 65.387),
    "resnet50": (4.0891843, 189.129),
}
"""Network of the published tables -> 10^9 multiply-accumulates and 10^6 bytes moved in fp32 for one image of 224x224.

Counted here, by `Shapes.moved_mb`, in torchvision's networks; V3 is taken for the large one: the tables do not say so.
"""
_FEWEST = 4


@dataclass(frozen=True)
class Prior:
    """What a board's published latencies say of any network.

    Attributes:
        target: the board's title.
        threads: with which the latencies were taken.
        ms_per_gmac: milliseconds for 10^9 multiply-accumulates.
        ms_per_mb: milliseconds for 10^6 bytes moved.
        error: median relative error of each published latency foretold from the others.
        worst_error: the largest of these.
        source: who published them.
    """

    target: str
    threads: int
    ms_per_gmac: float
    ms_per_mb: float
    error: float
    worst_error: float
    source: str

    def __str__(self) -> str:
        threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        return (
            f"{self.target} with {threads}, from latencies of other networks ({self.source}), each of which the others "
            f"foretell with an error of {self.error:.0%} (median; worst {self.worst_error:.0%})"
        )

    def network(self, shapes: Shapes, name: str, every: Sequence[Mapping[str, int]]) -> Network:
        """A network as if it had been measured at some widths, for `edgeprune.prune.timing.Times` to solve on."""
        uncut = self._ms(shapes, {})
        return Network(name, tuple(self._variant(shapes, widths, sum(uncut)) for widths in every))

    def _variant(self, shapes: Shapes, widths: Mapping[str, int], uncut_ms: float) -> Variant:
        each = self._ms(shapes, widths)
        layers = tuple(
            LayerTime(one.shape, one.inputs, one.outputs, ms) for one, ms in zip(shapes.at(widths), each, strict=True)
        )
        return Variant({**shapes.sizes, **widths}, sum(each), uncut_ms, layers, 0.0, shapes.activation_mb(widths))

    def _ms(self, shapes: Shapes, widths: Mapping[str, int]) -> list[float]:
        work = zip(shapes.at(widths), shapes.moved_mb(widths), strict=True)
        return [self.ms_per_gmac * one.macs / 1e9 + self.ms_per_mb * moved for one, moved in work]


def prior_of(target: Target) -> Prior:
    """The prior of a board, for the most threads that enough latencies were published with.

    Raises:
        UsageError: the board's file has too few published latencies in fp32.
    """
    for threads in sorted(target.threads, reverse=True):
        facts = {name: target.facts.get(f"ncnn_{name}_{_threads(threads)}_ms") for name in _PUBLISHED}
        # On cores that compute in fp16 these were taken in fp16, which says nothing of fp32 files.
        found = {name: fact for name, fact in facts.items() if fact and "fp16" not in fact.source}
        if len(found) >= _FEWEST:
            work = np.array([_PUBLISHED[name] for name in found])
            ms = np.array([float(fact.value) for fact in found.values()])
            rates, errors = _fitted(work, ms), _held_out(work, ms)
            sources = ", ".join(dict.fromkeys(fact.source for fact in found.values()))
            error, worst = float(np.median(errors)), float(errors.max())
            return Prior(target.title, threads, float(rates[0]), float(rates[1]), error, worst, sources)
    raise UsageError(
        f"no time can be predicted for {target.title}: its file has not {_FEWEST} published latencies in fp32",
        fix="Measure on the board: --device ssh://user@host, or a --table by edgeprune profile.",
    )


def _threads(number: int) -> str:
    return "1_thread" if number == 1 else f"{number}_threads"


def _fitted(work: Floats, ms: Floats) -> Floats:
    """The two rates of least squared relative error, neither below 0."""
    best, least = np.zeros(work.shape[1]), np.inf
    for columns in itertools.chain([(0, 1)], [(0,), (1,)]):
        rates = np.zeros(work.shape[1])
        rates[list(columns)] = np.linalg.lstsq(work[:, columns] / ms[:, None], np.ones(len(ms)), rcond=None)[0]
        error = float(np.square(work @ rates / ms - 1).sum())
        if (rates >= 0).all() and error < least:
            best, least = rates, error
    return best


def _held_out(work: Floats, ms: Floats) -> Floats:
    """The relative error of each time foretold from the others."""
    kept = [np.arange(len(ms)) != place for place in range(len(ms))]
    foretold = np.array([work[~its] @ _fitted(work[its], ms[its]) for its in kept]).reshape(-1)
    errors: Floats = np.abs(foretold / ms - 1)
    return errors
