"""The tables of a report, as text cells. Each renderer draws the same ones."""

from __future__ import annotations

from edgeprune.artifact import Artifact
from edgeprune.report import front, mixed, precisions
from edgeprune.report.document import Report
from edgeprune.report.energy import Energy
from edgeprune.report.headline import doubt, metric_name, short_name
from edgeprune.report.heat import heat
from edgeprune.report.numbers import change, count, duration, kept, scaled, share, significant, speed_up
from edgeprune.report.parts import SpeedUp, Timing
from edgeprune.report.scores import Step
from edgeprune.report.table import Column, Table
from edgeprune.report.timed import Timed
from edgeprune.report.wording import budget

ENERGY_COLUMNS = (
    Column("artifact"),
    Column("runtime", minor=True),
    Column("threads", number=True, short="thr"),
    Column("idle W", number=True, minor=True),
    Column("load W", number=True, minor=True),
    Column("mJ an image", number=True),
    Column("mJ above idle", number=True),
)
_INTERVALS = "Numbers in brackets are 95 % intervals."


def tables(report: Report) -> dict[str, Table]:
    """All tables with at least one row, by key, in reading order."""
    drawn = (
        front.table(report.front),
        speed(report),
        *heat(report),
        energy(report),
        files(report),
        precisions.table(report.files),
        mixed.table(report.artifacts),
        mixed.race_table(report.artifacts),
        precisions.graphs(report.artifacts),
        accuracy(report),
        cost(report),
        layers(report),
        protected(report),
        stages(report),
    )
    return {table.key: table for table in drawn if table.rows}


def speed(report: Timed) -> Table:
    """One row for each artifact, runtime, number of threads and machine: percentiles, speed-up, verdict."""
    sizes = {artifact.path: artifact.bytes for artifact in report.artifacts}
    found = {(row.candidate, row.runtime, row.threads, row.device): row for row in report.comparisons}
    references = {(row.baseline, row.runtime, row.threads, row.device) for row in report.comparisons}
    several = len(report.devices) > 1
    columns = (
        Column("artifact"),
        *((Column("device"),) if several else ()),
        Column("size", number=True, minor=True),
        Column("runtime", minor=True),
        Column("threads", number=True, short="thr"),
        Column("p50 ms", number=True),
        Column("p90 ms", number=True, minor=True),
        *_numbers("p99 ms", "speed-up [95 %]"),
        Column("detectable", number=True, minor=True),
        Column("verdict"),
    )
    rows = []
    for timing in report.measurements:
        key = (timing.artifact, timing.runtime, timing.threads, timing.device)
        artifact, *rest = _speed_row(timing, sizes.get(timing.artifact), found.get(key), key in references)
        rows.append((artifact, *((short_name(timing.device, report),) if several else ()), *rest))
    note = (
        "Time for one image. The speed-up is the uncut model's time divided by the pruned model's, timed in turns; "
        "a change of at least the detectable one would have been seen 4 times out of 5."
    )
    return Table("speed", "Speed", f"{note} {_INTERVALS}", columns, tuple(rows))


def energy(report: Timed) -> Table:
    """One row for each measurement whose energy was asked for: the machine's power, idle and under load, and joules."""
    several = len(report.devices) > 1
    artifact, *rest = ENERGY_COLUMNS
    columns = (artifact, *((Column("device"),) if several else ()), *rest)
    rows: list[tuple[str, ...]] = []
    told: dict[str, None] = {}
    found = [one for one in report.measurements if one.energy]
    if all(one.energy.unavailable for one in found if one.energy):
        machines = dict.fromkeys((one.device, energy_note(one.energy)) for one in found if one.energy)
        return Table("energy", "Energy", "", (Column("machine"), Column("energy")), tuple(machines))
    for one in found:
        if one.energy:
            where = (short_name(one.device, report),) if several else ()
            rows.append((one.artifact, *where, one.runtime, str(one.threads), *energy_cells(one.energy)))
            told[energy_note(one.energy)] = None
    return Table("energy", "Energy", " ".join(told), columns, tuple(rows))


def energy_cells(one: Energy) -> tuple[str, ...]:
    """Watts idle and under load, and millijoules of one image with and without the idle machine's."""
    watts = (one.idle_w, one.load_w)
    joules = (one.joules, one.joules_above_idle)
    return tuple(
        "-" if value is None else significant(scale * value)
        for scale, value in (*((1, watt) for watt in watts), *((1e3, joule) for joule in joules))
    )


def energy_note(one: Energy) -> str:
    """Where energy was measured and what it is of, or why it was not."""
    return f"Unavailable: {one.unavailable}." if one.unavailable else f"Measured by {one.source}: {one.covers}."


def _speed_row(timing: Timing, size: int | None, comparison: SpeedUp | None, reference: bool) -> tuple[str, ...]:
    ratio = speed_up(comparison.ratio, comparison.ci95) if comparison else "1x" if reference else "-"
    verdict = comparison.verdict if comparison else "reference" if reference else "-"
    mark = f" ({doubt(timing)})" if doubt(timing) else ""
    return (
        timing.artifact,
        "-" if size is None else scaled(size, "B"),
        f"{timing.runtime} {timing.runtime_version}",
        str(timing.threads),
        *(significant(value) for value in (timing.p50_ms, timing.p90_ms, timing.p99_ms)),
        ratio,
        change(comparison.detectable) if comparison else "-",
        verdict + mark,
    )


