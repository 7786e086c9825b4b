"""How much nearer distillation brings a cut network to the uncut one, without labels, by the minutes that it is given.

    python benchmarks/recovery/distillation.py resnet56 --minutes 10 --threads 1
    python benchmarks/recovery/distillation.py mobilenet_v2 --minutes 30 --threads 1 --optimiser adamw --lr 5e-5 \
        --freeze-norms --batch 32

ResNet-56 at 51.3 % of its MACs, any width, distilled on the 50,000 training images of CIFAR-10 (JPEG-75 copy);
MobileNet-V2 at 65 %, widths in multiples of 8, on 1,000 ImageNet images, each three times, and 22,000 of Tiny-ImageNet,
64x64, as 5,500 mosaics of four (`--food` names others). Cut by the criterion `reconstruction`, widths by damage,
recovered by `blocks`, then distilled. Minutes are those of the processor, all threads together, so that a busy machine
counts for little; they begin with the refit, and what scoring takes is left out. Each line is the network as it would
be if it ended there, on some test images of the half that is reported on; then the end, on all of them, with the 95 %
interval of the difference, image by image. Choices were made on the other half. Wants EDGEPRUNE_DATA.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tasks import HALVES, TASKS, plan_for, points, right
from torch import nn

from edgeprune import distilling
from edgeprune.cutting import Traced, cut
from edgeprune.data import ImageSet
from edgeprune.distilling import Pupil, Study
from edgeprune.inputs import food
from edgeprune.journal import Journal, Nobody
from edgeprune.plan import PruningPlan
from edgeprune.recovery import Recovery, recover, taught
from edgeprune.request import Request
from edgeprune.train.evaluate import top1
from edgeprune.train.recipe import distil_order

SCORED, SCORED_ON_THE_WAY = 256, 500


class ProcessorTime:
    """Seconds of the processor that this process has used, but for what is left out."""

    def __init__(self) -> None:
        self._left_out = 0.0

    def __call__(self) -> float:
        return time.process_time() - self._left_out

    def without(self, seconds: float) -> None:
        """Leave some out."""
        self._left_out += seconds


class Told:
    """A listener that prints what is said."""

    def __init__(self) -> None:
        self.stage = Nobody().stage

    def say(self, line: str) -> None:
        """Print it."""
        print(line, file=sys.stderr, flush=True)


def watch(images: ImageSet, clock: ProcessorTime) -> None:
    """Let distillation say the accuracy at each look, too."""
    nearness = distilling.nearness

    def scoring(*arguments: Any) -> Any:
        judge = nearness(*arguments)

        def scored(module: nn.Module) -> dict[str, Any]:
            found, begin = dict(judge(module)), time.process_time()
            found["top1"] = top1(module, images, arguments[2])
            clock.without(time.process_time() - begin)
            print(f"{clock() / 60:6.2f} min, {found['distance']:.4f}, {found['top1']:.2%}", file=sys.stderr, flush=True)
            return found

        return scored

    distilling.nearness = scoring


def table(recovery: Recovery, uncut: Traced, pruned: Traced, images: ImageSet, batch: int) -> str:
    """The curve, and each step in the end."""
    lines = ["| share of the time | images seen | divergence | top-1 |\n|---|---|---|---|"]
    seen = 0
    for row in recovery.rows:
        seen += batch * row["steps"]
        lines.append(f"| {row['share']:.0%} | {seen:,} | {row['distance']:.4f} | {row['top1']:.1%} |")
    before = right(uncut, images)
    lines.append(f"\nOf {len(images)} images uncut {before.mean():.1%}\n\n| step | top-1 | points |\n|---|---|---|")
    for name, model in recovery.steps.items():
        after = right(replace(pruned, model=model), images)
        lines.append(f"| {name} | {after.mean():.1%} | {points(after, before)} |")
    return "\n".join(lines)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", choices=list(TASKS))
    parser.add_argument("--minutes", type=float, default=10.0, help="of the processor, from the refit on")
    parser.add_argument("--food", action="append", help="images to learn from, as --data; not those of the task")
    parser.add_argument("--images", type=int, help="of each at most")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--lr", type=float, default=None)
    parser.add_argument("--ema", type=float, default=None)
    parser.add_argument("--mixup", type=float, default=None)
    parser.add_argument("--optimiser")
    parser.add_argument("--freeze-norms", action="store_true")
    parser.add_argument("--calibration", type=int, default=1000, help="images, of them 256 to choose filters by")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--half", choices=HALVES, default="second")
    parser.add_argument("--plan", type=Path, help="start from this one; written if it is not there")
    return parser.parse_args()


def main() -> None:
    """Print the tables."""
    options, journal = parsed(), Journal(Told())
    if options.threads:
        torch.set_num_threads(options.threads)
    task = TASKS[options.network]
    uncut = task.uncut(journal)
    photos = task.photos(uncut, options.calibration, options.half)
    if options.plan and options.plan.is_file():
        plan = PruningPlan.load(options.plan)
    else:
        scored = task.photos(uncut, SCORED, options.half).batches(uncut.model)
        plan = plan_for(task, uncut, scored, "reconstruction", "damage")
        if options.plan:
            plan.save(options.plan)
    uncut, pruned = cut(plan, uncut, journal)
    begin = time.process_time()
    with tempfile.TemporaryDirectory() as place:
        before = recover(Request(recover="blocks"), plan, uncut, pruned, photos, Path(place, "layers"), journal)
    spent = (time.process_time() - begin) / 60
    print(f"refit and blocks took {spent:.1f} min", file=sys.stderr, flush=True)
    order = distil_order(
        data=options.food or task.food,
        images=options.images,
        minutes=options.minutes - spent,
        batch=options.batch,
        rate=options.lr,
        optimiser=options.optimiser,
        freeze_norms=options.freeze_norms,
        ema=options.ema,
        mixup=options.mixup,
    )
    lessons, photos = food(order.data, order.limit, photos, uncut.model, journal, labels=False, seed=0)
    clock = ProcessorTime()
    watch(photos.scoring.take(range(min(SCORED_ON_THE_WAY, len(photos.scoring)))), clock)
    with tempfile.TemporaryDirectory() as place:
        study = Study(order, lessons, Path(place), 0, clock)
        recovery = taught(before, study, Pupil(plan, uncut, before.model), journal)
    print(table(recovery, uncut, pruned, photos.scoring, options.batch))


if __name__ == "__main__":
    main()
