"""What an HTML report draws of the layers' times: uncut and cut, one above the other."""

from __future__ import annotations

from dataclasses import dataclass

from edgeprune.explanation import Explanation
from edgeprune.report.layers import change_table, label, milliseconds, reasons, slowest
from edgeprune.report.render.charts import Mark, percent, round_values
from edgeprune.report.table import Table
from edgeprune.report.timed import Timed

_MOST_BARS = 24


@dataclass(frozen=True)
class LayerBar:
    """A layer's times as lengths, 0 to 100."""

    label: str
    text: str
    before: float
    after: float


@dataclass(frozen=True)
class LayerChart:
    """A cut file beside its uncut one.

    Attributes:
        label: which files, and under which conditions.
        ticks: of the axis, in ms.
        bars: the slowest layers first.
        reasons: why the cut file is not faster.
        table: the same in numbers.
    """

    label: str
    ticks: tuple[Mark, ...]
    bars: tuple[LayerBar, ...]
    reasons: list[str]
    table: Table


def layer_times(report: Timed) -> tuple[LayerChart, ...]:
    """One drawing for each pair of files that was profiled."""
    return tuple(_chart(one) for one in report.explanations if one.layers)


def _chart(one: Explanation) -> LayerChart:
    shown = slowest(one, _MOST_BARS)
    longest = max(max(layer.ms) for layer in shown)
    bars = tuple(
        LayerBar(
            label=layer.layer,
            text=f"{milliseconds(layer.ms[0])} -> {milliseconds(layer.ms[1])}",
            before=percent(layer.ms[0], longest),
            after=percent(layer.ms[1], longest),
        )
        for layer in shown
    )
    ticks = tuple(Mark(percent(value, longest), f"{value:.4g}") for value in round_values(0.0, longest))
    return LayerChart(label(one), ticks, bars, reasons(one), change_table(one))
