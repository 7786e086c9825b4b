"""bench(): files that exist, timed against each other on one or more devices; a run's report is written anew."""

from __future__ import annotations

import os
import shlex
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from edgeprune.artifact import RUNTIME_OF_FORMAT
from edgeprune.bench.collect import collect
from edgeprune.bench.compare import compare
from edgeprune.bench.device import SshDevice, parse_device
from edgeprune.bench.faults import ConnectionLostError
from edgeprune.bench.fleet import Opener, side_by_side
from edgeprune.bench.profiling import PROFILES_NAME, Refusal, profile
from edgeprune.bench.reference import host_outputs
from edgeprune.bench.roofline import forbidden
from edgeprune.bench.session import LOG_NAME, ROUNDS, measure
from edgeprune.bench.ssh import Ssh
from edgeprune.bench.transport import open_device
from edgeprune.bench.trust import doubts
from edgeprune.benched import Benched
from edgeprune.errors import DeviceError
from edgeprune.explaining import explained
from edgeprune.journal import Journal, Listener, Nobody
from edgeprune.material import Material, material_of
from edgeprune.measurement import Measurement, load_measurements
from edgeprune.order import Order
from edgeprune.profile import Profile, append_profiles
from edgeprune.report.build import bench_report, with_times
from edgeprune.report.document import Report
from edgeprune.report.machines import asked_for, machine_name, told_apart
from edgeprune.report.parts import RunFacts
from edgeprune.sustained import sustained
from edgeprune.target import HOST_THREADS


def bench(order: Order, listener: Listener | None = None) -> Benched:
    """Measure files against each other, interleaved, on each device; on several machines at once.

    The samples are appended to the run's `measurements.jsonl`, and its report is written anew with the new times beside
    those of other devices. A device that fails does not keep others from being measured.

    Raises:
        EdgepruneError: see `edgeprune.errors`; what was measured before it stays in the run folder.
    """
    order.check()
    journal = Journal(listener or Nobody())
    with ExitStack() as stack:
        scratch = order.out or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edgeprune-")))
        material = material_of(order.files, order.runtimes, scratch) if order.files else None
        runtimes = sorted({one.runtime for one in material.artifacts} if material else order.runtimes)
        profiles: dict[str, tuple[tuple[Profile, ...], tuple[Refusal, ...]]] = {}

        def work(device: str, opened: Opener) -> tuple[Measurement, ...]:
            if order.set_up:
                _set_up(order, device, runtimes, journal)
            found = _measured(order, material, device, opened, journal) if material else ()
            if material and order.profile and not any(one.emulated for one in found):
                profiles[device] = _profiled(order, material, device, opened, journal)
            if order.clean:
                _clean(device, journal)
            return found

        found, failures = side_by_side(tuple(dict.fromkeys(order.devices)), open_device, work)
    measurements = told_apart([one for its in found.values() for one in its])
    found_doubts, comparisons = tuple(doubts(one) for one in measurements), compare(measurements)
    if material and not material.report and order.out:
        run = RunFacts(command=_command(order), seed=order.seed, created=_now())
        told = explained(order.out, material.artifacts)
        bench_report(material.artifacts, measurements, comparisons, found_doubts, run, told).save(order.out)
    return Benched(
        artifacts=material.artifacts if material else (),
        measurements=measurements,
        asked=tuple(device for device, its in found.items() for _ in its),
        doubts=found_doubts,
        comparisons=comparisons,
        sustained=sustained(measurements, machine_name, found_doubts),
        gate=order.gate,
        report=_rewritten(order, material) if material and material.report else None,
        failures=failures,
        profiles={device: its for device, (its, _) in profiles.items()},
        unprofiled=tuple(one for _, refused in profiles.values() for one in refused),
    )


