"""The corridor: compress() walks a model through the rooms, stage after stage, and leaves a run folder behind."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from edgeprune.bench.session import save_inputs
from edgeprune.bench.trust import doubts
from edgeprune.criteria import configure
from edgeprune.cutting import Traced, cut, traced
from edgeprune.deciding import Decision, decide
from edgeprune.distilling import Study, check_trainable
from edgeprune.errors import EdgepruneError
from edgeprune.explaining import explained
from edgeprune.export.child import end_child
from edgeprune.export.race import Race
from edgeprune.export.write import check_size
from edgeprune.exporting import export_files, goal_of, score_files, wanted_files, write_script
from edgeprune.fastest import fastest, kept_in, only_chosen, walked_formats
from edgeprune.files import write_lines
from edgeprune.inputs import Photos, chosen_formats, food, named_model, named_photos, with_classes
from edgeprune.journal import Journal, Listener, Nobody
from edgeprune.judge import accuracy_of
from edgeprune.latency import LatencyTable
from edgeprune.measuring import measured_run, not_faster, untimed
from edgeprune.model import Model, save_model
from edgeprune.plan import PruningPlan
from edgeprune.prune.allocate import left_whole
from edgeprune.prune.prior import prior_of
from edgeprune.prune.surgery import check_plan
from edgeprune.racing import race_of
from edgeprune.recovery import Recovery, recover
from edgeprune.remembering import kept_until_done
from edgeprune.reopening import data_use
from edgeprune.report import mixed
from edgeprune.report.build import Evidence, Pruning, build
from edgeprune.report.document import Report
from edgeprune.report.parts import RunFacts, Stage, Subject
from edgeprune.request import Request
from edgeprune.runfolder import check_free, staged
from edgeprune.target import Target, load_target
from edgeprune.train.group import check_alone
from edgeprune.train.recipe import DistilOrder
from edgeprune.trying import look_at
from edgeprune.versions import versions

UNSAFE = re.compile(r"[^\w.-]+")
"""What is not put into the name of a folder."""
ROWS = "training.jsonl"
"""What was found on the way, where a model was trained: a JSON document a line."""
_BENCH_IMAGES = 8


@dataclass(frozen=True, eq=False)
class Result:
    """What became of a model.

    Attributes:
        plan: the decision.
        uncut: the model before.
        pruned: the model after the cut.
        recovery: what was done to make it good again, and the model that is handed over.
    """

    plan: PruningPlan
    uncut: Traced
    pruned: Traced
    recovery: Recovery


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a run came to.

    Attributes:
        plan: the decision.
        whole: channel space -> why it was left whole.
        report: everything found out; None after a dry run.
        folder: the run folder; None after a dry run.
        missed: why a speed-up or an accuracy that was asked for is not reached; empty if it is, or was not asked for.
        failure: why the files were not timed on the device that was named; None if they were, or none was.
    """

    plan: PruningPlan
    whole: dict[str, str]
    report: Report | None = None
    folder: Path | None = None
    missed: str = ""
    failure: EdgepruneError | None = None


