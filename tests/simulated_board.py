"""A board whose times are known: layers cost what their channels cost, rounded up to tiles of 16, and a fixed part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from edgeprune.latency import LayerTime, Network, Variant
from edgeprune.prune.shapes import LayerAt, Shapes

TILE = 16
CONSTANT_MS = 0.3
REST_MS = 0.05
PROFILING = 1.25
"""How much longer operators take while they are profiled."""


def layer_ms(layer: LayerAt) -> float:
    """A staircase in both widths."""
    tiles = [-(-channels // TILE) for channels in (layer.inputs, layer.outputs)]
    return 0.02 * tiles[0] * tiles[1] + 0.01


def call_ms(shapes: Shapes, widths: Mapping[str, int]) -> float:
    """What a whole call takes."""
    return CONSTANT_MS + REST_MS / PROFILING + sum(layer_ms(layer) for layer in shapes.at(widths))


def variant_at(shapes: Shapes, widths: Mapping[str, int]) -> Variant:
    """What is measured of the network at some widths."""
    layers = tuple(
        LayerTime(one.shape, one.inputs, one.outputs, PROFILING * layer_ms(one)) for one in shapes.at(widths)
    )
    whole, uncut = call_ms(shapes, widths), call_ms(shapes, {})
    return Variant(widths, whole, uncut, layers, REST_MS, shapes.activation_mb(widths))


def network(shapes: Shapes, every: Sequence[Mapping[str, int]]) -> Network:
    """What is measured of it at several."""
    return Network("simulated", tuple(variant_at(shapes, widths) for widths in every))
