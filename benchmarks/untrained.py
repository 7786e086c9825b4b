"""A network with random weights, for benchmarks of sizes and times, which weights do not change."""

from __future__ import annotations

import torch
from resnet18 import ResNet18

from edgeprune.data import InputSpec
from edgeprune.model import Model, load_model


def untrained(name: str) -> Model:
    """`resnet18`, or a network of `models/`."""
    torch.manual_seed(0)
    if name != "resnet18":
        return load_model(name)
    spec = InputSpec((3, 224, 224), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    return Model(ResNet18().eval(), spec, name, "benchmark", ())
