"""Which layers of an int8 file are in float, and what it loses and takes with and without them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from edgeprune.artifact import Artifact
from edgeprune.report.numbers import count
from edgeprune.report.table import Column, Table

_METRICS = {"top1": "top-1", "agreement": "top-1 agreement"}


def table(artifacts: Sequence[Artifact]) -> Table:
    """One row for each int8 file that an accuracy was asked of, and one for each step of the search for it."""
    told = {one.path: one.details["mixed"] for one in artifacts if "mixed" in one.details}
    columns = (
        Column("artifact"),
        Column("in float", number=True),
        Column("taken out of int8"),
        Column("distance alone in int8", number=True, minor=True),
        Column("points lost before", number=True, minor=True),
        Column("points lost", number=True),
    )
    rows = tuple(row for path, found in told.items() for row in _rows(path, found))
    return Table("mixed", "Layers in float", _note(next(iter(told.values()))) if told else "", columns, rows)


def race_table(artifacts: Sequence[Artifact]) -> Table:
    """One row for each int8 file whose layers were timed: those that take longer in int8, and whether it is kept."""
    told = {one.path: one.details["race"] for one in artifacts if "race" in one.details}
    columns = (
        Column("artifact"),
        Column("in float", number=True),
        Column("take longer in int8"),
        Column("there, ms", number=True, minor=True),
        Column("in float, ms", number=True, minor=True),
        Column("times as fast", number=True),
        Column("kept"),
    )
    rows = tuple(row for path, found in told.items() for row in _raced(path, found))
    note = (
        "Layers that took longer in int8 than in float on the board, each with what was computed after it, changes of "
        "layout and of number format among it, were left in float; the file with them so is kept where it is surely "
        "faster than the one without. Numbers in brackets are 95 % intervals."
    )
    return Table("race", "Layers in float for speed", note, columns, rows)


def missed(artifacts: Sequence[Artifact]) -> str:
    """Why the cut model's int8 files lose more than was asked; empty if none does."""
    told = [(one.path, one.details.get("mixed", {}).get("missed", "")) for one in artifacts if one.role == "pruned"]
    return "; ".join(f"{path}: {reason}" for path, reason in told if reason)


def _rows(path: str, found: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    layers, done = count(found["layers"]), 0
    yield (path, f"0 of {layers}", "-", "-", "-", f"{found['lost_in_int8']:.2f}")
    for step in found["steps"]:
        done += len(step["layers"])
        names, distances = ", ".join(step["layers"]), ", ".join(f"{one:.3g}" for one in step["distances"])
        yield (path, f"{done} of {layers}", names, distances, f"{step['before']:.2f}", f"{step['after']:.2f}")


def _raced(path: str, found: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    layers = count(found["layers"])
    if not found["steps"]:
        yield (path, f"0 of {layers}", found["missed"] or "none", "-", "-", "-", "-")
    for step in found["steps"]:
        times = (f"{step['int8_ms']:.3f}", f"{step['float_ms']:.3f}")
        low, high = step["ci95"]
        ratio = f"{step['ratio']:.3f} [{low:.3f}, {high:.3f}]"
        kept = "yes" if step["kept"] else "no"
        yield (path, f"{len(step['layers'])} of {layers}", ", ".join(step["layers"]), *times, ratio, kept)


def _note(found: Mapping[str, Any]) -> str:
    return (
        f"At most {found['max_drop']:g} points of {_METRICS[found['metric']]} against the uncut model were to be lost, "
        f"cut and int8 together, on {count(found['images'])} images that nothing else is counted on. The layers that "
        "move the outputs most when they alone are in int8 were taken out of it first; the row with the fewest points "
        "lost is the file."
    )
