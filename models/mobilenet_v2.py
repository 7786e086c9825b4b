"""MobileNet-V2 1.0 after Sandler et al. 2018 (arXiv:1801.04381), with the names that torchvision gives to its tensors.

Two forms of the same network: `mobilenet_v2` pads as PyTorch does and computes what torchvision's computes;
`mobilenet_v2_tf` pads as TensorFlow's "SAME" does, for weights that were trained there.
"""

from __future__ import annotations

import torch
from torch import nn

STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
"""(expansion, channels, blocks, stride of the first block): table 2 of the paper."""

TF_EPS = 1e-3
"""What Keras gives to the batch norms of its MobileNet-V2."""


class SameConv2d(nn.Conv2d):
    """A 3x3 convolution of stride 2 on an even image, padded as TensorFlow's "SAME" does: right and below only."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(nn.functional.pad(x, (0, 1, 0, 1)))


def conv(channels_in: int, channels: int, size: int, stride: int, groups: int, same: bool) -> nn.Conv2d:
    if same and stride == 2:
        return SameConv2d(channels_in, channels, size, stride, padding=0, groups=groups, bias=False)
    return nn.Conv2d(channels_in, channels, size, stride, padding=size // 2, groups=groups, bias=False)


def norm(channels: int, same: bool) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=TF_EPS) if same else nn.BatchNorm2d(channels)


def conv_norm_relu(
    channels_in: int, channels: int, size: int, stride: int = 1, groups: int = 1, *, same: bool
) -> nn.Sequential:
    return nn.Sequential(conv(channels_in, channels, size, stride, groups, same), norm(channels, same), nn.ReLU6())


class InvertedResidual(nn.Module):
    """1x1 to the wide, 3x3 depthwise, 1x1 to the narrow; added to the input where the shapes agree."""

    def __init__(self, channels_in: int, channels: int, stride: int, expansion: int, same: bool) -> None:
        super().__init__()
        wide = channels_in * expansion
        self.added = stride == 1 and channels_in == channels
        expand = [conv_norm_relu(channels_in, wide, 1, same=same)] if expansion != 1 else []
        self.conv = nn.Sequential(
            *expand,
            conv_norm_relu(wide, wide, 3, stride, groups=wide, same=same),
            conv(wide, channels, 1, 1, 1, same),
            norm(channels, same),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.conv(x) if self.added else self.conv(x)


class MobileNetV2(nn.Module):
    def __init__(self, same: bool, classes: int = 1000) -> None:
        super().__init__()
        layers: list[nn.Module] = [conv_norm_relu(3, 32, 3, 2, same=same)]
        channels_in = 32
        for expansion, channels, blocks, stride in STAGES:
            for block in range(blocks):
                layers.append(InvertedResidual(channels_in, channels, stride if block == 0 else 1, expansion, same))
                channels_in = channels
        layers.append(conv_norm_relu(channels_in, 1280, 1, same=same))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, classes))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(x).mean((2, 3)))


def mobilenet_v2() -> nn.Module:
    return MobileNetV2(same=False)


def mobilenet_v2_tf() -> nn.Module:
    return MobileNetV2(same=True)
