"""What each operator does to channels: followed exactly, or left whole with the reason."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from nets import (
    Traced,
    assert_attributes_are_true,
    assert_exact,
    difference,
    model_of,
    noise,
    plan_of,
    random_keep,
    run,
    silenced,
    traced,
)
from torch import Tensor, nn
from torch.nn import functional as F

from edgeprune.criteria import configure
from edgeprune.prune.cost import cost, macs
from edgeprune.prune.operators import RULES
from edgeprune.prune.score import Scorer
from edgeprune.prune.surgery import apply

Step = Callable[[Tensor], Tensor]
FILTERS = 8
PLACES = torch.linspace(-1, 1, 50).view(1, 5, 5, 2)


pytestmark = pytest.mark.slow  # a trace for each operator; tests/properties mixes them in the fast set


class Between(nn.Module):
    """A convolution, a layer and a step to be followed, and a convolution that reads what comes out."""

    def __init__(self, step: Step = lambda x: x, layer: nn.Module | None = None, width: int = FILTERS) -> None:
        super().__init__()
        self.first, self.layer = nn.Conv2d(3, FILTERS, 3, padding=1), layer or nn.Identity()
        self.step = step
        self.second, self.head = nn.Conv2d(width, 6, 1), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.second(self.step(self.layer(F.relu(self.first(x)))))
        return self.head(F.relu(x).flatten(2).mean(-1))


def between(step: Step = lambda x: x, layer: nn.Module | None = None, width: int = FILTERS) -> Traced:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return traced(model_of(Between(step, layer, width)))


def reason(found: Traced, space: str = "first") -> str:
    return found.channel_map.space(space).protected


def slots(found: Traced, tensor: str, axis: int) -> list[int]:
    return next(s.channels.tolist() for s in found.channel_map.slots if (s.tensor, s.axis) == (tensor, axis))


def assert_cuts(found: Traced, *names: str) -> None:
    """The named spaces may be cut, and a cut of all that may be cut is exact, counted and can be cut again."""
    for seed in (2, 5):
        keep = random_keep(found.channel_map, seed, keep=0.5)
        assert set(names) <= keep.keys()
        pruned = apply(plan_of(found.channel_map, keep), found.channel_map, found.model)
        assert_exact(found, pruned, keep)
        assert_attributes_are_true(pruned.module)
        again = traced(pruned)
        counted = cost(again.program, again.channel_map, pruned.module).macs
        assert counted == macs(found.channel_map, found.channel_map.alive(keep).astype(float))


def written_over(x: Tensor) -> Tensor:
    x = x * 1
    x[:, :, ::2] = 0.5
    x[..., 1:3] += x[..., 2:4]
    return x


def half_written_over(x: Tensor) -> Tensor:
    y = torch.zeros_like(x)
    y[:, :4] = x[:, 4:]
    return y


ELEMENTWISE = {
    "hardswish by hand": lambda x: x * F.relu6(x + 3) / 6,
    "threshold": lambda x: F.threshold(x - 0.3, 0.1, 0.2),
    "logsigmoid": F.logsigmoid,
    "softsign": F.softsign,
    "tanhshrink": F.tanhshrink,
    "rrelu": F.rrelu,
    "sin and erf": lambda x: torch.sin(x) + torch.erf(x),
    "sign": lambda x: torch.sign(x - 0.3),
    "a mask": lambda x: x * (x > 0.3),
    "infinities": lambda x: torch.where(torch.isfinite(x), x.log().nan_to_num(0, 0, -1), torch.full_like(x, 2.0)),
    "bounds by position": lambda x: x.clamp(min=x.mean((2, 3), keepdim=True), max=torch.tensor(1.5)),
    "the larger of two": lambda x: torch.max(x, x.mean(2, keepdim=True)) + torch.min(x, x.square()),
    "two maps compared": lambda x: x * (x > x.mean((2, 3), keepdim=True)),
}
WITHIN = {
    "softmax over a row": lambda x: F.softmax(x, -1),
    "log_softmax over a column": lambda x: F.log_softmax(x, 2),
    "softmax over all positions": lambda x: F.softmax(x.flatten(2), -1).view_as(x),
    "cumsum over a row": lambda x: x.cumsum(3),
    "flip": lambda x: x.flip(-1, 2),
    "roll": lambda x: x.roll((1, 2), (2, -1)),
    "sorted": lambda x: x.sort(2, descending=True).values[:, :, 1:4],
    "the largest": lambda x: x.flatten(2).topk(5, -1).values.unsqueeze(2),
    "the largest so far": lambda x: x.cummax(3).values - x.cummin(2).values,
    "windows of rows": lambda x: x.unfold(2, 4, 2).mean(-1),
    "each row twice": lambda x: x.repeat_interleave(2, 2),
    "sampled": lambda x: F.grid_sample(x, PLACES.expand(len(x), -1, -1, -1), align_corners=False),
    "written over": written_over,
    "glu over positions": lambda x: F.glu(x, 2),
    "split of rows": lambda x: torch.cat([*x.split([3, 9], 2)][::-1], 2),
    "chunk of columns": lambda x: x.chunk(3, 3)[1] + x.chunk(3, 3)[2],
    "unbind of rows": lambda x: (x.unbind(2)[4] * x.unbind(2)[1]).unsqueeze(2),
    "one row": lambda x: x[:, :, -1:] + x[:, :, 2].unsqueeze(2),
}
POOLED = {
    "adaptive max": lambda x: F.adaptive_max_pool2d(x, 3),
    "one-dimensional": lambda x: F.adaptive_max_pool1d(F.max_pool1d(x.flatten(2), 2), 9).unsqueeze(2),
    "one-dimensional mean": lambda x: F.adaptive_avg_pool1d(F.avg_pool1d(x.flatten(2), 2), 9).unsqueeze(2),
    "volumes": lambda x: F.avg_pool3d(F.max_pool3d(x.unsqueeze(2), (1, 2, 2)), (1, 2, 2)).squeeze(2),
    "adaptive volumes": lambda x: F.adaptive_avg_pool3d(F.adaptive_max_pool3d(x.unsqueeze(2), (1, 4, 4)), 2).sum(2),
    "lp": lambda x: F.lp_pool2d(x, 2, 2),
    "bicubic": lambda x: F.interpolate(x, scale_factor=2.0, mode="bicubic"),
    "nearest-exact": lambda x: F.interpolate(x, scale_factor=2.0, mode="nearest-exact"),
    "antialiased": lambda x: F.interpolate(x, size=(7, 7), mode="bilinear", antialias=True),
    "to the size of another": lambda x: x + F.interpolate(F.max_pool2d(x, 2), size=x.shape[2:], mode="bilinear"),
    "linear": lambda x: F.interpolate(x.flatten(2), size=64, mode="linear").unsqueeze(2),
    "trilinear": lambda x: F.interpolate(x.unsqueeze(2), size=(2, 5, 5), mode="trilinear").mean(2),
}
REDUCED = {
    "median": lambda x: x.flatten(2).median(-1).values.unsqueeze(-1).unsqueeze(-1),
    "argmax": lambda x: x.argmax(3, keepdim=True) * 0.1 + x,
    "any": lambda x: x * (x > 1).any(3, keepdim=True),
    "std": lambda x: x.std((2, 3), keepdim=True),
    "var": lambda x: x.var(2, unbiased=False).unsqueeze(2),
    "variance and mean": lambda x: torch.add(*torch.var_mean(x, 3, keepdim=True)),
    "max": lambda x: x.max(2).values.max(-1, keepdim=True)[0].unsqueeze(2),
    "norm": lambda x: torch.linalg.vector_norm(x, 2, (2, 3), keepdim=True),
    "logsumexp": lambda x: x.logsumexp((2, 3), keepdim=True),
}
FOLLOWED = {**ELEMENTWISE, **WITHIN, **POOLED, **REDUCED}


@pytest.mark.parametrize("name", FOLLOWED)
def test_operators_that_treat_each_channel_by_itself_pass_channels_on(name):
    assert_cuts(between(FOLLOWED[name]), "first", "second")


MOVED = {
    "flip": (lambda x: x.flip(1), 8, 8),
    "flip and sum": (lambda x: x + x.flip(1), 8, 4),
    "halves multiplied": (lambda x: torch.mul(*x.chunk(2, 1)), 4, 4),
    "uneven parts": (lambda x: torch.cat(x.split([5, 3], 1)[::-1], 1), 8, 8),
    "a slice": (lambda x: x[:, 2:7], 5, 8),
    "overlapping slices": (lambda x: x[:, :5] * x[:, 3:], 5, 3),
    "pixel shuffle": (lambda x: F.pixel_shuffle(x, 2), 2, 2),
    "pixel unshuffle": (lambda x: F.pixel_unshuffle(x, 2), 32, 8),
    "channel shuffle": (lambda x: F.channel_shuffle(x, 2), 8, 4),
    "masked": (lambda x: x.masked_fill(x > 1, 1.0), 8, 8),
    "chosen": (lambda x: torch.where(x > 1, x.square(), x.exp()), 8, 8),
    "chosen or zero": (lambda x: torch.where(x > 1, x, torch.zeros_like(x)), 8, 8),
    "stacked": (lambda x: torch.stack([x, x.relu()], 2).amax(2), 8, 8),
    "repeated": (lambda x: x.repeat(1, 2, 1, 2), 16, 8),
    "repeated each": (lambda x: x.unsqueeze(2).expand(-1, -1, 3, -1, -1).flatten(1, 2), 24, 8),
    "each twice": (lambda x: x.repeat_interleave(2, 1), 16, 8),
    "glu": (lambda x: F.glu(x, 1), 4, 4),
    "patches": (lambda x: F.unfold(x, 3, padding=1).unflatten(2, (12, 12)), 72, 8),
    "larger of two halves": (lambda x: torch.max(*x.split(4, 1)), 4, 4),
    "half written over": (half_written_over, 8, 4),
    "lerp": (lambda x: torch.lerp(x, x.square(), 0.3), 8, 8),
    "addcmul": (lambda x: torch.addcmul(x, x, x.tanh(), value=0.5), 8, 8),
    "softmax over a grid": (lambda x: x.unflatten(1, (2, 4)).softmax(1).flatten(1, 2), 8, 4),
    "sum over a grid": (lambda x: x.unflatten(1, (2, 4)).sum(1), 4, 4),
    "one line of a grid": (lambda x: x.unflatten(1, (4, 2))[:, :, 1], 4, 4),
    "lines of a grid": (lambda x: torch.add(*x.unflatten(1, (2, 4)).unbind(1)), 4, 4),
    "positions weighed": (lambda x: (x.flatten(2) @ torch.linspace(0, 1, 1296).view(1, 144, 9)).unsqueeze(2), 8, 8),
    "padded": (lambda x: F.pad(x, (0, 0, 0, 0, 2, 1), value=0.5), 11, 8),
}
"""Steps that move channels, how many the next layer reads, and how many decisions are left."""


@pytest.mark.parametrize("name", MOVED)
def test_operators_that_move_channels_are_followed(name):
    step, width, free = MOVED[name]
    found = between(step, width=width)
    assert found.channel_map.space("first").size == free
    assert_cuts(found, "first", "second")


@pytest.mark.parametrize(
    ("layer", "free"),
    [
        (nn.GroupNorm(2, FILTERS), 2),
        (nn.GroupNorm(FILTERS, FILTERS), 8),
        (nn.GroupNorm(4, FILTERS, affine=False), 4),
        (nn.PixelUnshuffle(1), 8),
        (nn.ChannelShuffle(2), 4),
        (nn.ChannelShuffle(4), 2),
    ],
    ids=str,
)
def test_layers_that_move_or_group_channels_are_followed(layer, free):
    found = between(layer=layer)
    assert found.channel_map.space("first").size == free
    assert_cuts(found, "first", "second")


@pytest.mark.parametrize(
    "layer",
    [
        nn.InstanceNorm2d(FILTERS),
        nn.InstanceNorm2d(FILTERS, affine=True),
        nn.InstanceNorm2d(FILTERS, affine=True, track_running_stats=True),
        nn.InstanceNorm2d(FILTERS, track_running_stats=True),
        nn.LayerNorm(12),
        nn.LayerNorm((12, 12), elementwise_affine=False),
        nn.RMSNorm(12),
    ],
    ids=str,
)
def test_normalisations_inside_a_channel_pass_channels_on(layer):
    assert_cuts(between(layer=layer), "first", "second")


@pytest.mark.parametrize(
    "layer",
    [
        nn.Linear(12, 20),
        nn.Linear(12, 5, bias=False),
        nn.Sequential(nn.Flatten(2), nn.Linear(144, 6), nn.GELU(), nn.Linear(6, 4), nn.Unflatten(2, (2, 2))),
    ],
    ids=str,
)
def test_linear_layers_on_positions_pass_channels_on(layer):
    assert_cuts(between(layer=layer), "first", "second")


def test_a_stored_matrix_on_positions_passes_channels_on():
    class Matrix(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.matrix = nn.Parameter(torch.randn(12, 7))

        def forward(self, x: Tensor) -> Tensor:
            return x @ self.matrix

    assert_cuts(between(layer=Matrix()), "first", "second")


def test_instance_normalisation_without_a_layer_passes_channels_on():
    assert_cuts(between(F.instance_norm), "first", "second")


def test_the_stored_numbers_of_an_instance_normalisation_are_cut_along():
    found = between(layer=nn.InstanceNorm2d(FILTERS, affine=True, track_running_stats=True))
    for tensor in ("weight", "bias", "running_mean", "running_var"):
        assert slots(found, f"layer.{tensor}", 0) == list(range(FILTERS))


@pytest.mark.parametrize(
    ("layer", "why"),
    [
        (nn.LayerNorm((FILTERS, 12, 12)), "normalised over channels by operator layer_norm (layer:"),
        (nn.Softmax2d(), "normalised over channels by operator softmax (layer:"),
        (nn.GroupNorm(1, FILTERS), "normalised over channels by operator group_norm (layer:"),
        (nn.LocalResponseNorm(3), "operator avg_pool3d is used in a way that is not supported (layer:"),
    ],
    ids=str,
)
def test_layers_that_mix_channels_leave_them_whole_and_say_so(layer, why):
    found = between(layer=layer)
    assert why in reason(found)
    assert_cuts(found, "second")


@pytest.mark.parametrize(
    ("step", "why", "width"),
    [
        (lambda x: F.log_softmax(x, 1), "normalised over channels by operator log_softmax (", 8),
        (lambda x: x.cumsum(1), "accumulated over channels by operator cumsum (", 8),
        (lambda x: x.roll(1), "operator roll is used in a way that is not supported (", 8),
        (lambda x: x.unfold(1, 2, 2).mean(-1), "taken in windows along channels by operator unfold (", 4),
        (
            lambda x: F.grid_sample(x, x[:, :2].movedim(1, -1), align_corners=False),
            "operator grid_sampler is used in",
            8,
        ),
        (
            lambda x: x.flatten(2).median(1, keepdim=True).values.unsqueeze(2),
            "reduced over channels by operator med",
            1,
        ),
        (lambda x: x * x.median(), "reduced over channels by operator median (", 8),
        (lambda x: x.unbind(1)[3].unsqueeze(1), "taken apart along channels by operator unbind (", 1),
        (lambda x: x[:, 3].unsqueeze(1), "layers read only single filters of it", 1),
        (lambda x: x / (1 + x.norm(dim=1, keepdim=True)), "reduced over channels by operator linalg_vector_norm (", 8),
        (lambda x: x.std(1, keepdim=True), "reduced over channels by operator std (", 1),
        (lambda x: x * x.max(), "reduced over channels by operator max (", 8),
        (lambda x: (x.flatten(2) @ x.flatten(2).mT).unsqueeze(2), "multiplied as matrices by operator matmul (", 8),
        (lambda x: x + x.max(2)[1].unsqueeze(2), "operator getitem is used in a way that is not supported (", 8),
        (lambda x: F.max_pool2d(x[:, :, 0], (2, 1)).unsqueeze(2), "operator max_pool2d is used in a way", 4),
    ],
)
def test_operators_that_mix_channels_leave_them_whole_and_say_so(step, why, width):
    found = between(step, width=width)
    assert why in reason(found)
    assert_cuts(found, "second")


@pytest.mark.parametrize(
    "layer",
    [
        nn.ConvTranspose2d(FILTERS, 5, 3),
        nn.ConvTranspose2d(FILTERS, 5, 3, stride=2, padding=1, output_padding=1, bias=False),
        nn.Sequential(nn.ConvTranspose2d(FILTERS, 5, 2, dilation=2), nn.BatchNorm2d(5), nn.ReLU()),
    ],
    ids=["plain", "stride", "norm"],
)
def test_a_transposed_convolution_makes_new_filters_and_reads_the_old_ones(layer):
    name = "layer" if isinstance(layer, nn.ConvTranspose2d) else "layer.0"
    found = between(layer=layer, width=5)
    assert slots(found, f"{name}.weight", 0) == list(range(FILTERS))
    assert slots(found, f"{name}.weight", 1) == list(range(FILTERS, FILTERS + 5))
    assert_cuts(found, "first", name, "second")


@pytest.mark.parametrize(
    ("step", "layer"),
    [
        (lambda x: x.unsqueeze(2), nn.Sequential(nn.Flatten(2), nn.ConvTranspose1d(FILTERS, 5, 3))),
        (lambda x: x.sum(2), nn.Sequential(nn.Unflatten(2, (1, 12)), nn.ConvTranspose3d(FILTERS, 5, 2))),
    ],
    ids=["1d", "3d"],
)
def test_transposed_convolutions_of_sequences_and_volumes_are_followed(step, layer):
    assert_cuts(between(step, layer, width=5), "first", "layer.1", "second")


def test_a_depthwise_transposed_convolution_passes_channels_on():
    found = between(layer=nn.ConvTranspose2d(FILTERS, FILTERS, 3, stride=2, groups=FILTERS))
    assert slots(found, "layer.weight", 0) == slots(found, "second.weight", 1) == list(range(FILTERS))
    assert_cuts(found, "first", "second")


def test_a_transposed_convolution_in_groups_is_cut_evenly_on_both_its_sides():
    found = between(layer=nn.ConvTranspose2d(FILTERS, 6, 3, groups=2), width=6)
    assert found.channel_map.space("first").cells == (0, 0, 0, 0, 1, 1, 1, 1)
    assert found.channel_map.space("layer").cells == (0, 0, 0, 1, 1, 1)
    assert_cuts(found, "first", "layer", "second")


def test_macs_of_a_transposed_convolution_are_those_of_its_input_positions():
    found = between(layer=nn.ConvTranspose2d(FILTERS, 5, 3, stride=2), width=5)
    layers = {
        layer.name: layer.unit_macs * len(layer.outputs) * len(layer.inputs) for layer in found.channel_map.layers
    }
    assert layers["layer"] == 12 * 12 * 9 * FILTERS * 5
    assert layers["second"] == 25 * 25 * 5 * 6


def test_a_criterion_sees_the_filters_of_a_transposed_convolution():
    found = between(layer=nn.ConvTranspose2d(FILTERS, 5, 3), width=5)
    scorer = Scorer(found.channel_map, found.program, found.model.module, [])
    scores = scorer.score(configure("l1"), ["layer"]).scores["layer"]
    weight = found.model.module.layer.weight
    np.testing.assert_allclose(scores.numpy(), weight.detach().abs().sum((0, 2, 3)).numpy(), rtol=1e-5)


def test_every_rule_stands_under_the_name_of_an_operator():
    known = {"getitem", "to", "lift_fresh_copy", "_upsample_lanczos2d_aa"}
    assert not {name for name in RULES if name not in known and not hasattr(torch.ops.aten, name)}


class Mirrored(nn.Module):
    """One weight, read by a convolution and, the other way round, by a transposed one."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 1)
        self.mirror = nn.Parameter(torch.randn(FILTERS, width, 3, 3) / 9)
        self.second, self.head = nn.Conv2d(width, 6, 1), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.conv_transpose2d(F.relu(F.conv2d(self.stem(x), self.mirror)), self.mirror)
        return self.head(F.relu(self.second(F.relu(x))).mean((2, 3)))


def test_a_weight_that_is_read_both_ways_ties_what_goes_in_to_what_comes_out():
    found = traced(model_of(Mirrored(5)))
    assert found.channel_map.space("stem").producers == ("stem", "mirror")
    assert slots(found, "mirror", 1) == slots(found, "stem.weight", 0) == slots(found, "second.weight", 1)
    keep = random_keep(found.channel_map, 4, keep=0.5)
    assert {"stem", "mirror", "second"} <= keep.keys()
    pruned = apply(plan_of(found.channel_map, keep), found.channel_map, found.model)
    images = noise(found.model, count=3)
    assert difference(run(pruned.module, images), run(silenced(found, keep), images)) <= 1e-5