def compress(request: Request, listener: Listener | None = None, order: DistilOrder | None = None) -> Outcome:
    """Prune a model, recover it, export it, verify and measure the files, and report.

    Args:
        request: what to do.
        listener: told how it goes.
        order: how to distil where the request says so; None for the defaults.

    Raises:
        EdgepruneError: see `edgeprune.errors`; nothing is left behind then, but what the same request goes on from.
    """
    request.check()
    order = order or DistilOrder()
    order.check()
    journal = Journal(listener or Nobody())
    target = load_target(request.target)
    criterion = configure(request.criterion, request.criterion_options)
    table = LatencyTable.load(request.table) if request.table else None
    formats = walked_formats(request, chosen_formats(request, target, journal), table)
    prior = prior_of(target) if request.budget.of_time and table is None else None
    if request.device:
        look_at(request.device, table, request.allow_mixed, journal)
    race = race_of(request, target, journal)
    given = Decision(PruningPlan.load(request.plan)) if request.plan else None
    with journal.stage("load"):
        model = named_model(request, journal)
    check_size(model, formats)
    out = request.out or Path("runs") / f"{UNSAFE.sub('-', model.name)}-{target.name}"
    if not request.dry_run:
        check_free(out, request.overwrite)
    photos = named_photos(request, model, journal)
    uncut, study = traced(model, journal), None
    if request.recover == "distill":
        check_alone()
        check_trainable(uncut.model)
        photos, study = study_of(request, order, photos, model, out, journal)
    uncut = with_classes(uncut, request.class_names, photos.scoring, photos.calibration)
    whole = left_whole(uncut.channel_map, request.scope)
    asked, times = (request, uncut, photos, criterion, target), table or prior
    with kept_until_done(place := kept_in(request, out), journal):
        if given or request.budget.max_drop is None:
            decision = given or decide(*asked, times, journal)
        else:
            assert times is not None
            decision = fastest(*asked, times, formats, place, journal)
            request = only_chosen(request, decision)
        plan = decision.plan
        check_plan(plan, uncut.channel_map)
        if request.dry_run:
            return Outcome(plan, whole)
        with staged(out) as folder:
            uncut, pruned = cut(plan, uncut, journal)
            refits = out.with_name(f"{out.name}.recovery")
            recovery = recover(request, plan, uncut, pruned, photos, refits, journal, study if plan.keep else None)
            result = Result(plan, uncut, pruned, recovery)
            report = conclude(request, result, photos, target, formats, folder, journal, decision, race)
    if study is not None:
        shutil.rmtree(study.place, ignore_errors=True)
    slow = decision.missed or not_faster(report, decision)
    missed = "; ".join(reason for reason in (slow, mixed.missed(report.artifacts)) if reason)
    return Outcome(plan, whole, report, out, missed, untimed(request, report, journal))


def study_of(
    request: Request, order: DistilOrder, photos: Photos, model: Model, out: Path, journal: Journal
) -> tuple[Photos, Study]:
    """The images to distil on, none of which is scored, and where it is kept if it is interrupted."""
    images, photos = food(
        order.data, order.limit, photos, model, journal, labels=bool(order.recipe.labels), seed=request.seed
    )
    return photos, Study(order, images, out.with_name(f"{out.name}.training"), request.seed)


def conclude(
    request: Request,
    result: Result,
    photos: Photos,
    target: Target,
    formats: Sequence[str],
    folder: Path,
    journal: Journal,
    decision: Decision | None = None,
    race: Race | None = None,
) -> Report:
    """Everything after the cut, into the run folder: score, save, export, verify, measure, report."""
    plan, uncut, pruned, recovery = result.plan, result.uncut, result.pruned, result.recovery
    recovered = recovery.model
    plan.save(folder / "plan.json")
    with journal.stage("accuracy") as tick:
        before = (uncut.program, uncut.model)
        accuracy = accuracy_of(before, pruned.program, recovery.steps, recovery.kept, photos.scoring, tick)
    save_model(recovered, folder)
    if recovery.rows:
        write_lines(folder / ROWS, recovery.rows)
    goal = None if request.max_drop is None else goal_of(uncut, photos, request.max_drop, journal)
    wanted = replace(wanted_files(request, target, formats, goal), race=race)
    artifacts = export_files(((uncut.model, uncut.cost), (recovered, pruned.cost)), wanted, folder, photos, journal)
    end_child()
    write_script(folder)
    scored = score_files(artifacts, folder, uncut.model.input, photos.scoring, journal)
    inputs = photos.first(uncut.model, _BENCH_IMAGES)
    save_inputs(inputs, folder)
    measurements, comparisons = measured_run(request, artifacts, target, folder, inputs, decision, journal)
    found = [doubts(one) for one in measurements]
    weights, parameters = uncut.model.weights, uncut.cost.parameters
    with journal.stage("report"):
        facts = RunFacts(
            command=request.command,
            seed=request.seed,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            versions=versions(),
            stages=tuple(Stage(name, round(seconds, 3)) for name, seconds in journal.seconds.items()),
            warnings=tuple(journal.warnings),
            notes=decision.notes if decision else (),
        )
        report = build(
            Subject(uncut.model.name, uncut.model.source, parameters, uncut.model.input, weights),
            target,
            Pruning(plan, uncut.cost, pruned.cost, left_whole(uncut.channel_map, request.scope), recovery.method),
            Evidence(data_use(photos), accuracy, artifacts, measurements, comparisons, found, scored),
            facts,
        )
        report = replace(report, explanations=explained(folder, artifacts))
        if decision:
            predicted = replace(report.budget, predicted=decision.predicted)
            report = replace(report, budget=predicted, front=decision.front)
        report.save(folder)
    return report
