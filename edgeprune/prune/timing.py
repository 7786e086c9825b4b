"""timing: how long a network takes by the widths of its spaces, from what was measured of it on a board.

A layer's time is what layers of its shape took at its widths, profiled in place within cut variants of the network, so
that what a runtime fuses, pads or reorders is in it. Widths that were not measured are interpolated by the time for
each pair of channels; steps are kept as they were measured. What is no layer is a line over the bytes that operators
put out. Profiling disturbs what it times, and not each time alike: each variant's operators are scaled so that they sum
to the time of its whole call, which was taken without profiling in turns with the uncut network, but for what every
call takes beside its operators.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np

from edgeprune.channels import Kept
from edgeprune.errors import EdgepruneError
from edgeprune.latency import LatencyTable, LayerTime, Network, Variant
from edgeprune.prune.shapes import LayerAt, Layered, Shapes, Side
from edgeprune.prune.solve import Floats, Problem, Term

_NEAREST = 4
"""How many measured widths an unmeasured one is interpolated from."""
_MOST_BESIDE = 0.5
"""Share of the fastest variant's time that a call may take beside its operators: more is scatter."""
_MOST_TOGETHER = 1 << 14
"""Entries of one layer's time over the choices of its spaces."""
_NAMED = 3
"""Layers that a message names."""


