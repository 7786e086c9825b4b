"""Where the time of a cut file goes, layer by layer beside the uncut one, as a table and in words."""

from __future__ import annotations

from collections.abc import Sequence

from edgeprune.explanation import Explanation, LayerChange
from edgeprune.report.numbers import significant
from edgeprune.report.table import Column, Table

_MOST_ROWS = 12
_COLUMNS = (
    Column("layer"),
    Column("in -> out", number=True, minor=True),
    Column("ms uncut", number=True),
    Column("ms cut", number=True),
    Column("MACs kept", number=True),
    Column("time kept", number=True),
    Column("GFLOP/s", number=True),
    Column("of peak", number=True, minor=True),
)


def label(one: Explanation) -> str:
    """Which files, and under which conditions."""
    candidate, baseline = (path.rpartition("/")[2] for path in (one.candidate, one.baseline))
    threads = f"{one.threads} thread{'s' * (one.threads > 1)}"
    return f"{candidate} beside {baseline} ({', '.join(part for part in (one.runtime, threads, one.device) if part)})"


def reasons(one: Explanation) -> list[str]:
    """Why the cut file is not faster, a line each, with what to do."""
    return [f"{found.cause}: {found.said}. {found.remedy}" for found in one.findings]


def slowest(one: Explanation, most: int = _MOST_ROWS) -> list[LayerChange]:
    """The layers of the cut file that take longest, and all others added up."""
    layers = sorted(one.layers, key=lambda layer: -layer.ms[1])
    rest = layers[most:]
    return [*layers[:most], _added(f"{len(rest)} others", rest)] if rest else layers


def change_table(one: Explanation) -> Table:
    """A cut file beside its uncut one, the layers that take longest first, and a whole call."""
    # A call takes longer than its operators: what is between them is in it, too.
    whole = LayerChange("a call", one.ms, one.macs, (0.0, 0.0), (0, 0))
    rows = tuple(_row(layer, one.peak_gflops) for layer in (*slowest(one), whole))
    note = f"Peak: {one.peak_source}." if one.peak_source else ""
    return Table("change", f"{label(one)}, profiled", note, _COLUMNS, rows)


def _row(layer: LayerChange, peak: float) -> tuple[str, ...]:
    (uncut_ms, cut_ms), (uncut, cut), (entry, result) = layer.ms, layer.macs, layer.channels
    rate = layer.gflops[1]
    return (
        layer.layer,
        f"{entry} -> {result}" if result else "-",
        *(milliseconds(ms) for ms in layer.ms),
        f"{cut / uncut:.0%}" if uncut else "-",
        f"{cut_ms / uncut_ms:.0%}" if uncut_ms else "-",
        significant(rate) if rate else "-",
        f"{rate / peak:.0%}" if peak and rate else "-",
    )


def milliseconds(ms: float) -> str:
    """A time that a profiler told: it counts in thousandths of a millisecond."""
    return significant(ms) if ms else "< 0.001"


def _added(name: str, layers: Sequence[LayerChange]) -> LayerChange:
    return LayerChange(
        name,
        (sum(one.ms[0] for one in layers), sum(one.ms[1] for one in layers)),
        (sum(one.macs[0] for one in layers), sum(one.macs[1] for one in layers)),
        (0.0, 0.0),
        (0, 0),
    )
