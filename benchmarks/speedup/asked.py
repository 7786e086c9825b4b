"""Is a network as fast as was asked, and what does it cost to look at time instead of at MACs?

    python benchmarks/speedup/asked.py FOLDER mobilenet_v2 [--runtime onnxruntime] [--ratios 1.2 1.5 2] [--only asked]
        [--scope all]
    python benchmarks/speedup/asked.py FOLDER --table

This machine is the board, one thread. For each ratio:

- **asked**: the closed loop of `compress --speedup` (at most three rounds, until the lower end of the interval reaches
  what was asked). The plan that it ends with is then timed once more beside the uncut network, for the loop has chosen
  it by its own time: that second time is told, and whether it reaches what was asked.
- **equal**: what is lost at the same speed by three ways to choose widths, all with the same scores (criterion
  `reconstruction`): *time*, least damage in the time, as `compress --speedup`; *MACs*, least damage in so many MACs, as
  `compress --macs`; *uniform*, the same share of each space. Each is made for the ratio as the same table foretells it,
  and where it is measured more than 1 % faster or slower, made anew for so much less or more, at most three times: the
  one that comes nearest is it. Then the three are timed once more, in one run, which is what is told. What they lose
  comes from the refit model (as `compress` recovers by default) on the second half of the images; the first half chose
  what `compress` does by default.

ResNet-18 has no weights here: of it only what was asked, and times.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from operator import itemgetter
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from boards import REPOSITORY, RUNTIMES, Talk, arguments, opened, profiled

sys.path.insert(0, str(REPOSITORY / "benchmarks" / "recovery"))
from tasks import TASKS, points, right

from edgeprune.bench.compare import Comparison
from edgeprune.criteria import configure
from edgeprune.cutting import Traced, cut
from edgeprune.errors import BudgetError
from edgeprune.files import append_lines, whole_lines
from edgeprune.inputs import Photos
from edgeprune.journal import Journal, Nobody
from edgeprune.latency import LatencyTable
from edgeprune.plan import Budget, PruningPlan
from edgeprune.prune.allocate import Scope, Scored, allocate, left_whole
from edgeprune.prune.score import Scorer
from edgeprune.prune.shapes import Shapes
from edgeprune.reaching import reach
from edgeprune.recover.reconstruct import Cut, reconstruct
from edgeprune.target import load_target
from edgeprune.trying import Board, widths_of
from edgeprune.variants import VariantFiles
from edgeprune.worker.runtimes import RUNTIMES as FORMATS

LOG = "asked.jsonl"
PARTS = ("asked", "equal")
ROUNDS = 48
MATCHING_ROUNDS = 24
CORRECTIONS = 3
ALIKE = 0.01
"""Share by which a speed may differ from what it is to be."""
CALIBRATION = {"mobilenet_v2": 256, "resnet56": 1000, "resnet18": 8}
RATIOS = (1.2, 1.5, 2.0)

Row = dict[str, Any]
Planner = Callable[[float], PruningPlan]


def given(network: str) -> tuple[Traced, Photos | None, list[torch.Tensor]]:
    """A network, its images, and what to score its filters on."""
    if network in TASKS:
        uncut = TASKS[network].uncut(Journal(Nobody()))
        photos = TASKS[network].photos(uncut, CALIBRATION[network], "second")
        return uncut, photos, photos.batches(uncut.model)
    uncut = opened(network)
    return uncut, None, [torch.randn(CALIBRATION[network], *uncut.model.input.shape)]


def planners(uncut: Traced, scored: Scored, board: Board, multiple: int) -> dict[str, Planner]:
    """Way -> a plan for a speed-up that the board's table foretells."""

    def plan(budget: Budget, of: Scored) -> PruningPlan:
        return allocate(uncut.channel_map, of, budget, multiple, board.times)

    def by_macs(speedup: float) -> PruningPlan:
        low, high = 0.02, 1.0  # shares of the MACs: the largest that is fast enough lies between
        found = None
        for _ in range(14):
            middle = (low + high) / 2
            try:
                tried = plan(Budget(macs=middle), scored)
            except BudgetError:
                low = middle
                continue
            if board.foretold(tried) >= speedup:
                found, low = tried, middle
            else:
                high = middle
        if found is None:
            raise BudgetError(f"no MACs are foretold to be {speedup:.3g}x as fast", fix="Ask for less.")
        return found

    return {
        "time": lambda speedup: plan(Budget(speedup=speedup), scored),
        "MACs": by_macs,
        "uniform": lambda speedup: plan(Budget(speedup=speedup), replace(scored, damage={})),
    }


def scored_for(uncut: Traced, batches: list[torch.Tensor], ratio: float, scope: Scope) -> Scored:
    """The filters' scores and damage where about so much is to go."""
    whole = left_whole(uncut.channel_map, scope)
    names = [space.name for space in uncut.channel_map.spaces if space.name not in whole]
    scorer = Scorer(uncut.channel_map, uncut.program, uncut.model.module, batches)
    return scorer.score(configure("reconstruction"), names, share=Budget(speedup=ratio).share, damage=True)


