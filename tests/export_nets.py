"""Networks small enough to convert in a second, with what is hard for converters in them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from edgeprune.data import InputSpec
from edgeprune.model import Model
from edgeprune.plan import Cost

SHAPE = (3, 12, 10)  # height and width differ, so that a mixed-up layout shows
COST = Cost(macs=1234, parameters=56, peak_activation_bytes=789)


class Tiny(nn.Module):
    """Convolution, batch norm, residual, depthwise, and a mean over the image."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.stem_norm = nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 8, 3, padding="same", groups=8)
        self.depthwise_norm = nn.BatchNorm2d(8, eps=1e-3)
        self.down = nn.Conv2d(8, 16, 3, stride=2, padding=1)
        self.head = nn.Linear(16, 5)

    def forward(self, images: Tensor) -> Tensor:
        x = torch.relu(self.stem_norm(self.stem(images)))
        x = x + nn.functional.relu6(self.depthwise_norm(self.depthwise(x)))
        return self.head(torch.relu(self.down(x)).mean((2, 3)))


class Viewed(nn.Module):
    """Flattens maps of more than one pixel with `view`, which minds how the memory is laid out."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 6, 3), nn.Linear(6 * 16, 5)

    def forward(self, images: Tensor) -> Tensor:
        maps = nn.functional.adaptive_avg_pool2d(self.conv(images).relu(), 4)
        return self.fc(maps.view(maps.size(0), -1))


class Classifier(nn.Module):
    """As VGG ends: flattened maps through activations and dropout into linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.pool = nn.Conv2d(3, 6, 3), nn.AdaptiveAvgPool2d((5, 4))
        self.rest = nn.Sequential(nn.Flatten(), nn.ReLU(), nn.Dropout(), nn.Linear(120, 9), nn.ReLU(), nn.Linear(9, 5))

    def forward(self, images: Tensor) -> Tensor:
        return self.rest(self.pool(self.conv(images)))


class Several(nn.Module):
    """A dictionary of outputs, one of them an image."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 6, 3)
        self.first, self.second = nn.Linear(6, 4), nn.Linear(6, 2)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        x = self.body(images)
        pooled = x.mean((2, 3))
        return {"z": self.second(pooled), "a": self.first(pooled), "mask": x}


class Shared(nn.Module):
    """One convolution used twice, under two batch norms, and one weight under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.one, self.two = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3), nn.BatchNorm2d(3)
        self.left, self.right = nn.Conv2d(3, 4, 1, bias=False), nn.Conv2d(3, 4, 1, bias=False)
        self.right.weight = self.left.weight
        self.left_norm, self.right_norm = nn.BatchNorm2d(4), nn.BatchNorm2d(4, affine=False)

    def forward(self, images: Tensor) -> Tensor:
        x = self.two(self.conv(self.one(self.conv(images))))
        return (self.left_norm(self.left(x)) * self.right_norm(self.right(x))).mean((2, 3))


class Outlier(nn.Module):
    """One filter of `loud` gives values so much larger than its others that 256 steps for all leave these nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.loud = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)
        self.after, self.head = nn.Conv2d(8, 8, 1), nn.Linear(8, 5)
        with torch.no_grad():
            self.loud.weight[0] *= 2e3
            self.loud.bias[0] += 5e2
            self.after.weight[:, 0] /= 2e3

    def forward(self, images: Tensor) -> Tensor:
        x = torch.relu(self.loud(torch.relu(self.stem(images))))
        return self.head(torch.relu(self.after(x)).mean((2, 3)))


def model_of(network: type[nn.Module], plans: tuple[str, ...] = ()) -> Model:
    """A network with weights and running statistics that are nothing like the identity."""
    torch.manual_seed(0)
    module = network()
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            for tensor, low, high in ((norm.running_mean, -1, 1), (norm.running_var, 0.2, 2)):
                nn.init.uniform_(tensor, low, high)
            if norm.affine:
                nn.init.uniform_(norm.weight, 0.5, 1.5)
                nn.init.uniform_(norm.bias, -0.5, 0.5)
    spec = InputSpec(SHAPE, mean=(0.5, 0.4, 0.3), std=(0.25, 0.2, 0.3))
    return Model(module.eval(), spec, network.__name__.lower(), "tests", plans)


def images_of(count: int = 4) -> np.ndarray:
    """Normalised images, float32 [count, *SHAPE]."""
    return np.random.default_rng(1).standard_normal((count, *SHAPE), dtype=np.float32)


def outputs_of(model: Model, images: np.ndarray) -> np.ndarray:
    """What torch gives."""
    with torch.no_grad():
        return model.module(torch.from_numpy(images)).numpy()