def _measured(
    order: Order, material: Material, device: str, opened: Opener, journal: Journal
) -> tuple[Measurement, ...]:
    if order.collect:
        return _collected(material, device, opened, journal)
    threads, runtimes = _threads(order, device), order.runtimes
    if order.sustained_s:  # one setting, with the most threads: what came second would start hot
        threads, runtimes = threads[-1:], runtimes or (material.artifacts[0].runtime,)
    # Outputs need no comparison where they are computed as the reference is.
    same = device == "local" and not order.runtimes
    references = {} if same else host_outputs(material.artifacts, material.folder, material.images)
    try:
        with journal.stage(f"bench {device}") as tick, opened(device) as transport:
            return measure(
                material.artifacts,
                material.folder,
                material.images,
                threads,
                transport=transport,
                runtimes=runtimes,
                rounds=order.rounds or ROUNDS,
                seconds=(order.minutes or 0.0) * 60,
                sustained_s=order.sustained_s or 0.0,
                energy=order.energy,
                seed=order.seed,
                references=references,
                tick=tick,
            )
    except ConnectionLostError as error:
        later = ["edgeprune", "bench", *map(str, order.files), "--device", device, "--collect"]
        later += ["--out", str(order.out)] if order.out else []
        fix = f"The board finishes its work alone. To fetch it later: {shlex.join(later)}"
        raise DeviceError(error.what, where=device, fix=fix) from error


def _collected(material: Material, device: str, opened: Opener, journal: Journal) -> tuple[Measurement, ...]:
    references = host_outputs(material.artifacts, material.folder, material.images)
    with journal.stage(f"collect {device}"), opened(device) as board:
        assert isinstance(board, Ssh)
        return collect(board, material.artifacts, material.folder, references)


def _profiled(
    order: Order, material: Material, device: str, opened: Opener, journal: Journal
) -> tuple[tuple[Profile, ...], tuple[Refusal, ...]]:
    """What each operator takes; not under an emulator, where times mean nothing."""
    with journal.stage(f"profile {device}") as tick, opened(device) as transport:
        found, refused = profile(
            material.artifacts,
            material.folder,
            material.images,
            _threads(order, device)[0],
            transport=transport,
            runtimes=order.runtimes,
            tick=tick,
        )
    append_profiles(material.folder / PROFILES_NAME, found)
    return found, refused


def _threads(order: Order, device: str) -> tuple[int, ...]:
    return order.threads or ((1, 4) if isinstance(parse_device(device), SshDevice) else _own_threads())


def _own_threads() -> tuple[int, ...]:
    return tuple(sorted({1, min(len(os.sched_getaffinity(0)), HOST_THREADS)}))


def _set_up(order: Order, device: str, runtimes: Sequence[str], journal: Journal) -> None:
    from edgeprune.bench.setup import set_up

    with journal.stage(f"set up {device}"):
        names = tuple(runtimes) or tuple(RUNTIME_OF_FORMAT.values())
        set_up(device, names, say=journal.say, source=order.wheels)


def _clean(device: str, journal: Journal) -> None:
    from edgeprune.bench.setup import clean

    with journal.stage(f"clean {device}"):
        clean(device)


def _rewritten(order: Order, material: Material) -> Report:
    """The run's report with the newest times of every file on every machine, saved."""
    assert material.report
    newest = {
        (machine_name(one.device), asked_for(one), one.artifact, one.role, one.runtime, one.threads, one.sustained): one
        for one in load_measurements(material.folder / LOG_NAME)
    }
    macs = {one.sha256: one.macs for one in material.artifacts}
    kept = told_apart([one for one in newest.values() if not forbidden(one, macs.get(one.artifact, 0))])
    report = with_times(material.report, kept, compare(kept), [doubts(one) for one in kept])
    note = f"Timed again at {_now()} by: {shlex.join(_command(order))}"
    notes = tuple(line for line in report.run.notes if not line.startswith("Timed again at "))
    told = explained(material.folder, material.artifacts)
    report = replace(report, run=replace(report.run, notes=(*notes, note)), explanations=told)
    report.save(material.folder)
    return report


def _command(order: Order) -> tuple[str, ...]:
    return order.command or ("edgeprune", *sys.argv[1:])


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
