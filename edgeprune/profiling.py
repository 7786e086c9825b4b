"""profile(): a network cut in many ways, each variant timed on a board: the table on which --speedup is solved."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgeprune.artifact import Artifact
from edgeprune.bench.faults import ConnectionLostError
from edgeprune.bench.profiling import profile as profile_files
from edgeprune.bench.session import measure
from edgeprune.bench.single import made_up_images
from edgeprune.bench.transport import open_device
from edgeprune.bench.trust import Reason, doubts
from edgeprune.channels import Kept
from edgeprune.cutting import traced
from edgeprune.errors import DeviceError, TrustError, UsageError
from edgeprune.journal import Journal, Listener, Nobody
from edgeprune.latency import Conditions, LatencyTable, Variant
from edgeprune.measurement import Measurement
from edgeprune.model import load_model
from edgeprune.prune.shapes import Shapes
from edgeprune.prune.time_budget import most_in_time
from edgeprune.prune.timing import Times
from edgeprune.prune.timing_check import Check, check, check_by_macs
from edgeprune.registry import unknown
from edgeprune.request import Request
from edgeprune.target import load_target
from edgeprune.trying import accept, conditions_of, look_at, timed_variants
from edgeprune.variants import VariantFiles, choices_of, spread, variants_of
from edgeprune.worker.runtimes import RUNTIMES

BATCH = 5
"""Variants that are timed in turns with the uncut network, in one run."""
ROUNDS = 16
"""An error of the uncut network's time in a run is one of all its variants; with 8 these came to 7 %."""
_GOES_ON = "What was timed before is in the table: the same command goes on."


@dataclass(frozen=True)
class ProfileOrder:
    """What to time, and where.

    Attributes:
        request: of which model, weights, input shape, mean, std, target and scope count.
        table: the file to write, or to add to where it is there.
        device: "local", "ssh://...", "docker://..." or "podman://...".
        runtime: to time in; None for the target's preferred one.
        threads: that it is to use.
        minutes: begin no batch after so long; None for no limit.
    """

    request: Request
    table: Path
    device: str = "local"
    runtime: str | None = None
    threads: int = 1
    minutes: float | None = None

    def check(self) -> None:
        """Refuse what cannot be done.

        Raises:
            UsageError: which option, and what it may be.
        """
        self.request.check()
        if self.runtime is not None and self.runtime not in RUNTIMES:
            raise unknown("--runtime", self.runtime, RUNTIMES)
        if self.threads < 1:
            raise UsageError(f"--threads must be at least 1, got {self.threads}", fix="For example: --threads 4")
        if self.minutes is not None and not 0 < self.minutes < float("inf"):
            raise UsageError(f"--minutes must be above 0, got {self.minutes}", fix="For example: --minutes 10")


@dataclass(frozen=True, eq=False)
class Profiled:
    """What timing came to.

    Attributes:
        table: with the new variants.
        path: where it is.
        fingerprint: of the network.
        checked: how well it foretells variants it did not see; None where it has too few.
        by_macs: the same, foretold from MACs alone.
        reachable: the largest speed-up that the table foretells of any widths.
    """

    table: LatencyTable
    path: Path
    fingerprint: str
    checked: Check | None
    by_macs: Check | None
    reachable: float

    def to_json(self) -> dict[str, Any]:
        """What was found, without the single times, which are in the table."""
        network = self.table.networks[self.fingerprint]
        checks = {"by_table": self.checked, "by_macs": self.by_macs}
        return {
            "schema": 1,
            "table": str(self.path),
            "conditions": vars(self.table.conditions),
            "network": network.name,
            "variants": len(network.variants),
            "uncut_ms": float(np.median([one.uncut_ms for one in network.variants])),
            "foretold": {name: vars(one) if one else None for name, one in checks.items()},
            "largest_foretold_speed_up": self.reachable,
        }


def profile(order: ProfileOrder, listener: Listener | None = None) -> Profiled:
    """Time variants of a network on a board, batch by batch; the table is written after each, and gone on with later.

    Raises:
        EdgepruneError: see `edgeprune.errors`; the batches before are in the table.
    """
    order.check()
    journal = Journal(listener or Nobody())
    request, target = order.request, load_target(order.request.target)
    runtime = order.runtime or target.runtimes[0]
    table = LatencyTable.load(order.table) if order.table.exists() else None
    _check_table(order, runtime, table)
    look_at(order.device, table, order.request.allow_mixed, journal)
    with journal.stage("load"):
        model = load_model(request.model, weights=request.weights, input_shape=request.input_shape)
    uncut = traced(model, journal)
    shapes = Shapes(uncut.program, uncut.channel_map)
    choices = choices_of(uncut, request.scope, target.channel_multiple)
    if not choices:
        raise UsageError("no channel space of this model may be cut", fix="Try --scope all; see edgeprune inspect.")
    every = variants_of(choices)
    done = len(table.networks[shapes.fingerprint].variants) if table and shapes.fingerprint in table.networks else 0
    if done:
        journal.say(f"{done} of {len(every)} variants are in {order.table} already")
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="edgeprune-") as folder:
        files = VariantFiles(Path(folder), uncut, target, RUNTIMES[runtime].format, journal)
        while done < len(every) and (order.minutes is None or time.monotonic() - begin < 60 * order.minutes):
            batch = [spread(one, shapes.sizes) for one in every[done : done + BATCH]]
            conditions, found = _batch(order, runtime, files, batch, shapes, journal)
            table = _extended(table, conditions, order, shapes, model.name, found, journal)
            table.save(order.table)
            done += len(found)
            journal.say(f"{done} of {len(every)} variants timed")
    if table is None or shapes.fingerprint not in table.networks:
        raise UsageError("no variant was timed", fix="Give more --minutes.")
    return _concluded(table, order.table, shapes, choices)


