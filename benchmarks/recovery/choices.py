"""What of a network is left after a cut, without training and without labels, by how filters and widths are chosen.

    python benchmarks/recovery/choices.py [mobilenet_v2 resnet56] [--criteria qsfm,reconstruction] [--half second]
        [--macs 0.8]

MobileNet-V2 at 65 % of its MACs, widths in multiples of 8, on one half of the ImageNet validation subset (calibrated
with other images); ResNet-56 at 51.3 %, any width, on as many test images of CIFAR-10 (JPEG-75 copy). Each criterion
with equal shares and with widths by damage, and what is left after the cut alone, after the norms are re-estimated, and
after the refit; differences to the uncut model in points, with their 95 % intervals, image by image. Choices were made
on the first half; report on the second. Wants EDGEPRUNE_DATA.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from time import perf_counter

from tasks import HALVES, TASKS, plan_for, right, told

from edgeprune.cutting import cut
from edgeprune.journal import Journal, Nobody
from edgeprune.model import with_tensors
from edgeprune.recover.batchnorm import reestimate
from edgeprune.recover.reconstruct import Cut, reconstruct


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("networks", nargs="*", default=list(TASKS), metavar="NETWORK")
    parser.add_argument("--criteria", default="l1,qsfm,reconstruction")
    parser.add_argument("--calibration", type=int, default=256)
    parser.add_argument("--half", choices=HALVES, default="second")
    parser.add_argument("--macs", type=float, help="share to keep, in place of the networks' own")
    options = parser.parse_args()
    for name in options.networks:
        task, journal = TASKS[name], Journal(Nobody())
        task = replace(task, macs=options.macs or task.macs)
        uncut = task.uncut(journal)
        photos = task.photos(uncut, options.calibration, options.half)
        images, batches = photos.scoring, photos.batches(uncut.model)
        before = right(uncut, images)
        print(
            f"\n{name}, {len(images)} images, uncut {before.mean():.1%}; {len(photos.calibration)} calibration images\n"
        )
        print(
            "| criterion | widths | MACs | parameters | cut | norms | refit | score, refit, s |\n|---"
            + "|---" * 7
            + "|"
        )
        for criterion in options.criteria.split(","):
            for allocation in ("uniform", "damage"):
                begin = perf_counter()
                plan = plan_for(task, uncut, batches, criterion, allocation)
                scored = perf_counter() - begin
                start, pruned = cut(plan, uncut, journal)
                module = with_tensors(pruned.model.module, {})
                reestimate(pruned.program, module, batches)
                normed = replace(pruned, model=replace(pruned.model, module=module))
                begin = perf_counter()
                both = Cut(start.model, pruned.model, plan, start.channel_map, start.program, pruned.program)
                model, _ = reconstruct(both, batches)
                taken = perf_counter() - begin
                shares = [told(right(one, images), before) for one in (pruned, normed, replace(pruned, model=model))]
                kept = pruned.cost.parameters / uncut.cost.parameters
                print(
                    f"| {criterion} | {allocation} | {plan.macs_kept:.1%} | {kept:.1%} | {' | '.join(shares)} "
                    f"| {scored:.0f}, {taken:.0f} |",
                    flush=True,
                )


if __name__ == "__main__":
    sys.exit(main())