def files(report: Report) -> Table:
    """One row for each artifact: size, and parity with the torch model."""
    columns = (
        Column("artifact"),
        Column("precision", minor=True),
        Column("size", number=True),
        Column("parameters", number=True, minor=True),
        Column("MACs", number=True, minor=True),
        *_numbers("max |d|", "top-1 agreement"),
        Column("parity"),
    )
    note = "Parity: the file's outputs against those of the torch model it was written from, on real images."
    return Table("files", "Files", note, columns, tuple(_file_row(artifact) for artifact in report.artifacts))


def _file_row(artifact: Artifact) -> tuple[str, ...]:
    parity = artifact.parity
    checked = ("-", "-", "not checked")
    if parity:
        checked = (f"{parity.max_abs:.1e}", share(parity.top1_agreement), "passed" if parity.passed else "FAILED")
    return (
        artifact.path,
        artifact.precision,
        scaled(artifact.bytes, "B"),
        scaled(artifact.parameters),
        scaled(artifact.macs),
        *checked,
    )


def accuracy(report: Report) -> Table:
    """One row for each step that was scored: uncut, cut, norms alone, reconstruction, distillation."""
    scored = report.accuracy
    if scored is None:
        return Table("accuracy", "Accuracy", "", (), ())
    several = any(step.top5 is not None for step in scored.steps)
    changed = any(step.change for step in scored.steps)

    def text(value: float | None) -> str:
        return "-" if value is None else share(value, scored.ci95(value))

    def cells(step: Step) -> tuple[str, ...]:
        # The uncut model agrees with itself by definition, not by measurement.
        sure = scored.metric == "agreement" and step is scored.uncut
        return (
            _step_name(step, last=step is scored.steps[-1]),
            count(scored.images),
            share(1.0) if sure else text(step.share),
            *((step.change.points if step.change else "-",) if changed else ()),
            *((text(step.top5),) if several else ()),
        )

    columns = (
        Column("step"),
        Column("images", number=True, minor=True),
        *_numbers(metric_name(scored), *(("points",) if changed else ()), *(("Top-5",) if several else ())),
    )
    alone = any(step.name == "norms" for step in scored.steps[:-1])
    notes = [
        _INTERVALS,
        *(["Points: the change against the uncut model, counted image by image."] if changed else []),
        *(["Norms alone: what re-estimating their statistics would bring without a refit."] if alone else []),
    ]
    return Table("accuracy", "Accuracy", " ".join(notes), columns, tuple(map(cells, scored.steps)))


def _step_name(step: Step, *, last: bool) -> str:
    """A step in words; the model that is handed over is marked unless it is the last one, as it should be."""
    name = "norms alone" if step.name == "norms" else step.name
    return f"{name}, kept" if step.kept and not last else name


def cost(report: Report) -> Table:
    """MACs, parameters and activations, before and after."""
    before, after = report.cost.baseline, report.cost.pruned
    columns = (Column("per image"), *_numbers("uncut", "pruned", "kept"))
    rows = (
        ("MACs", count(before.macs), count(after.macs), kept(after.macs, before.macs)),
        ("parameters", count(before.parameters), count(after.parameters), kept(after.parameters, before.parameters)),
        (
            "peak activations, fp32",
            scaled(before.peak_activation_bytes, "B"),
            scaled(after.peak_activation_bytes, "B"),
            kept(after.peak_activation_bytes, before.peak_activation_bytes),
        ),
    )
    multiple = report.target.channel_multiple
    note = f"{budget(report)} Cut widths are rounded to multiples of {multiple}. 1 MAC = 2 FLOPs."
    return Table("cost", "Cost", note, columns, rows)


def layers(report: Report) -> Table:
    """The layers that became narrower."""
    columns = (Column("layer"), *_numbers("before", "after", "kept"))
    cut = [layer for layer in report.layers if layer.after != layer.before]
    whole = len(report.layers) - len(cut)
    rest = f"; {count(whole)} of {count(len(report.layers))} layers kept all of theirs" if whole else ""
    rows = ((layer.name, count(layer.before), count(layer.after), kept(layer.after, layer.before)) for layer in cut)
    return Table("layers", "Layers", f"Number of filters{rest}.", columns, tuple(rows))


def protected(report: Report) -> Table:
    """The layers that were left whole on purpose."""
    rows = tuple((one.name, one.reason) for one in report.protected)
    return Table("protected", "Left whole", "", (Column("layer"), Column("reason")), rows)


def stages(report: Report) -> Table:
    """Where the time of the run went."""
    taken = report.run.stages
    total = sum(stage.seconds for stage in taken)
    rows = [(stage.name, duration(stage.seconds), kept(stage.seconds, total)) for stage in taken]
    rows += [("all", duration(total), "")] if len(taken) > 1 else []
    columns = (Column("stage"), *_numbers("time", "share"))
    return Table("stages", "Where the time went", "", columns, tuple(rows))


def _numbers(*titles: str) -> tuple[Column, ...]:
    return tuple(Column(title, number=True) for title in titles)