def _check_table(order: ProfileOrder, runtime: str, table: LatencyTable | None) -> None:
    """Refuse a table for other settings, before anything is timed.

    Raises:
        UsageError: which differs.
    """
    if table is None:
        return
    for option, there, asked in (
        ("--runtime", table.conditions.runtime, runtime),
        ("--threads", table.conditions.threads, order.threads),
    ):
        if there != asked:
            what = f"the table is of {option} {there}, not {asked}"
            raise UsageError(what, where=str(order.table), fix="Name another file with --table.")


def _batch(
    order: ProfileOrder,
    runtime: str,
    files: VariantFiles,
    keeps: Sequence[Kept],
    shapes: Shapes,
    journal: Journal,
) -> tuple[Conditions, tuple[Variant, ...]]:
    """Time some variants beside the uncut network: first as whole calls in turns, then operator by operator.

    Raises:
        TrustError: the times are not trustworthy, twice.
    """
    artifacts = files.of([one for one in keeps if one])
    try:
        measured = _timed(order, runtime, artifacts, files.folder, journal)
        with journal.stage(f"profile {order.device}") as tick, open_device(order.device) as transport:
            profiles, refused = profile_files(
                artifacts,
                files.folder,
                made_up_images(artifacts[0].input_shape)[:1],
                order.threads,
                transport=transport,
                runtimes=(runtime,),
                tick=tick,
            )
    except ConnectionLostError as error:
        raise DeviceError(error.what, where=order.device, fix=_GOES_ON) from error
    if refused:
        raise DeviceError(f"{refused[0].runtime} cannot be profiled: {refused[0].reason}", fix=refused[0].fix)
    return conditions_of(measured[0]), timed_variants(keeps, measured, profiles, shapes)


def _timed(
    order: ProfileOrder, runtime: str, artifacts: Sequence[Artifact], folder: Path, journal: Journal
) -> tuple[Measurement, ...]:
    """Time whole calls in turns, once more where that is not trustworthy.

    Raises:
        TrustError: it is not twice, or the board is an emulated one.
    """
    for last in (False, True):
        with journal.stage(f"bench {order.device}") as tick, open_device(order.device) as transport:
            measured = measure(
                artifacts,
                folder,
                made_up_images(artifacts[0].input_shape),
                (order.threads,),
                transport=transport,
                runtimes=(runtime,),
                rounds=ROUNDS,
                tick=tick,
            )
        fatal = [doubt for one in measured for doubt in doubts(one) if doubt.fatal]
        if not fatal:
            break
        if fatal[0].reason is Reason.EMULATED:
            what = f"EMULATED: {len(artifacts)} files work there, and their times say nothing: no table is made of them"
            raise TrustError(what, where=order.device, fix=fatal[0].reason.value.remedy)
        if last:
            what = f"the times are not trustworthy: {fatal[0]}"
            raise TrustError(what, where=order.device, fix=f"{fatal[0].reason.value.remedy} {_GOES_ON}")
        journal.say(f"not trustworthy, timed once more: {fatal[0]}")
    return measured


def _extended(
    table: LatencyTable | None,
    conditions: Conditions,
    order: ProfileOrder,
    shapes: Shapes,
    name: str,
    found: tuple[Variant, ...],
    journal: Journal,
) -> LatencyTable:
    """The table with what was timed now.

    Raises:
        UsageError: it is of other conditions.
    """
    table = table or LatencyTable(conditions)
    if different := table.conditions.differ(conditions):
        accept(different, order.request.allow_mixed, str(order.table), journal)
        table = replace(table, mixed=tuple(dict.fromkeys((*table.mixed, different))))
    return table.with_variants(shapes.fingerprint, name, found)


def _concluded(table: LatencyTable, path: Path, shapes: Shapes, choices: Mapping[str, Sequence[int]]) -> Profiled:
    network = table.networks[shapes.fingerprint]
    times = Times(shapes, network)
    every = {name: [shapes.sizes[name], *widths] for name, widths in choices.items()}
    return Profiled(
        table=table,
        path=path,
        fingerprint=shapes.fingerprint,
        checked=check(shapes, network),
        by_macs=check_by_macs(shapes, network),
        reachable=most_in_time(times, every),
    )
