"""Train the demo's network and write `digits.safetensors`: `python models/train_digits.py` (CPU, about a minute).

Seeded; the same machine and the same torch give the same file. Another machine may differ in the last bits.
"""

from __future__ import annotations

from pathlib import Path

import torch
from digits import build, test, train
from safetensors.torch import save
from torch.nn import functional as F

from edgeprune.cards import read_card
from edgeprune.files import writing

SEED = 0
EPOCHS = 30
BATCH = 64
PEAK_RATE = 0.1
CARD = read_card(Path(__file__).with_name("digits.toml"))
WEIGHTS = Path(__file__).with_name("digits.safetensors")


def normalised(images: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(CARD.input.normalise(images.numpy()))


def shifted(images: torch.Tensor, random: torch.Generator) -> torch.Tensor:
    """Each of the images [n, 8, 8, 1] moved by up to one pixel each way, black moving in."""
    padded = F.pad(images, (0, 0, 1, 1, 1, 1))
    down, right = torch.randint(0, 3, (2, len(images)), generator=random).tolist()
    moved = [image[y : y + 8, x : x + 8] for image, y, x in zip(padded, down, right, strict=True)]
    return torch.stack(moved)


def accuracy(model: torch.nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    model.eval()
    with torch.no_grad():
        return (model(normalised(images)).argmax(1) == labels).float().mean().item()


def fit(model: torch.nn.Module, images: torch.Tensor, labels: torch.Tensor) -> None:
    random = torch.Generator().manual_seed(SEED)
    steps = EPOCHS * -(-len(images) // BATCH)
    optimiser = torch.optim.SGD(model.parameters(), lr=PEAK_RATE, momentum=0.9, weight_decay=5e-4, nesterov=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, PEAK_RATE, total_steps=steps)
    model.train()
    for epoch in range(EPOCHS):
        for chosen in torch.randperm(len(images), generator=random).split(BATCH):
            batch = normalised(shifted(images[chosen], random))
            loss = F.cross_entropy(model(batch), labels[chosen], label_smoothing=0.05)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
        print(f"epoch {epoch + 1:2d}/{EPOCHS}  loss {loss.item():.3f}", flush=True)


def main() -> None:
    torch.manual_seed(SEED)
    model = build()
    fit(model, *map(torch.from_numpy, train()))
    images, labels = map(torch.from_numpy, test())
    print(f"test accuracy {accuracy(model, images, labels):.2%} of {len(labels)} images")
    with writing(WEIGHTS) as path:
        path.write_bytes(save({name: tensor.contiguous() for name, tensor in model.state_dict().items()}))
    print(f"wrote {WEIGHTS}")


if __name__ == "__main__":
    main()
