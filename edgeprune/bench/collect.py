"""Fetching what a board finished after its connection was lost."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgeprune.artifact import Artifact
from edgeprune.bench.board import Left
from edgeprune.bench.entries import Entry
from edgeprune.bench.faults import ended
from edgeprune.bench.intake import Intake
from edgeprune.bench.session import JOB_SCHEMA, LOG_NAME
from edgeprune.bench.ssh import Ssh
from edgeprune.errors import DeviceError, TrustError
from edgeprune.measurement import Measurement, MeasurementLog, stored_measurements


def collect(
    board: Ssh, artifacts: Sequence[Artifact], run: Path, references: Mapping[str, np.ndarray]
) -> tuple[Measurement, ...]:
    """Fetch the blocks of runs that ended on a board while nobody listened, and remove them there.

    Blocks that the run folder has already are not added again, however often this is called.

    Args:
        board: entered.
        artifacts: the files that were measured.
        run: the run folder, with the log to add to.
        references: see `edgeprune.bench.session.measure`.

    Returns:
        The measurements, those blocks included that had come before the connection was lost.

    Raises:
        DeviceError: nothing of these files is there, or the board still measures, or the worker failed (what it had
            measured is in the log).
        TrustError: physics forbids the times.
        OutputError: the log cannot be written.
    """
    found: list[Measurement] = []
    still = ""
    for left in board.left():
        events = _events(board, left)
        asked = _asked(events[0].get("note") if events else None, artifacts)
        if not asked:
            continue
        if events[0].get("schema") != JOB_SCHEMA:
            fix = f"Measure again; to remove it: edgeprune bench --clean --device {board.name}"
            raise DeviceError("what is left there is of another version of edgeprune", where=board.name, fix=fix)
        if left.alive:
            still = f"it is still measuring: {_so_far(events)} are done"
            continue
        found += _taken(board, left, events, asked, run, references)
    if not found:
        fix = (
            "Ask again later." if still else "It was collected already, or never lost: measure again without --collect."
        )
        raise DeviceError(still or "nothing of these files is left there", where=board.name, fix=fix)
    return tuple(found)


def _so_far(events: Sequence[Mapping[str, Any]]) -> str:
    blocks, asked = [event for event in events if event["event"] == "block"], events[0]["note"]
    if "seconds" in asked:
        return f"{blocks[-1]['started_s'] if blocks else 0:.0f} of {asked['seconds']:.0f} seconds"
    return f"{len(blocks)} of {asked['blocks']} blocks"


def _events(board: Ssh, left: Left) -> list[dict[str, Any]]:
    """What the worker said so far; a line that is torn, or still being written, does not count."""
    with tempfile.TemporaryDirectory(prefix="edgeprune-") as folder:
        path = Path(folder) / "events.jsonl"
        board.get(left.events, path)
        lines = path.read_bytes().split(b"\n")[:-1]
    try:
        return [json.loads(line) for line in lines]
    except ValueError:
        return []


def _asked(note: Mapping[str, Any] | None, artifacts: Sequence[Artifact]) -> list[Entry]:
    """What was measured, if it was these files."""
    files = {(one.sha256, one.role): one for one in artifacts}
    kinds = (note or {}).get("entries", {})
    return [
        Entry(name, files[kind["artifact"], kind["role"]], kind["runtime"], kind["threads"])
        for name, kind in kinds.items()
        if (kind["artifact"], kind["role"]) in files
    ]


def _taken(
    board: Ssh,
    left: Left,
    events: Sequence[Mapping[str, Any]],
    asked: Sequence[Entry],
    run: Path,
    references: Mapping[str, np.ndarray],
) -> tuple[Measurement, ...]:
    path, known = run / LOG_NAME, {entry.id for entry in asked}
    with MeasurementLog(path) as log:
        intake = Intake(asked, board.name, log, events[0]["note"]["session"], references, stored_measurements(path))
        try:
            for event in events:
                if event.get("entry", "") in {"", *known}:
                    intake.take(event)
        except (DeviceError, TrustError):  # final; after an OutputError all is still there
            board.remove(left.folder)
            raise
    board.remove(left.folder)
    if events[-1]["event"] != "end":
        raise ended(left.code, left.words, board.name)
    return intake.measurements