class Times:
    """How long a network takes, by the widths of its spaces.

    Args:
        shapes: of the network.
        found: what was measured of it, at least one variant.
    """

    def __init__(self, shapes: Shapes, found: Network) -> None:
        self._shapes = shapes
        self.uncut_ms = float(np.median([one.uncut_ms for one in found.variants]))
        self._call_ms = _beside_operators(found.variants, self.uncut_ms)
        self._variants = tuple(_undisturbed(one, self.uncut_ms, self._call_ms) for one in found.variants)

    @classmethod
    def of(cls, table: LatencyTable, shapes: Shapes) -> Times:
        """What a table says of a network.

        Raises:
            EdgepruneError: nothing.
        """
        found = table.networks.get(shapes.fingerprint)
        if found is None or not found.variants:
            variants = [variant for one in table.networks.values() for variant in one.variants]
            raise EdgepruneError(
                f"the latency table has no times of this network{_never(shapes, variants)}",
                where=f"it knows {', '.join(sorted({one.name for one in table.networks.values()})) or 'none'}",
                fix="Measure it: edgeprune profile MODEL --table FILE adds it to the table.",
            )
        return cls(shapes, found)

    @property
    def unseen(self) -> tuple[str, ...]:
        """The layers that no profile told of: their time is in what is no layer, whatever their widths."""
        return _unseen(self._shapes, self._variants)

    def ms(self, widths: Mapping[str, int]) -> float:
        """The foretold time of a call, in milliseconds. Not a measured one: it is never shown as a latency."""
        layers = sum(
            float(self._layer_ms(one.shape, np.array([one.inputs]), np.array([one.outputs]))[0])
            for one in self._shapes.at(widths)
        )
        fixed, slope = self._rest
        return self._call_ms + layers + fixed + slope * self._shapes.activation_mb(widths)

    def problem(self, damage: Mapping[str, Floats], choices: Mapping[str, Sequence[int]]) -> Problem:
        """What to solve: the damage and time of the allowed widths of some spaces; the others stay whole.

        Args:
            damage: space name -> of each choice.
            choices: space name -> its allowed widths.
        """
        fixed, slope = self._rest
        constant = self._call_ms + fixed + slope * self._shapes.activation_mb(dict.fromkeys(choices, 0))
        terms = [
            Term((name,), slope * self._shapes.activations.each.get(name, 0.0) / 1e6 * np.array(widths, float))
            for name, widths in choices.items()
        ]
        for one in self._shapes.layers:
            for names, ms in self._over(one, choices):
                terms += [Term(names, ms)] if names else []
                constant += 0.0 if names else float(ms)
        return Problem(damage, terms, constant)

    def _over(self, one: Layered, choices: Mapping[str, Sequence[int]]) -> list[tuple[tuple[str, ...], Floats]]:
        """A layer's time over the choices of its spaces; of too many, the sum of what each alone changes."""
        names = tuple(
            dict.fromkeys(name for side in (one.inputs, one.outputs) for name in side.each if name in choices)
        )
        if math.prod(len(choices[name]) for name in names) <= _MOST_TOGETHER:
            return [(names, self._grid(one, names, choices))]
        whole = self._grid(one, (), choices)
        return [((), whole), *(((name,), self._grid(one, (name,), choices) - whole) for name in names)]

    def _grid(self, one: Layered, names: tuple[str, ...], choices: Mapping[str, Sequence[int]]) -> Floats:
        grids = np.meshgrid(*(np.array(choices[name], float) for name in names), indexing="ij")
        inputs, outputs = (self._counts(side, names, grids) for side in (one.inputs, one.outputs))
        shape = tuple(len(choices[name]) for name in names)
        inputs, outputs = (np.broadcast_to(side, shape).reshape(-1) for side in (inputs, outputs))
        return self._layer_ms(one.shape, inputs, outputs).reshape(shape)

    def _counts(self, side: Side, names: tuple[str, ...], grids: Sequence[Floats]) -> Floats:
        given = dict(zip(names, grids, strict=True))
        whole = [each * self._shapes.sizes[name] for name, each in side.each.items() if name not in given]
        varied = [each * given[name] for name, each in side.each.items() if name in given]
        return np.asarray(side.fixed + sum(whole) + sum(varied), dtype=np.float64)

    @cached_property
    def _known(self) -> dict[str, tuple[Floats, Floats]]:
        """Shape -> measured widths [points, 2] and the median time at each, [points]."""
        found: dict[str, dict[tuple[int, int], list[float]]] = {}
        for variant in self._variants:
            for one in variant.layers:
                found.setdefault(one.shape, {}).setdefault((one.inputs, one.outputs), []).append(one.ms)
        return {
            shape: (np.array(list(points), float), np.array([float(np.median(ms)) for ms in points.values()]))
            for shape, points in found.items()
        }

    def _layer_ms(self, shape: str, inputs: Floats, outputs: Floats) -> Floats:
        """The time of layers of a shape at some widths, [n]; what was never seen as a layer is in the rest."""
        if shape not in self._known:
            return np.zeros(len(inputs))
        points, ms = self._known[shape]
        rates = ms / points.prod(axis=1)
        wanted = np.stack([inputs, outputs], axis=1).astype(float)
        apart = np.square(np.log(np.maximum(wanted, 1e-9))[:, None] - np.log(points)[None]).sum(axis=2)
        near = np.argsort(apart, axis=1, kind="stable")[:, :_NEAREST]
        weights = 1 / (np.take_along_axis(apart, near, 1) + 1e-12)
        found: Floats = (weights * rates[near]).sum(axis=1) / weights.sum(axis=1) * wanted.prod(axis=1)
        return found

    @cached_property
    def _rest(self) -> tuple[float, float]:
        """What is no layer: (milliseconds, milliseconds for each 10^6 bytes put out), neither below 0."""
        sizes = [one.activation_mb for one in self._variants]
        return line(np.array(sizes), np.array([one.rest_ms for one in self._variants]))


def _whole_ms(variant: Variant, uncut_ms: float) -> float:
    """The time of a call, relative to the uncut network of the same run."""
    return variant.ms / variant.uncut_ms * uncut_ms


def _summed_ms(variant: Variant) -> float:
    return sum(layer.ms for layer in variant.layers) + variant.rest_ms


