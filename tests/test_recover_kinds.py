"""recover: what the kept filters of a layer can make up for is made up for, whatever kind of layer reads them.

The oracle: the filters that go are exact linear combinations of those that stay, and no activation lies between; then
the recovered network computes what the uncut one does.
"""

from __future__ import annotations

import itertools

import pytest
import torch
from nets import difference, found_in, model_of, noise, run, traced
from test_recover import assert_restored, assert_rows_are_the_layer, copy_filter, recovered, without
from torch import Tensor, nn
from torch.nn import functional as F

from edgeprune.program import capture, operator_of

_IMAGE = (3, 12, 12)


def combined(layer: nn.Module, gone: int, first: int, second: int, axis: int = 0) -> None:
    """Make one filter a combination of two others, and a constant."""
    with torch.no_grad():
        for tensor, along in ((layer.weight, axis), (layer.bias, 0)):
            if tensor is not None:
                parts = [tensor.select(along, index) for index in (first, second)]
                tensor.select(along, gone).copy_(0.5 * parts[0] - 2 * parts[1])


class Two(nn.Module):
    """A layer, and one that reads it, on images seen as what they are made for."""

    def __init__(self, first: nn.Module, second: nn.Module, *, view: tuple[int, ...] = _IMAGE) -> None:
        super().__init__()
        self.view, self.first, self.second = view, first, second
        self.head = nn.LazyLinear(4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.second(self.first(x.reshape(-1, *self.view)))
        return self.head(F.relu(y).flatten(2).mean(2))


def two(first: nn.Module, second: nn.Module, view: tuple[int, ...] = _IMAGE):
    module = Two(first, second, view=view)
    with torch.no_grad():
        module(torch.zeros(1, *_IMAGE))
    return module


READERS = {
    "conv1d": lambda: two(nn.Conv1d(12, 8, 3), nn.Conv1d(8, 5, 3, stride=2, padding=1), (12, 36)),
    "conv2d": lambda: two(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 5, (1, 3), dilation=2)),
    "conv3d": lambda: two(nn.Conv3d(3, 8, 2), nn.Conv3d(8, 5, 2, stride=(1, 2, 1)), (3, 6, 6, 4)),
    "conv_transpose1d": lambda: two(nn.Conv1d(12, 8, 3), nn.ConvTranspose1d(8, 5, 3, stride=2), (12, 36)),
    "conv_transpose2d": lambda: two(
        nn.Conv2d(3, 8, 3), nn.ConvTranspose2d(8, 5, 3, stride=(2, 1), padding=1, output_padding=(1, 0))
    ),
    "conv_transpose3d": lambda: two(nn.Conv3d(3, 8, 2), nn.ConvTranspose3d(8, 5, 2, dilation=2), (3, 6, 6, 4)),
}


@pytest.mark.parametrize("kind", READERS)
def test_a_convolution_of_every_kind_is_refitted(kind):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        module = READERS[kind]()
    combined(module.first, 5, 0, 3)
    found = traced(model_of(module))
    assert operator_of(found.program.nodes[found.program.position[found.channel_map.layers[1].node]]) == kind
    assert_restored(found, {"first": without(8, 5)}, images=64)


@pytest.mark.parametrize("transposed", [False, True])
def test_a_grouped_convolution_is_refitted_group_by_group(transposed):
    """Each group gives one filter, made of others of its own: nothing else reaches its outputs."""
    second = nn.ConvTranspose2d(8, 6, 3, groups=2) if transposed else nn.Conv2d(8, 6, 3, groups=2)
    module = two(nn.Conv2d(3, 8, 3), second)
    combined(module.first, 1, 0, 3)
    combined(module.first, 6, 4, 7)
    assert_restored(traced(model_of(module)), {"first": without(8, 1, 6)})


