"""The networks, budgets and images of these benchmarks, and how a result is told.

MobileNet-V2 at 65 % of its MACs, widths in multiples of 8, on the ImageNet validation subset; ResNet-56 at 51.3 %, any
width, on the test images of CIFAR-10 (JPEG-75 copy). Choices were made on the first half; report on the second.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from edgeprune.accuracy import predict
from edgeprune.criteria import configure
from edgeprune.cutting import Traced, traced
from edgeprune.data import ImageSet, load_images
from edgeprune.inputs import Photos
from edgeprune.journal import Journal
from edgeprune.model import load_model
from edgeprune.plan import Budget, PruningPlan
from edgeprune.prune.allocate import allocate, left_whole
from edgeprune.prune.score import Scorer
from edgeprune.stats import paired_difference

REPOSITORY = Path(__file__).resolve().parent.parent.parent
DATA = Path(os.environ.get("EDGEPRUNE_DATA", REPOSITORY / "../shared/data"))
SHARED = REPOSITORY / "benchmarks" / "shared_data.py"
HALVES = ("first", "second")


@dataclass(frozen=True)
class Task:
    """A network, its budget and its images.

    Attributes:
        model: as `--model` wants it.
        weights: a file of the data.
        macs: share of the MACs to keep.
        multiple: of which widths are.
        food: images to learn from, those to calibrate with first; some several times, so that they count for more.
        scoring: images with labels.
    """

    model: str
    weights: str
    macs: float
    multiple: int
    food: tuple[str, ...]
    scoring: str

    def uncut(self, journal: Journal) -> Traced:
        """The network as published."""
        return traced(load_model(self.model, weights=DATA / self.weights), journal)

    def photos(self, uncut: Traced, calibration: int, half: str) -> Photos:
        """The first images to learn from, and one half of those with labels."""
        images = load_images(self.scoring, uncut.model.input)
        middle = len(images) // 2
        chosen = range(middle) if half == HALVES[0] else range(middle, len(images))
        return Photos(load_images(self.food[0], uncut.model.input, limit=calibration), images.take(chosen))


TASKS = {
    "mobilenet_v2": Task(
        "mobilenet_v2_tf",
        "mobilenet_v2_1.0_224_imagenet.safetensors",
        0.65,
        8,
        (*(str(DATA / "imagenet_train1000_224.tar"),) * 3, f"{SHARED}:tiny_mosaics"),
        str(DATA / "imagenet_val1300_227.tar"),
    ),
    "resnet56": Task(
        "resnet56",
        "resnet56_cifar10_jpegft.safetensors",
        0.513,
        1,
        (f"{SHARED}:cifar10_train",),
        f"{SHARED}:cifar10_test",
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
    answers: np.ndarray = predict(found.model, found.program, images).ranked[:, 0] == images.labels
    return answers


def points(after: np.ndarray, before: np.ndarray) -> str:
    """The difference to the uncut model in points, and its 95 % interval, image by image."""
    gained, lost = int((after & ~before).sum()), int((before & ~after).sum())
    low, high = paired_difference(gained, lost, len(after))
    return f"{100 * (gained - lost) / len(after):+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"


def told(after: np.ndarray, before: np.ndarray) -> str:
    """A share, and the difference to the uncut model."""
    return f"{after.mean():.1%} ({points(after, before)})"