def _beside_operators(variants: Sequence[Variant], uncut_ms: float) -> float:
    """What each call takes beside its operators, in milliseconds, from 0 on.

    Where the line through sums of operators over times of whole calls meets 0. The sums are fitted to the times, not
    the times to the sums: it is the profiled sums that scatter, and a line over what scatters comes out too flat.
    """
    whole = np.array([_whole_ms(one, uncut_ms) for one in variants])
    summed = np.array([_summed_ms(one) for one in variants])
    if np.ptp(whole) <= 1e-9 * whole.max():
        return 0.0
    (slope, fixed) = np.polyfit(whole, summed, 1, w=1 / whole)
    beside = -fixed / slope if slope > 0 else 0.0
    return float(np.clip(beside, 0.0, _MOST_BESIDE * whole.min()))


def _undisturbed(variant: Variant, uncut_ms: float, call_ms: float) -> Variant:
    """A variant whose operators sum to the time of its whole call, less what is beside them."""
    inside, summed = _whole_ms(variant, uncut_ms) - call_ms, _summed_ms(variant)
    if summed <= 0:
        return replace(variant, rest_ms=inside)
    layers = tuple(replace(layer, ms=inside / summed * layer.ms) for layer in variant.layers)
    return replace(variant, layers=layers, rest_ms=inside / summed * variant.rest_ms)


def _unseen(shapes: Shapes, variants: Sequence[Variant]) -> tuple[str, ...]:
    """The layers whose shape was measured in no variant."""
    seen = {layer.shape for variant in variants for layer in variant.layers}
    return tuple(one.layer.node for one in shapes.layers if one.shape not in seen)


def _never(shapes: Shapes, variants: Sequence[Variant]) -> str:
    unseen = _unseen(shapes, variants)
    more = f" and {len(unseen) - _NAMED} more" if len(unseen) > _NAMED else ""
    named = f", first {', '.join(unseen[:_NAMED])}{more}" if len(unseen) < len(shapes.layers) else ""
    return f"; {len(unseen)} of its {len(shapes.layers)} layers were never measured{named}" if unseen else ""


def line(x: Floats, y: Floats, weights: Floats | None = None) -> tuple[float, float]:
    """The line of least squares, (at 0, slope), neither of them below 0."""
    weights = np.ones(len(x)) if weights is None else weights
    if np.ptp(x) > 1e-9 * max(float(x.max()), 1e-30):
        (fixed, slope), *_ = np.linalg.lstsq(np.stack([weights, weights * x], 1), weights * y, rcond=None)
        if fixed >= 0 and slope >= 0:
            return float(fixed), float(slope)
        if slope < 0:
            return float(np.average(y, weights=weights**2)), 0.0
    through = float((weights**2 * x * y).sum() / max(float((weights**2 * x * x).sum()), 1e-30))
    return 0.0, through


def profiled_variant(
    shapes: Shapes, keep: Kept, ms: float, uncut_ms: float, operators: Sequence[tuple[int, float]]
) -> Variant:
    """What was measured of a network of which some filters stay.

    Args:
        shapes: of the uncut network.
        keep: channel space -> filters that stay; those not named are whole.
        ms: time of a call, not profiled.
        uncut_ms: the same of the uncut network, in the same run.
        operators: of the profile, see `layer_times`.
    """
    layers, rest = layer_times(shapes.kept(keep), operators)
    widths = {**shapes.sizes, **{name: len(kept) for name, kept in keep.items()}}
    return Variant(widths, ms, uncut_ms, layers, rest, shapes.activation_mb(widths))


def layer_times(
    layers: Sequence[LayerAt], operators: Sequence[tuple[int, float]]
) -> tuple[tuple[LayerTime, ...], float]:
    """The layers of a profiled variant, and the time of all else, in milliseconds.

    The k-th operator with as many multiply-accumulates is the k-th layer with as many.

    Args:
        layers: as they are cut, see `Shapes.kept`.
        operators: of the profile, multiply-accumulates (0 for what is no layer) and milliseconds, in the order they
            ran.
    """
    left, found, rest = list(layers), [], 0.0
    for macs, ms in operators:
        layer = next((one for one in left if macs and one.macs == macs), None)
        if layer is None or ms <= 0:
            rest += ms
            continue
        left.remove(layer)
        found.append(LayerTime(layer.shape, layer.inputs, layer.outputs, ms))
    return tuple(found), rest
