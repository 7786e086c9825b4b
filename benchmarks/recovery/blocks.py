"""What block-by-block learning adds to the refit, without labels, by the number of calibration images.

    python benchmarks/recovery/blocks.py mobilenet_v2 --calibration 1000
    python benchmarks/recovery/blocks.py resnet56 --calibration 256,1000,4000

The networks, budgets and images of `tasks.py`; filters by the criterion `reconstruction` on 256 images, widths by
damage. The number of steps and the rate were chosen on the first half of the images with labels; report on the second.
Processor seconds, all threads together, are those of the blocks alone. Wants EDGEPRUNE_DATA.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch
from tasks import HALVES, TASKS, plan_for, right, told

from edgeprune.cutting import cut
from edgeprune.journal import Journal, Nobody
from edgeprune.plan import PruningPlan
from edgeprune.recover.reconstruct import Cut, reconstruct
from edgeprune.train.blocks import refine

SCORED = 256


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", default=list(TASKS), metavar="NETWORK")
    parser.add_argument("--calibration", default="256,1000", help="how many images, e.g. 256,1000")
    parser.add_argument("--half", choices=HALVES, default="second")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--plan", type=Path, help="start from this one; written if it is not there")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    for name in options.networks:
        task, journal = TASKS[name], Journal(Nobody())
        uncut = task.uncut(journal)
        photos = task.photos(uncut, SCORED, options.half)
        if options.plan and options.plan.is_file():
            plan = PruningPlan.load(options.plan)
        else:
            plan = plan_for(task, uncut, photos.batches(uncut.model), "reconstruction", "damage")
            if options.plan:
                plan.save(options.plan)
        start, pruned = cut(plan, uncut, journal)
        both = Cut(start.model, pruned.model, plan, start.channel_map, start.program, pruned.program)
        before = right(uncut, photos.scoring)
        print(f"\n{name}, {len(before)} images, uncut {before.mean():.1%}\n")
        print("| calibration images | refit | blocks | processor seconds |\n|---|---|---|---|")
        for count in map(int, options.calibration.split(",")):
            batches = task.photos(uncut, count, options.half).batches(uncut.model)
            refitted, _ = reconstruct(both, batches)
            begin = time.process_time()
            learned, _ = refine(both, refitted, batches)
            seconds = time.process_time() - begin
            shares = [told(right(replace(pruned, model=one), photos.scoring), before) for one in (refitted, learned)]
            print(f"| {count:,} | {' | '.join(shares)} | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    sys.exit(main())
