"""Small networks to prune, and the oracle that every cut is judged by.

The oracle: a cut network computes what the uncut one computes without the removed filters. "Without" is told in two
ways, and both must hold: every number that belongs to a removed filter is zero (`silenced`), or the layers that read a
removed filter give it no weight (`ignoring`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeprune.channels import FIXED, ChannelMap
from edgeprune.data import InputSpec
from edgeprune.model import Model, load_model
from edgeprune.plan import Budget, PruningPlan
from edgeprune.program import Program, capture
from edgeprune.prune.allocate import Scope, left_whole
from edgeprune.prune.fold import fold_weights
from edgeprune.prune.trace import trace
from edgeprune.resize import all_tensors, with_tensors

Keep = Mapping[str, tuple[int, ...]]
SHAPE = (3, 12, 12)


@dataclass(frozen=True, eq=False)
class Traced:
    """A model and its channels."""

    model: Model
    program: Program
    channel_map: ChannelMap


def with_statistics(module: nn.Module) -> nn.Module:
    """The module in eval mode, with normalisations that are nothing like the identity; in place."""
    for norm in module.modules():
        if isinstance(norm, nn.modules.batchnorm._NormBase) and norm.track_running_stats:
            nn.init.uniform_(norm.running_mean, -0.5, 0.5)
            nn.init.uniform_(norm.running_var, 0.5, 2)
        if isinstance(norm, nn.modules.batchnorm._NormBase | nn.GroupNorm | nn.LayerNorm) and norm.weight is not None:
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.uniform_(norm.bias, -0.5, 0.5)
    return module.eval()


def model_of(module: nn.Module, shape: tuple[int, int, int] = SHAPE) -> Model:
    spec = InputSpec(shape, (0.0,) * shape[0], (1.0,) * shape[0])
    return Model(with_statistics(module), spec, type(module).__name__.lower(), "tests")


def zoo(name: str, shape: tuple[int, int, int] | None = None) -> Model:
    """One of our own networks, with random statistics."""
    model = load_model(name)
    with_statistics(model.module)
    return replace(model, input=replace(model.input, shape=shape or model.input.shape))


def traced(model: Model) -> Traced:
    program = capture(model.module, model.input_shapes)
    return Traced(model, program, trace(program))


def folded(model: Model) -> Model:
    """The model with weights that its forward pass calculates as numbers; itself if it calculates none."""
    return fold_weights(model, capture(model.module, model.input_shapes))


@cache
def found_in(network: type[nn.Module]) -> Traced:
    """A small network, traced once for all tests, which must not change it."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return traced(model_of(network()))


def noise(model: Model, count: int = 2, seed: int = 1) -> Tensor:
    return torch.randn(count, *model.input.shape, generator=torch.Generator().manual_seed(seed))


def random_keep(
    channel_map: ChannelMap, seed: int, scope: Scope = "all", keep: float = 0.6
) -> dict[str, tuple[int, ...]]:
    """Some filters of every space that may be cut, never none."""
    random = np.random.default_rng(seed)
    whole = {space.name for space in channel_map.spaces if space.protected}
    whole |= left_whole(channel_map, "inner").keys() if scope == "inner" else set()
    kept = {}
    for space in channel_map.spaces:
        if space.name not in whole:
            stays = random.random(space.size) < keep
            stays[random.integers(space.size)] = True
            for part in space.parts:
                stays[random.choice(part)] = True
            if space.cells:
                stays = _evened(np.array(space.cells), stays, random)
            kept[space.name] = tuple(np.flatnonzero(stays).tolist())
    return kept


