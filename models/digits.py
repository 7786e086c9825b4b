"""The demo: a small residual network on handwritten digits, and the digits themselves.

The images come inside scikit-learn, so nothing is downloaded: 1,797 of 8x8 pixels, from the UCI set "Optical
Recognition of Handwritten Digits" (CC BY 4.0). Train and test are a fixed, seeded split.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

CHANNELS = 64
BLOCKS = 3
SPLIT_SEED = 20211105
TEST_IMAGES = 600


class Block(nn.Module):
    """conv-bn-relu-conv-bn, plus the input, then relu."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        return self.relu(x + self.bn2(self.conv2(out)))


class DigitsNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, CHANNELS, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(CHANNELS)
        self.relu = nn.ReLU()
        self.blocks = nn.Sequential(*(Block(CHANNELS) for _ in range(BLOCKS)))
        self.linear = nn.Linear(CHANNELS, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.blocks(self.relu(self.bn(self.conv(x))))
        return self.linear(x.mean((2, 3)))


def build() -> nn.Module:
    return DigitsNet()


def train() -> tuple[np.ndarray, np.ndarray]:
    """The images that the demo's network was trained on: uint8 [1197, 8, 8, 1], labels int64 [1197]."""
    images, labels = _digits()
    return images[TEST_IMAGES:], labels[TEST_IMAGES:]


def test() -> tuple[np.ndarray, np.ndarray]:
    """The images that the demo's network has never seen: uint8 [600, 8, 8, 1], labels int64 [600]."""
    images, labels = _digits()
    return images[:TEST_IMAGES], labels[:TEST_IMAGES]


def _digits() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits

    digits = load_digits()
    # The set's own pixels count 0 to 16.
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)[..., None]
    order = np.random.RandomState(SPLIT_SEED).permutation(len(images))
    return images[order], digits.target.astype(np.int64)[order]