def recovered(plan: PruningPlan, uncut: Traced, batches: list[torch.Tensor]) -> Traced:
    """The cut network, refitted."""
    start, pruned = cut(plan, uncut, Journal(Nobody()))
    both = Cut(start.model, pruned.model, plan, start.channel_map, start.program, pruned.program)
    model, _ = reconstruct(both, batches)
    return replace(pruned, model=model)


@dataclass(frozen=True)
class Subject:
    """A network on the board of a table.

    Attributes:
        network: its name.
        runtime: of the table.
        scope: which spaces are cut.
        table: of this machine.
        uncut: the network.
        photos: its images; None where it has no weights.
        batches: to score filters on.
        files: of it and of what is cut of it.
    """

    network: str
    runtime: str
    scope: Scope
    table: LatencyTable
    uncut: Traced
    photos: Photos | None
    batches: list[torch.Tensor]
    files: VariantFiles

    def board(self) -> Board:
        """This machine, as the table knows it before anything is tried."""
        shapes = Shapes(self.uncut.program, self.uncut.channel_map)
        return Board("local", self.table, shapes, self.files, False, Journal(Talk()))

    def timed(self, plans: Mapping[str, PruningPlan], rounds: int = ROUNDS) -> dict[str, Comparison]:
        """Each plan beside the uncut network, in one run; those that two runs say nothing of are not in it."""
        artifacts = self.files.of([plan.keep for plan in plans.values()])
        found = self.board().timed(artifacts, self.files.folder, rounds)
        return {name: found[one.path] for name, one in zip(plans, artifacts[1:], strict=True) if one.path in found}

    def row(self, part: str, ratio: float, **more: Any) -> Row:
        """A line of the log."""
        its = {"network": self.network, "runtime": self.runtime, "scope": self.scope}
        return {**its, "part": part, "ratio": ratio, **more}


def asked(subject: Subject, scored: Scored, ratio: float, multiple: int) -> Row:
    """The loop's rounds, and its plan timed once more."""
    board = subject.board()
    plan_for = planners(subject.uncut, scored, board, multiple)["time"]
    try:
        decision = reach(ratio, plan_for, board, lambda tried: ratio, Journal(Talk()))  # noqa: ARG005
    except BudgetError as error:
        return subject.row("asked", ratio, trials=[], unreachable=error.what.partition(": ")[2])
    trials = [
        {"solved_for": one.solved_for, "foretold": one.foretold, "measured": one.measured, "ci95": one.ci95}
        for one in decision.trials
    ]
    again = subject.timed({"plan": decision.plan}).get("plan")
    told = {"measured": again.ratio, "ci95": again.ci95} if again else {}
    return subject.row("asked", ratio, trials=trials, macs_kept=decision.plan.macs_kept, **told)


def alike(subject: Subject, scored: Scored, ratio: float, multiple: int) -> dict[str, PruningPlan]:
    """A plan of each way, of a few that were measured the one that is most nearly as fast as is wanted."""
    plan_for = planners(subject.uncut, scored, subject.board(), multiple)
    goals, off = dict.fromkeys(plan_for, ratio), {way: plan_for[way](ratio) for way in plan_for}
    tried: dict[str, list[tuple[float, PruningPlan]]] = {way: [] for way in plan_for}
    for _ in range(1 + CORRECTIONS):
        found = subject.timed(off, MATCHING_ROUNDS)
        for way, its in found.items():
            tried[way].append((abs(its.ratio / ratio - 1), off[way]))
            print(f"  {way}: solved for {goals[way]:.4g}x, {its.ratio:.4g}x [{its.ci95[0]:.4g}, {its.ci95[1]:.4g}]")
        goals |= {way: goals[way] * ratio / its.ratio for way, its in found.items()}
        off = {
            way: new
            for way in found
            if nearest(tried[way])[0] > ALIKE and (new := other(plan_for[way], goals[way], tried[way])) is not None
        }
        if not off:
            break
    return {way: nearest(its)[1] for way, its in tried.items() if its}


def nearest(tried: list[tuple[float, PruningPlan]]) -> tuple[float, PruningPlan]:
    """The plan whose speed differs least from what it is to be, with the difference."""
    return min(tried, key=itemgetter(0))


def other(plan_for: Planner, goal: float, tried: list[tuple[float, PruningPlan]]) -> PruningPlan | None:
    """A plan for a goal, where there is one and it was not tried before."""
    try:
        plan = plan_for(goal)
    except BudgetError:
        return None
    return None if widths_of(plan) in [widths_of(one) for _, one in tried] else plan


