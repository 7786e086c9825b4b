"""profile(): a network cut in many ways, each variant timed on a board: the table on which --speedup is solved."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeprune.bench.profiling import profile as profile_files
from edgeprune.bench.session import measure
from edgeprune.bench.single import made_up_images
from edgeprune.bench.transport import open_device
from edgeprune.bench.trust import doubts
from edgeprune.cutting import traced
from edgeprune.errors import DeviceError, TrustError, UsageError
from edgeprune.journal import Journal, Listener, Nobody
from edgeprune.latency import Conditions, LatencyTable, Variant
from edgeprune.measurement import Measurement
from edgeprune.model import load_model
from edgeprune.profile import Profile
from edgeprune.prune.shapes import Shapes
from edgeprune.prune.timing import Check, Times, check, check_by_macs, layer_times
from edgeprune.registry import unknown
from edgeprune.report.machines import machine_name
from edgeprune.request import Request
from edgeprune.target import load_target
from edgeprune.variants import VariantFiles, choices_of, variant
from edgeprune.worker.runtimes import RUNTIMES

BATCH = 5
"""Variants that are timed in turns with the uncut network, in one run."""
ROUNDS = 8
_LEAST = 15
"""Variants: fewer say little of how well times are foretold."""


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
    with journal.stage("load"):
        model = load_model(request.model, weights=request.weights, input_shape=request.input_shape)
    uncut = traced(model, journal)
    shapes = Shapes(uncut.program, uncut.channel_map)
    choices = choices_of(uncut, request.scope, target.channel_multiple)
    if not choices:
        raise UsageError("no channel space of this model may be cut", fix="Try --scope all; see edgeprune inspect.")
    wanted = 1 + max(_LEAST, *map(len, choices.values()))
    done = len(table.networks[shapes.fingerprint].variants) if table and shapes.fingerprint in table.networks else 0
    if done:
        journal.say(f"{done} of {wanted} variants are in {order.table} already")
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="edgeprune-") as folder:
        files = VariantFiles(Path(folder), uncut, target, RUNTIMES[runtime].format, journal)
        while done < wanted and (order.minutes is None or time.monotonic() - begin < 60 * order.minutes):
            widths = [variant(choices, number) for number in range(done, min(wanted, done + BATCH))]
            conditions, found = _batch(order, runtime, files, widths, shapes, journal)
            table = _extended(table, conditions, order.table, shapes, model.name, found)
            table.save(order.table)
            done += len(found)
            journal.say(f"{done} of {wanted} variants timed")
    if table is None or shapes.fingerprint not in table.networks:
        raise UsageError("no variant was timed", fix="Give more --minutes.")
    return _concluded(table, order.table, shapes, choices)


def _batch(
    order: ProfileOrder,
    runtime: str,
    files: VariantFiles,
    widths: Sequence[Mapping[str, int]],
    shapes: Shapes,
    journal: Journal,
) -> tuple[Conditions, tuple[Variant, ...]]:
    """Time some variants beside the uncut network: first as whole calls in turns, then operator by operator.

    Raises:
        TrustError: the times are not trustworthy, twice.
    """
    artifacts = files.of([one for one in widths if one])
    images = made_up_images(artifacts[0].input_shape)
    for last in (False, True):
        with journal.stage(f"bench {order.device}") as tick, open_device(order.device) as transport:
            measured = measure(
                artifacts,
                files.folder,
                images,
                (order.threads,),
                transport=transport,
                runtimes=(runtime,),
                rounds=ROUNDS,
                tick=tick,
            )
        fatal = [doubt for one in measured for doubt in doubts(one) if doubt.fatal]
        if not fatal:
            break
        if last:
            fix = f"{fatal[0].reason.value.remedy} What was timed before is in the table: the same command goes on."
            raise TrustError(f"the times are not trustworthy: {fatal[0]}", where=order.device, fix=fix)
        journal.say(f"not trustworthy, timed once more: {fatal[0]}")
    with journal.stage(f"profile {order.device}") as tick, open_device(order.device) as transport:
        profiles, refused = profile_files(
            artifacts, files.folder, images, order.threads, transport=transport, runtimes=(runtime,), tick=tick
        )
    if refused:
        raise DeviceError(f"{refused[0].runtime} cannot be profiled: {refused[0].reason}", fix=refused[0].fix)
    return _conditions(measured[0]), _variants(widths, measured, profiles, shapes)


def _conditions(measured: Measurement) -> Conditions:
    board = machine_name(measured.device)
    return Conditions(board, measured.runtime, measured.runtime_version, measured.threads, measured.format)


def _variants(
    widths: Sequence[Mapping[str, int]], measured: Sequence[Measurement], profiles: Sequence[Profile], shapes: Shapes
) -> tuple[Variant, ...]:
    """What was measured of each variant; the uncut network is measured first, and counts where it is among them."""
    median = [float(np.median([block.median_ns for block in one.blocks])) / 1e6 for one in measured]
    found = []
    for its in widths:
        place = 1 + [one for one in widths if one].index(its) if its else 0
        layers, rest = layer_times(shapes.at(its), [(one.macs, one.ms) for one in profiles[place].operators])
        found.append(
            Variant({**shapes.sizes, **its}, median[place], median[0], layers, rest, shapes.activation_mb(its))
        )
    return tuple(found)


def _extended(
    table: LatencyTable | None,
    conditions: Conditions,
    path: Path,
    shapes: Shapes,
    name: str,
    found: tuple[Variant, ...],
) -> LatencyTable:
    """The table with what was timed now.

    Raises:
        UsageError: it is of other conditions.
    """
    table = table or LatencyTable(conditions)
    if different := table.conditions.differ(conditions):
        what = f"the table is of other conditions than these: {different}"
        raise UsageError(what, where=str(path), fix="Name another file with --table.")
    return table.with_variants(shapes.fingerprint, name, found)


def _concluded(table: LatencyTable, path: Path, shapes: Shapes, choices: Mapping[str, Sequence[int]]) -> Profiled:
    network = table.networks[shapes.fingerprint]
    times = Times(shapes, network)
    every = {name: [shapes.sizes[name], *widths] for name, widths in choices.items()}
    nothing = {name: np.zeros(len(widths)) for name, widths in every.items()}
    fastest = times.problem(nothing, every).fastest()
    return Profiled(
        table=table,
        path=path,
        fingerprint=shapes.fingerprint,
        checked=check(shapes, network),
        by_macs=check_by_macs(shapes, network),
        reachable=times.ms({}) / fastest.ms,
    )
