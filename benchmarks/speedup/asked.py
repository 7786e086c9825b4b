"""Is a network as fast as was asked, and what does it cost to look at time instead of at MACs?

    python benchmarks/speedup/asked.py FOLDER mobilenet_v2 [--runtime onnxruntime] [--ratios 1.2 1.5 2]
    python benchmarks/speedup/asked.py FOLDER --table

For each ratio, three ways to choose widths, all with the same scores (criterion `reconstruction`), each corrected on
this machine (one thread) by the closed loop of `edgeprune.deciding.reach` until the lower end of its interval reaches
what was asked, at most three rounds:

- time: as `compress --speedup` does it: least damage in the time that the board's table foretells;
- MACs: least damage in so many MACs, as `compress --macs`; how many is told by the table;
- uniform: the same share of each space; how large is told by the table.

Then all of them are timed once more beside the uncut network, in one run: that is what is told, and what counts as
reached. What they lose comes from the refit model (as `compress` recovers by default) on the second half of the
images; the first half chose what `compress` does by default. ResNet-18 has no weights here: of it only the first way,
and times.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from boards import REPOSITORY, RUNTIMES, Talk, arguments, opened, profiled

sys.path.insert(0, str(REPOSITORY / "benchmarks" / "recovery"))
from tasks import TASKS, points, right

from edgeprune.bench.compare import Comparison
from edgeprune.criteria import configure
from edgeprune.cutting import Traced, cut
from edgeprune.deciding import Trial, reach
from edgeprune.errors import BudgetError
from edgeprune.files import append_lines, whole_lines
from edgeprune.inputs import Photos
from edgeprune.journal import Journal, Nobody
from edgeprune.plan import Budget, PruningPlan
from edgeprune.prune.allocate import Scored, allocate, left_whole
from edgeprune.prune.score import Scorer
from edgeprune.prune.shapes import Shapes
from edgeprune.recover.reconstruct import Cut, reconstruct
from edgeprune.target import load_target
from edgeprune.trying import Board, widths_of
from edgeprune.variants import VariantFiles
from edgeprune.worker.runtimes import RUNTIMES as FORMATS

LOG = "asked.jsonl"
WAYS = ("time", "MACs", "uniform")
CALIBRATION = {"mobilenet_v2": 256, "resnet56": 1000, "resnet18": 8}
RATIOS = (1.2, 1.5, 2.0)

Row = dict[str, Any]
Planner = Callable[[float], PruningPlan]


def subject(network: str) -> tuple[Traced, Photos | None, list[torch.Tensor]]:
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


def scored_for(uncut: Traced, batches: list[torch.Tensor], ratio: float) -> Scored:
    """The filters' scores and damage where about so much is to go."""
    whole = left_whole(uncut.channel_map, "inner")
    names = [space.name for space in uncut.channel_map.spaces if space.name not in whole]
    scorer = Scorer(uncut.channel_map, uncut.program, uncut.model.module, batches)
    return scorer.score(configure("reconstruction"), names, share=Budget(speedup=ratio).share, damage=True)


def recovered(plan: PruningPlan, uncut: Traced, batches: list[torch.Tensor]) -> Traced:
    """The cut network, refitted."""
    start, pruned = cut(plan, uncut, Journal(Nobody()))
    both = Cut(start.model, pruned.model, plan, start.channel_map, start.program, pruned.program)
    model, _ = reconstruct(both, batches)
    return replace(pruned, model=model)


def timed_together(board: Board, files: VariantFiles, plans: Mapping[str, PruningPlan]) -> dict[str, Comparison]:
    """Each way's plan beside the uncut network, in one run; empty where two runs say nothing."""
    artifacts = files.of([widths_of(plan) for plan in plans.values()])
    found = board.timed(artifacts, files.folder)
    return {way: found[one.path] for way, one in zip(plans, artifacts[1:], strict=True) if one.path in found}


def told_trial(trial: Trial) -> Row:
    """A round of the loop, for the log."""
    return {"solved_for": trial.solved_for, "foretold": trial.foretold, "measured": trial.measured, "ci95": trial.ci95}


def rows_of(folder: Path, network: str, runtime: str, ratios: list[float], ways: list[str]) -> None:
    """Each ratio: plans, rounds, times, accuracy; a line in the log each."""
    found = profiled(folder, network, runtime)
    journal, target = Journal(Talk()), load_target("rpi4")
    uncut, photos, batches = subject(network)
    shapes = Shapes(uncut.program, uncut.channel_map)
    before = right(uncut, photos.scoring) if photos else None
    for ratio in ratios:
        scored = scored_for(uncut, batches, ratio)
        plans, trials = {}, {}
        with tempfile.TemporaryDirectory(prefix="edgeprune-") as name:
            files = VariantFiles(Path(name), uncut, target, FORMATS[runtime].format, journal)
            for way in ways if photos else WAYS[:1]:
                board = Board("local", found.table, shapes, files, False, journal)
                decision = reach(
                    ratio,
                    planners(uncut, scored, board, target.channel_multiple)[way],
                    board,
                    lambda tried: ratio,  # noqa: ARG005, B023 (called before the next ratio)
                    journal,
                )
                plans[way], trials[way] = decision.plan, decision.trials
            times = timed_together(Board("local", found.table, shapes, files, False, journal), files, plans)
        row: Row = {"network": network, "runtime": runtime, "asked": ratio, "ways": {}}
        answers: dict[str, np.ndarray] = {}
        for way, plan in plans.items():
            its: Row = {"trials": [told_trial(one) for one in trials[way]], "macs_kept": plan.macs_kept}
            if way in times:
                its |= {"measured": times[way].ratio, "ci95": times[way].ci95}
            if photos and before is not None:
                answers[way] = right(recovered(plan, uncut, batches), photos.scoring)
                its |= {"accuracy": float(answers[way].mean()), "to_uncut": points(answers[way], before)}
            row["ways"][way] = its
        for way in answers:
            if way != "time" and "time" in answers:
                row["ways"][way]["time_to_this"] = points(answers["time"], answers[way])
        append_lines(folder / LOG, [row])
        print(json.dumps(row), flush=True)


def interval(its: Row) -> str:
    """A speed-up with its interval."""
    low, high = its["ci95"]
    return f"{its['measured']:.2f}x [{low:.2f}, {high:.2f}]"


def table(rows: list[Row]) -> str:
    """As Markdown: each network, runtime, ratio and way."""
    lines = ["| network | runtime | asked | widths by | rounds | measured | reached | MACs kept | to uncut, points | "]
    lines[0] += "time's to this, points |"
    lines += ["|" + "---|" * 10]
    for row in rows:
        for way, its in row["ways"].items():
            cells = [row["network"], row["runtime"], f"{row['asked']:g}x", way, str(len(its["trials"]))]
            cells += [interval(its), "yes" if its["ci95"][0] >= row["asked"] else "no"] if "ci95" in its else ["?"] * 2
            cells += [f"{its['macs_kept']:.0%}", its.get("to_uncut", ""), its.get("time_to_this", "")]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Go on, or print the table."""
    parser = arguments(__doc__)
    parser.add_argument("--runtime", choices=RUNTIMES, default=RUNTIMES[0])
    parser.add_argument("--ratios", nargs="+", type=float, default=list(RATIOS))
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    options = parser.parse_args()
    if options.table:
        print(table(whole_lines(options.folder / LOG)))
    else:
        rows_of(options.folder, options.network, options.runtime, options.ratios, options.ways)


if __name__ == "__main__":
    main()