def equal(subject: Subject, scored: Scored, ratio: float, multiple: int, before: np.ndarray) -> Row:
    """Three plans that are as fast: times and accuracy."""
    assert subject.photos is not None
    try:
        plans = alike(subject, scored, ratio, multiple)
    except BudgetError as error:
        return subject.row("equal", ratio, ways={}, unreachable=error.what.partition(": ")[2])
    times, ways, answers = subject.timed(plans), {}, {}
    for way, plan in plans.items():
        answers[way] = right(recovered(plan, subject.uncut, subject.batches), subject.photos.scoring)
        ways[way] = {"macs_kept": plan.macs_kept, "to_uncut": points(answers[way], before)}
        if way in times:
            ways[way] |= {"measured": times[way].ratio, "ci95": times[way].ci95}
        if "time" in answers and way != "time":
            ways[way]["time_to_this"] = points(answers["time"], answers[way])
    return subject.row("equal", ratio, ways=ways)


def take(folder: Path, network: str, runtime: str, scope: Scope, ratios: list[float], parts: tuple[str, ...]) -> None:
    """Each ratio and part; a line in the log each."""
    found = profiled(folder, network, runtime, scope)
    target = load_target("rpi4")
    uncut, photos, batches = given(network)
    before = right(uncut, photos.scoring) if photos else None
    for ratio in ratios:
        scored = scored_for(uncut, batches, ratio, scope)
        with tempfile.TemporaryDirectory(prefix="edgeprune-") as name:
            files = VariantFiles(Path(name), uncut, target, FORMATS[runtime].format, Journal(Talk()))
            subject = Subject(network, runtime, scope, found.table, uncut, photos, batches, files)
            rows = [asked(subject, scored, ratio, target.channel_multiple)] if "asked" in parts else []
            append_lines(folder / LOG, rows)
            if "equal" in parts and before is not None:
                rows.append(equal(subject, scored, ratio, target.channel_multiple, before))
                append_lines(folder / LOG, rows[-1:])
        print("\n".join(map(json.dumps, rows)), flush=True)


def interval(its: Row) -> str:
    """A speed-up with its interval."""
    if "ci95" not in its:
        return "too busy"
    low, high = its["ci95"]
    return f"{its['measured']:.2f}x [{low:.2f}, {high:.2f}]"


def line(*cells: object) -> str:
    """A row of a table in Markdown."""
    return f"| {' | '.join(map(str, cells))} |"


def titled(row: Row) -> tuple[str, str, str]:
    """The network, cut where it is not inside its blocks alone, the runtime, and what was asked for."""
    where = "" if row.get("scope", "inner") == "inner" else f", scope {row['scope']}"
    return row["network"] + where, row["runtime"], f"{row['ratio']:g}x"


def tables(rows: list[Row]) -> str:
    """As Markdown: what was asked for, then what it costs at equal speed."""
    asked_heads = ("network", "runtime", "asked", "rounds, each measured", "timed once more", "reached", "MACs kept")
    lines = [line(*asked_heads), "|" + "---|" * len(asked_heads)]
    for row in (one for one in rows if one["part"] == "asked"):
        rounds = row.get("unreachable") or ", ".join(interval(one) for one in row["trials"])
        again = "-" if "unreachable" in row else interval(row)
        reached = "yes" if row.get("ci95", [0])[0] >= row["ratio"] else "no"
        kept = f"{row['macs_kept']:.0%}" if "macs_kept" in row else "-"
        lines.append(line(*titled(row), rounds, again, reached, kept))
    equal_heads = (
        "network",
        "runtime",
        "wanted",
        "widths by",
        "measured",
        "MACs kept",
        "to uncut, points",
        "time's to this",
    )
    lines += ["", line(*equal_heads), "|" + "---|" * len(equal_heads)]
    for row in (one for one in rows if one["part"] == "equal"):
        if "unreachable" in row:
            lines.append(line(*titled(row), "-", row["unreachable"], "-", "-", "-"))
        for way, its in row["ways"].items():
            kept = f"{its['macs_kept']:.0%}"
            lines.append(line(*titled(row), way, interval(its), kept, its["to_uncut"], its.get("time_to_this", "")))
    return "\n".join(lines)


def main() -> None:
    """Go on, or print the table."""
    parser = arguments(__doc__)
    parser.add_argument("--runtime", choices=RUNTIMES, default=RUNTIMES[0])
    parser.add_argument("--ratios", nargs="+", type=float, default=list(RATIOS))
    parser.add_argument("--scope", choices=get_args(Scope), default="inner")
    parser.add_argument("--only", choices=PARTS)
    options = parser.parse_args()
    if options.table:
        print(tables(whole_lines(options.folder / LOG)))
    else:
        parts = (options.only,) if options.only else PARTS
        take(options.folder, options.network, options.runtime, options.scope, options.ratios, parts)


if __name__ == "__main__":
    main()
