"""Training with labels, as plain as can be: what a paper's fine-tuning is compared with.

    python benchmarks/papers/sgd.py --epochs 100                          # VGG-16 from random weights, on a GPU
    python benchmarks/papers/sgd.py --epochs 2 --batch 64 --minutes 40    # as far as a CPU comes in that time

That writes `runs/papers/vgg16_bn_cifar.safetensors`; where it is, `fine_tuning.py` runs trials of VGG-16, too.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from edgeprune.data import ImageSet, load_images
from edgeprune.model import Model, load_model, with_tensors
from edgeprune.train.job import Alone, Job, cross_entropy
from edgeprune.train.loop import fit
from edgeprune.train.settings import Settings

BATCH, RATE, WEIGHT_DECAY = 128, 0.02, 5e-4
VGG_RATE = 0.05
_EDGE = 4
REPOSITORY = Path(__file__).resolve().parent.parent.parent
VGG = REPOSITORY / "runs" / "papers" / "vgg16_bn_cifar.safetensors"


def fine_tuned(model: Model, images: ImageSet, steps: int, seed: int, rate: float = RATE) -> Model:
    """The model after some steps of SGD (momentum 0.9, one cycle of the learning rate) on crops and mirrored images.

    On a GPU where there is one.

    Args:
        model: not changed.
        images: with labels; gone through once, then again in another order.
        steps: how many batches.
        seed: of order, crops and mirroring.
        rate: the highest learning rate.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    module = with_tensors(model.module, {}).to(device).train()
    for parameter in module.parameters():
        parameter.requires_grad_(True)
    optimiser = torch.optim.SGD(module.parameters(), rate, 0.9, weight_decay=WEIGHT_DECAY, nesterov=True)
    course = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps + 1)
    random = np.random.default_rng(seed)
    order = np.concatenate([random.permutation(len(images)) for _ in range(-(-steps * BATCH // len(images)))])
    assert images.labels is not None
    for step in range(steps):
        chosen = images.take(order[step * BATCH : (step + 1) * BATCH])
        assert chosen.labels is not None
        inputs = torch.from_numpy(model.input.normalise(_varied(chosen.images, random)))
        loss = F.cross_entropy(module(inputs.to(device)), torch.from_numpy(chosen.labels).to(device))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        course.step()
    return replace(model, module=module.eval().cpu())


def _varied(images: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Each image shifted by up to four pixels, its edges filled with zeros, half of them mirrored."""
    count, height, width, _ = images.shape
    padded = np.pad(images, ((0, 0), (_EDGE, _EDGE), (_EDGE, _EDGE), (0, 0)))
    found = np.empty_like(images)
    tops, lefts = random.integers(0, 2 * _EDGE + 1, (2, count))
    for place, (top, left, mirrored) in enumerate(zip(tops, lefts, random.random(count) < 0.5, strict=True)):
        crop = padded[place, top : top + height, left : left + width]
        found[place] = crop[:, ::-1] if mirrored else crop
    return found


def trained(model: Model, images: ImageSet, settings: Settings, folder: Path) -> Model:
    """The model trained by `settings`; where that was stopped, it goes on from a checkpoint in the folder."""
    module = with_tensors(model.module, {})
    for parameter in module.parameters():
        parameter.requires_grad_(True)
    fingerprint = f"{len(images)} images, {sorted(settings.decisive().items())}"
    job = Job(module, model.input, images, settings, cross_entropy(), fingerprint, Alone())
    return replace(model, module=fit(job, folder, tick=_tell, say=print).module)


def _tell(done: int, total: int) -> None:
    print(f"\r{100 * done / total:.1f} %", end="", file=sys.stderr, flush=True)


def main() -> None:
    """Train VGG-16 and write its weights."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--minutes", type=float, help="end after so long, with the rate at 0 all the same")
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument("--images", type=int, help="of the training images, so many")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--out", type=Path, default=VGG)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    model = load_model("vgg16_bn_cifar")
    images = load_images(f"{REPOSITORY}/benchmarks/shared_data.py:cifar10_train", model.input, limit=options.images)
    settings = Settings(
        options.epochs, options.batch, VGG_RATE, minutes=options.minutes, warm_up=0.2, padding=_EDGE, flip=True
    )
    options.out.parent.mkdir(parents=True, exist_ok=True)
    found = trained(model, images, settings, options.out.with_suffix(".training"))
    save_file(found.module.state_dict(), options.out)


if __name__ == "__main__":
    main()