def _evened(cells: np.ndarray, stays: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """As many of every cell as stay of the fullest."""
    most = max(int(stays[cells == cell].sum()) for cell in cells)
    stays = stays.copy()
    for cell in set(cells.tolist()):
        gone = np.flatnonzero((cells == cell) & ~stays)
        stays[random.permutation(gone)[: most - int(stays[cells == cell].sum())]] = True
    return stays


def plan_of(channel_map: ChannelMap, keep: Keep) -> PruningPlan:
    return PruningPlan(
        model=channel_map.fingerprint,
        criterion="random",
        settings={},
        budget=Budget(ratio=0.5),
        channel_multiple=1,
        sizes={space.name: space.size for space in channel_map.spaces},
        keep=keep,
        macs_kept=1.0,
    )


def silenced(found: Traced, keep: Keep) -> nn.Module:
    """The uncut network with every number of a removed filter set to zero."""
    return _zeroed(found, keep, axes=lambda tensor: (0, 1, 2, 3))


def ignoring(found: Traced, keep: Keep) -> nn.Module:
    """The uncut network, whose layers give no weight to removed filters that they read."""
    reading = {layer.weight: layer.input_axis for layer in found.channel_map.layers}
    return _zeroed(found, keep, axes=lambda name: (reading[name],) if name in reading else ())


def _zeroed(found: Traced, keep: Keep, axes: Callable[[str], tuple[int, ...]]) -> nn.Module:
    alive = found.channel_map.alive(keep)
    tensors = all_tensors(found.model.module)
    changed: dict[str, Tensor] = {}
    for slot in found.channel_map.slots:
        tensor = changed.get(slot.tensor, tensors[slot.tensor].detach())
        if slot.axis in axes(slot.tensor):
            gone = np.array([channel != FIXED and not alive[channel] for channel in slot.labels.reshape(-1)])
            tensor = tensor.masked_fill(torch.from_numpy(gone.reshape(slot.labels.shape)), 0.0)
            for name, other in tensors.items():
                if other is tensors[slot.tensor]:
                    changed[name] = tensor
    return with_tensors(found.model.module, changed)


def run(module: nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad():
        return module(images)


def difference(one: Tensor, other: Tensor) -> float:
    """The largest difference, as a share of the largest value."""
    return float((one - other).abs().max() / other.abs().max().clamp_min(1e-20))


def assert_exact(found: Traced, pruned: Model, keep: Keep, tolerance: float = 1e-5) -> None:
    """The oracle, at a batch size that the network was not traced with."""
    images = noise(found.model, count=3)
    output = run(pruned.module, images)
    assert difference(output, run(ignoring(found, keep), images)) <= tolerance
    assert difference(output, run(silenced(found, keep), images)) <= tolerance


class Plain(nn.Module):
    """conv-bn-relu-conv-relu-pool-linear."""

    def __init__(self, first: int = 8, second: int = 6) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, first, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(first)
        self.second = nn.Conv2d(first, second, 3, stride=2)
        self.head = nn.Linear(second, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.first(x)))
        return self.head(F.relu(self.second(x)).mean((2, 3)))


class Flat(nn.Module):
    """Biases, in-place activations, max pooling, and a flatten whose columns belong to channels in blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Conv2d(8, 6, 3, bias=False), nn.Hardswish()
        )
        self.hidden = nn.Linear(6 * 9, 10)
        self.norm = nn.BatchNorm1d(10)
        self.head = nn.Linear(10, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.hidden(self.body(x).flatten(1))).sigmoid())


class Residual(nn.Module):
    """A stem and a block added to it; the last sum is a target for refitting."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.stem_norm = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.conv1, self.norm1 = nn.Conv2d(8, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12)
        self.conv2, self.norm2 = nn.Conv2d(12, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem_norm(self.stem(x)))
        y = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        x += y
        return self.head(F.relu(x).mean((2, 3)))


class Inverted(nn.Module):
    """MobileNet-V2's block with squeeze-and-excite: 1x1 to the wide, depthwise, a gate, 1x1 to the narrow, added."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.expand, self.norm1 = nn.Conv2d(8, 24, 1, bias=False), nn.BatchNorm2d(24)
        self.depthwise, self.norm2 = nn.Conv2d(24, 24, 3, padding=1, groups=24, bias=False), nn.BatchNorm2d(24)
        self.squeeze, self.excite = nn.Conv2d(24, 6, 1), nn.Conv2d(6, 24, 1)
        self.project, self.norm3 = nn.Conv2d(24, 8, 1, bias=False), nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = F.relu6(self.norm2(self.depthwise(F.relu6(self.norm1(self.expand(x))))))
        gate = torch.sigmoid(self.excite(F.relu(self.squeeze(F.adaptive_avg_pool2d(y, 1)))))
        x = x + self.norm3(self.project(y * gate.expand_as(y)))
        return self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))


class Dense(nn.Module):
    """Concatenations, one of them with the image itself, and a layer that reads them."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 5, 3, padding=1), nn.Conv2d(5, 7, 3, padding=1)
        self.mix, self.head = nn.Conv2d(15, 6, 1), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        one = F.elu(self.one(x))
        two = F.leaky_relu(self.two(one))
        return self.head(self.mix(torch.cat([two, x, one], 1)).tanh().mean((-1, -2)))


class Scaled(nn.Module):
    """Parameters that the forward pass uses itself: a layer scale, an offset, slopes, a position embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.scale, self.offset = nn.Parameter(torch.randn(8, 1, 1)), nn.Parameter(torch.randn(1, 8, 1, 1))
        self.place = nn.Parameter(torch.randn(8, 12, 12))
        self.prelu, self.one_slope = nn.PReLU(8), nn.PReLU()
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.prelu(self.conv1(x) + self.place)
        x = x + self.scale * self.conv2(x) - self.offset
        return self.head(1 - self.one_slope(x).amax((2, 3)))


class Twice(nn.Module):
    """One convolution used twice in a row, under two normalisations; and one weight under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, padding=1)
        self.norm1, self.norm2 = nn.BatchNorm2d(8), nn.BatchNorm2d(8)
        self.left, self.right = nn.Conv2d(8, 6, 1), nn.Conv2d(8, 6, 1)
        self.right.weight = self.left.weight
        self.head = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = F.relu(self.norm1(self.conv(x)))
        x = F.relu(self.norm2(self.conv(x)))
        return self.head((self.left(x) * torch.sigmoid(self.right(x))).mean((2, 3)))


