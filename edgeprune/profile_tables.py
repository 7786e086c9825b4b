"""What each operator takes, and why a cut file is not faster, drawn for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from edgeprune.explanation import Explanation
from edgeprune.report.layers import change_table, milliseconds, reasons
from edgeprune.report.numbers import scaled, significant
from edgeprune.report.plain import from_plain
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


def print_profiles(found: Mapping[str, Any], console: Console) -> None:
    """Print the profiles in what `edgeprune.benching.bench` found, the slowest operators first.

    A cut file is shown beside its uncut one, with the reasons why it is not faster.
    """
    for device in found["devices"]:
        shown = set()
        for document in device["explanations"]:
            one = from_plain(Explanation, document, "explanation")
            shown |= {(path, one.runtime) for path in (one.baseline, one.candidate)}
            console.print(fitted(change_table(one)))
            for line in reasons(one):
                console.print(escape(line), style="yellow", soft_wrap=True)
        for profile in device["profiles"]:
            if (profile["path"], profile["runtime"]) not in shown:
                console.print(fitted(profile_table(profile)))
    for one in found["unprofiled"]:
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


def _row(one: Mapping[str, Any]) -> tuple[str, ...]:
    entry, result = one["channels"]
    rate = 2 * one["macs"] / (one["ms"] * 1e6) if one["ms"] else 0.0
    return (
        one["layer"] or one["name"],
        one["kind"] or "-",
        milliseconds(one["ms"]),
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
