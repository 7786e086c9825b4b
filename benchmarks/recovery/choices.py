"""What of a network is left after a cut, without training and without labels, by how filters and widths are chosen.

    python benchmarks/recovery/choices.py [mobilenet_v2 resnet56] [--criteria qsfm,reconstruction] [--half second]

MobileNet-V2 at 65 % of its MACs, widths in multiples of 8, on one half of the ImageNet validation subset (calibrated
with other images); ResNet-56 at 51.3 %, any width, on as many test images of CIFAR-10 (JPEG-75 copy). Each criterion
with equal shares and with widths by damage, and what is left after the cut alone, after the norms are re-estimated, and
after the refit; differences to the uncut model in points, with their 95 % intervals, image by image. Choices were made
on the first half; report on the second. Wants EDGEPRUNE_DATA.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from torch import Tensor

from edgeprune.accuracy import predict
from edgeprune.criteria import configure
from edgeprune.cutting import Traced, cut, traced
from edgeprune.data import ImageSet, load_images
from edgeprune.journal import Journal, Nobody
from edgeprune.model import load_model, with_tensors
from edgeprune.plan import Budget, PruningPlan
from edgeprune.prune.allocate import allocate, left_whole
from edgeprune.prune.score import Scorer
from edgeprune.recover.batchnorm import reestimate
from edgeprune.recover.reconstruct import Cut, reconstruct
from edgeprune.stats import paired_difference

REPOSITORY = Path(__file__).resolve().parent.parent.parent
DATA = Path(os.environ.get("EDGEPRUNE_DATA", REPOSITORY / "../shared/data"))
SHARED = REPOSITORY / "benchmarks" / "shared_data.py"
BATCH = 32


@dataclass(frozen=True)
class Task:
    """A network, its budget and its images."""

    model: str
    weights: str
    macs: float
    multiple: int
    calibration: str
    scoring: str


TASKS = {
    "mobilenet_v2": Task(
        "mobilenet_v2_tf",
        "mobilenet_v2_1.0_224_imagenet.safetensors",
        0.65,
        8,
        str(DATA / "imagenet_train1000_224.tar"),
        str(DATA / "imagenet_val1300_227.tar"),
    ),
    "resnet56": Task(
        "resnet56", "resnet56_cifar10_jpegft.safetensors", 0.513, 1, f"{SHARED}:cifar10_train", f"{SHARED}:cifar10_test"
    ),
}


def plan_for(task: Task, uncut: Traced, batches: list[Tensor], criterion: str, allocation: str) -> PruningPlan:
    """Which filters stay."""
    whole = left_whole(uncut.channel_map, "inner")
    names = [space.name for space in uncut.channel_map.spaces if space.name not in whole]
    scorer = Scorer(uncut.channel_map, uncut.program, uncut.model.module, batches)
    scored = scorer.score(configure(criterion), names, share=1 - task.macs, damage=allocation == "damage")
    return allocate(uncut.channel_map, scored, Budget(macs=task.macs), task.multiple)


def right(found: Traced, images: ImageSet) -> np.ndarray:
    """Which images a model classifies right, bool [n]."""
    return predict(found.model, found.program, images).ranked[:, 0] == images.labels


def told(after: np.ndarray, before: np.ndarray) -> str:
    """A share, and the difference to the uncut model."""
    gained, lost = int((after & ~before).sum()), int((before & ~after).sum())
    low, high = paired_difference(gained, lost, len(after))
    return f"{after.mean():.1%} ({100 * (gained - lost) / len(after):+.1f} [{100 * low:+.1f}, {100 * high:+.1f}])"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("networks", nargs="*", default=list(TASKS), metavar="NETWORK")
    parser.add_argument("--criteria", default="l1,qsfm,reconstruction")
    parser.add_argument("--calibration", type=int, default=256)
    parser.add_argument("--half", choices=["first", "second"], default="second")
    options = parser.parse_args()
    for name in options.networks:
        task, journal = TASKS[name], Journal(Nobody())
        uncut = traced(load_model(task.model, weights=DATA / task.weights), journal)
        calibration = load_images(task.calibration, uncut.model.input, limit=options.calibration)
        images = load_images(task.scoring, uncut.model.input)
        middle = len(images) // 2
        images = images.take(range(middle) if options.half == "first" else range(middle, len(images)))
        batches = [
            torch.from_numpy(batch).contiguous(memory_format=torch.channels_last)
            for batch in calibration.batches(uncut.model.input, BATCH)
        ]
        before = right(uncut, images)
        print(f"\n{name}, {len(images)} images, uncut {before.mean():.1%}; {len(calibration)} calibration images\n")
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
