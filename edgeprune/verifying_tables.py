"""What `verify` found, drawn for the terminal from the JSON document it could print instead."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape

from edgeprune.report.numbers import count, share
from edgeprune.report.render.terminal import fitted
from edgeprune.report.table import Column, Table
from edgeprune.stats import share_interval
from edgeprune.terminal import print_json

_TITLES = {"uncut": "uncut torch", "cut": "cut torch"}
_AGAINST = {"baseline": "uncut torch", "pruned": "cut torch"}
_METRICS = {"top1": "Top-1", "agreement": "agreement"}


def print_verification(document: Mapping[str, Any], as_json: bool) -> None:
    """Print what `edgeprune.verifying.verify` found, the faults of each file below the table."""
    if as_json:
        print_json(document)
        return
    console = Console(highlight=False)
    images = document["images"]
    console.print(fitted(_table(document)))
    console.print(
        f"Outputs: {count(images['compared'])} images, {_METRICS[document['metric']]}: {count(images['scored'])}; "
        f"of {images['source']}.",
        markup=False,
        soft_wrap=True,
    )
    for one in document["files"]:
        for fault in one["faults"]:
            console.print(f"[red]FAILED[/] {escape(one['path'])}: {escape(fault)}", soft_wrap=True)


def _table(document: Mapping[str, Any]) -> Table:
    columns = (
        Column("model or file"),
        Column("against", minor=True),
        Column("max|d|", number=True),
        Column("of largest", number=True, minor=True),
        Column("cosine", number=True),
        Column("same class", number=True),
        Column(_METRICS[document["metric"]], number=True),
        Column("verdict"),
    )
    models = [
        (
            _TITLES[one["name"]],
            _TITLES["uncut"] if one["against_uncut"] else "-",
            *_distance(one["against_uncut"]),
            _share(one["share"], document),
            "-",
        )
        for one in document["models"]
    ]
    files = [
        (
            one["path"],
            _AGAINST[one["role"]],
            *_distance(one["parity"]),
            _share(one["accuracy"] and one["accuracy"]["share"], document),
            "passed" if one["passed"] else "FAILED",
        )
        for one in document["files"]
    ]
    return Table("verify", f"Verified: {document['run']}", "", columns, (*models, *files))


def _distance(parity: Mapping[str, Any] | None) -> tuple[str, str, str, str]:
    if parity is None:
        return ("-", "-", "-", "-")
    agreement, cosine = share(parity["top1_agreement"]), f"{parity['cosine']:.6f}"
    return (f"{parity['max_abs']:.1e}", f"{parity['max_rel']:.1e}", cosine, agreement)


def _share(value: float | None, document: Mapping[str, Any]) -> str:
    return "-" if value is None else share(value, share_interval(value, document["images"]["scored"]))