class Tokens(nn.Module):
    """Channels last, linear layers on every position, and a filter that weighs all positions."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.wide, self.narrow = nn.Conv2d(3, 8, 4, stride=4), nn.Linear(8, 16), nn.Linear(16, 8)
        self.look, self.head = nn.Conv2d(8, 1, 1), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).permute(0, 2, 3, 1)
        x = x + self.narrow(F.gelu(self.wide(x)))
        x = x.permute(0, 3, 1, 2)
        return self.head((x * torch.sigmoid(self.look(x))).flatten(2).transpose(1, 2).mean(1))


SMALL = (Plain, Flat, Residual, Inverted, Dense, Scaled, Twice, Tokens)
"""Networks whose every space but the output may be cut, unless their docstring says more."""


def assert_attributes_are_true(module: nn.Module) -> None:
    """What layers say of their size is the size of their tensors."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            per_group = layer.in_channels // layer.groups
            assert tuple(layer.weight.shape) == (layer.out_channels, per_group, *layer.kernel_size)
        elif isinstance(layer, nn.ConvTranspose2d):
            per_group = layer.out_channels // layer.groups
            assert tuple(layer.weight.shape) == (layer.in_channels, per_group, *layer.kernel_size)
        elif isinstance(layer, nn.Linear):
            assert tuple(layer.weight.shape) == (layer.out_features, layer.in_features)
        elif isinstance(layer, nn.modules.batchnorm._NormBase):
            for tensor in (layer.running_mean, layer.weight):
                assert tensor is None or tuple(tensor.shape) == (layer.num_features,)
        elif isinstance(layer, nn.PReLU):
            assert layer.weight.numel() == layer.num_parameters
