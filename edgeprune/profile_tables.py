"""What each operator takes, and why a cut file is not faster, drawn for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from edgeprune.report.numbers import scaled, significant
from edgeprune.report.render.terminal import fitted
from edgeprune.report.table import Column, Table

_MOST_ROWS = 12
_COLUMNS = (
    Column("layer or operator"),
    Column("kind", minor=True),
    Column("ms", number=True),
    Column("share", number=True),
    Column("MACs", number=True),
    Column("GFLOP/s", number=True),
    Column("bytes", number=True, minor=True),
    Column("in -> out", number=True, minor=True),
)


_CHANGE = (
    Column("layer"),
    Column("in -> out", number=True, minor=True),
    Column("ms uncut", number=True),
    Column("ms cut", number=True),
    Column("MACs kept", number=True),
    Column("time kept", number=True),
    Column("GFLOP/s", number=True),
    Column("of peak", number=True, minor=True),
)


def print_profiles(document: Mapping[str, Any], console: Console) -> None:
    """Print the profiles in what `edgeprune.benching.bench` found, the slowest operators first.

    A cut file is shown beside its uncut one, with the reasons why it is not faster.
    """
    for device in document["devices"]:
        shown = set()
        for one in device["explanations"]:
            shown |= {(one[role], one["runtime"]) for role in ("baseline", "candidate")}
            console.print(fitted(change_table(one)))
            for finding in one["findings"]:
                line = f"{finding['cause']}: {finding['said']}. {finding['remedy']}"
                console.print(escape(line), style="yellow", soft_wrap=True)
        for profile in device["profiles"]:
            if (profile["path"], profile["runtime"]) not in shown:
                console.print(fitted(profile_table(profile)))
    for one in document["unprofiled"]:
        line = f"{Path(one['path']).name} was not profiled in {one['runtime']}: {one['reason']}. {one['fix']}"
        console.print(escape(line), style="yellow", soft_wrap=True)


def profile_table(profile: Mapping[str, Any]) -> Table:
    """One file's operators, of many only the slowest, the others as one row."""
    operators = sorted(profile["operators"], key=lambda one: -one["ms"])
    rows = [_row(one) for one in operators[:_MOST_ROWS]]
    rest = operators[_MOST_ROWS:]
    if rest:
        rows.append(_rest(rest))
    threads = f"{profile['threads']} thread{'s' * (profile['threads'] > 1)}"
    title = (
        f"{Path(profile['path']).name} ({profile['runtime']}, {threads}): {significant(profile['call_ms'])} ms a call "
        f"while profiled, median of {profile['calls']}"
    )
    return Table("profile", title, "", _COLUMNS, tuple(rows))


def change_table(one: Mapping[str, Any]) -> Table:
    """A cut file beside its uncut one, the layers that take longest first, and the sum."""
    layers = sorted(one["layers"], key=lambda layer: -layer["ms"][1])
    rows = [_change(layer, one["peak_gflops"]) for layer in layers[:_MOST_ROWS]]
    rest = layers[_MOST_ROWS:]
    if rest:
        rows.append(_change(_added(rest, f"{len(rest)} others"), 0.0))
    # Of whole calls, so with what is between the operators.
    whole = {"layer": "a call", "ms": one["ms"], "macs": one["macs"], "gflops": (0.0, 0.0), "channels": (0, 0)}
    rows.append(_change(whole, 0.0))
    threads = f"{one['threads']} thread{'s' * (one['threads'] > 1)}"
    title = f"{Path(one['candidate']).name} beside {Path(one['baseline']).name} ({one['runtime']}, {threads}), profiled"
    note = f"Peak: {one['peak_source']}." if one["peak_source"] else ""
    return Table("change", title, note, _CHANGE, tuple(rows))


def _change(layer: Mapping[str, Any], peak: float) -> tuple[str, ...]:
    (uncut_ms, cut_ms), (uncut, cut), (entry, result) = layer["ms"], layer["macs"], layer["channels"]
    rate = layer["gflops"][1]
    return (
        layer["layer"],
        f"{entry} -> {result}" if result else "-",
        *(significant(ms) if ms else "< 0.001" for ms in (uncut_ms, cut_ms)),
        f"{cut / uncut:.0%}" if uncut else "-",
        f"{cut_ms / uncut_ms:.0%}" if uncut_ms else "-",
        significant(rate) if rate else "-",
        f"{rate / peak:.0%}" if peak and rate else "-",
    )


def _added(layers: Sequence[Mapping[str, Any]], name: str) -> dict[str, Any]:
    ms, macs = (tuple(sum(layer[key][side] for layer in layers) for side in (0, 1)) for key in ("ms", "macs"))
    return {"layer": name, "ms": ms, "macs": macs, "gflops": (0.0, 0.0), "channels": (0, 0)}


def _row(one: Mapping[str, Any]) -> tuple[str, ...]:
    entry, result = one["channels"]
    rate = 2 * one["macs"] / (one["ms"] * 1e6) if one["ms"] else 0.0
    return (
        one["layer"] or one["name"],
        one["kind"] or "-",
        significant(one["ms"]) if one["ms"] else "< 0.001",  # the profilers' smallest step
        f"{one['share']:.1%}",
        scaled(one["macs"]) if one["macs"] else "-",
        significant(rate) if rate else "-",
        scaled(one["bytes"], "B") if one["bytes"] else "-",
        f"{entry} -> {result}" if result else "-",
    )


def _rest(operators: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    macs = sum(one["macs"] for one in operators)
    return (
        f"{len(operators)} others",
        "-",
        significant(sum(one["ms"] for one in operators)),
        f"{sum(one['share'] for one in operators):.1%}",
        scaled(macs) if macs else "-",
        *("-",) * 3,
    )