def test_a_grouped_convolution_that_is_cut_itself_is_refitted_for_what_reads_it_and_what_it_reads():
    class Three(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.middle = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 6, 3, groups=2)
            self.last, self.head = nn.Conv2d(6, 5, 3), nn.Linear(5, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(F.relu(self.last(self.middle(self.first(x)))).mean((2, 3)))

    module = Three()
    combined(module.first, 1, 0, 3)
    combined(module.first, 6, 4, 7)
    combined(module.middle, 2, 0, 1)
    combined(module.middle, 3, 4, 5)
    assert_restored(traced(model_of(module)), {"first": without(8, 1, 6), "middle": without(6, 2, 3)})


def test_a_linear_layer_over_positions_is_refitted():
    class Positions(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.head = nn.Linear(36, 8), nn.Linear(8, 5), nn.Linear(5, 4)

        def forward(self, x: Tensor) -> Tensor:
            x = x.flatten(1, 2).transpose(1, 2)  # [n, 12 positions, 36]
            return self.head(F.relu(self.second(self.first(x))).mean(1))

    module = Positions()
    combined(module.first, 5, 0, 3)
    assert_restored(traced(model_of(module)), {"first": without(8, 5)}, images=64)


def test_what_reads_a_concatenation_is_refitted_for_all_its_parts_at_once():
    """The filter that goes is made of the other branch's filters alone."""

    class Joined(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3)
            self.second, self.head = nn.Conv2d(8, 5, 3), nn.Linear(5, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(F.relu(self.second(torch.cat([self.left(x), self.right(x)], 1))).mean((2, 3)))

    module = Joined()
    with torch.no_grad():
        for name in ("weight", "bias"):
            left, right = getattr(module.left, name), getattr(module.right, name)
            left[2] = 2 * right[0] - right[3]
    assert_restored(traced(model_of(module)), {"left": without(4, 2)})


def test_every_consumer_of_a_space_is_refitted():
    class Forked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(3, 8, 3)
            self.one, self.other = nn.Conv2d(8, 5, 3, padding=1), nn.ConvTranspose2d(8, 5, 3, padding=1)
            self.head = nn.Linear(10, 4)

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x)
            return self.head(F.relu(torch.cat([self.one(x), self.other(x)], 1)).mean((2, 3)))

    module = Forked()
    combined(module.first, 5, 0, 3)
    found = traced(model_of(module))
    assert set(found.channel_map.space("first").consumers) == {"one", "other"}
    assert_restored(found, {"first": without(8, 5)})


def test_a_depthwise_convolution_is_left_as_cut_and_what_reads_it_is_refitted():
    class Separable(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.depthwise = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, groups=8)
            self.second, self.head = nn.Conv2d(8, 5, 1), nn.Linear(5, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(F.relu(self.second(self.depthwise(self.first(x)))).mean((2, 3)))

    module = Separable()
    copy_filter(0, 5, module.first, module.depthwise)
    found = traced(model_of(module))
    assert_restored(found, {"first": without(8, 5)})
    cut, model, refits = recovered(found, {"first": without(8, 5)})
    assert [refit.layer for refit in refits] == ["second", "head"]
    assert torch.equal(model.module.depthwise.weight, cut.pruned.module.depthwise.weight)


class Transposed(nn.Module):
    """Transposed convolutions of every geometry, each reading the image."""

    def __init__(self) -> None:
        super().__init__()
        options = itertools.product([1, (2, 4)], [1, (3, 2)], [0, (1, 2)], [0, (1, 0)], [1, (1, 2)], [1, 3])
        self.convs = nn.ModuleList(
            nn.ConvTranspose2d(3, 6, kernel, stride, padding, more, groups, False, dilation)
            for kernel, stride, padding, more, dilation, groups in options
            if kernel != 1 or padding == 0
            if stride != 1 or more == 0
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        return [conv(x) for conv in self.convs]


def test_samples_times_the_weight_are_the_transposed_convolution():
    module = Transposed().eval()
    nodes = [node for node in capture(module, (3, 7, 5)).nodes if operator_of(node) == "conv_transpose2d"]
    images = torch.randn(2, 3, 7, 5)
    assert len(nodes) == len(module.convs) > 20
    for conv, node, wanted in zip(module.convs, nodes, run(module, images), strict=True):
        assert_rows_are_the_layer(conv, node, images, wanted)


class Upward(nn.Module):
    """A decoder: what is enlarged, normalised and read again."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8)
        self.up, self.up_norm = nn.ConvTranspose2d(8, 7, 2, stride=2, bias=False), nn.BatchNorm2d(7)
        self.second, self.head = nn.Conv2d(7, 6, 3), nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.up_norm(self.up(F.relu(self.norm(self.first(x))))))
        return self.head(F.relu(self.second(x)).mean((2, 3)))


def test_the_norm_behind_a_transposed_convolution_carries_its_constant():
    found = found_in(Upward)
    cut, model, refits = recovered(found, {"first": (0, 2, 3, 5, 7), "up": (0, 1, 4, 6)}, norms=True)
    assert [refit.layer for refit in refits] == ["up", "second", "head"]
    assert not torch.equal(model.module.up_norm.running_mean, cut.pruned.module.up_norm.running_mean)
    images = noise(found.model, 8, 99)
    wanted = run(found.model.module, images)
    assert difference(run(model.module, images), wanted) < difference(run(cut.pruned.module, images), wanted)
