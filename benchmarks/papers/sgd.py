"""Training with labels, as plain as can be: what a paper's fine-tuning is compared with.

    python benchmarks/papers/sgd.py --epochs 100      # VGG-16 from random weights, for row 2; wants a GPU

That writes `runs/papers/vgg16_bn_cifar.safetensors`; where it is, `fine_tuning.py` has rows of VGG-16, too.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from edgeprune.data import ImageSet, load_images
from edgeprune.model import Model, load_model, with_tensors

BATCH, RATE, WEIGHT_DECAY = 128, 0.02, 5e-4
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


def main() -> None:
    """Train VGG-16 and write its weights."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=float, default=100)
    parser.add_argument("--images", type=int, help="of the training images, so many")
    parser.add_argument("--out", type=Path, default=VGG)
    options = parser.parse_args()
    torch.manual_seed(0)
    model = load_model("vgg16_bn_cifar")
    images = load_images(f"{REPOSITORY}/benchmarks/shared_data.py:cifar10_train", model.input, limit=options.images)
    steps = max(1, round(options.epochs * len(images) / BATCH))
    trained = fine_tuned(model, images, steps, seed=0, rate=0.1)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    save_file(trained.module.state_dict(), options.out)


if __name__ == "__main__":
    main()
