"""Hostile networks: a cut is exact, or what cannot be followed stays and is named, or it is refused; never wrong."""

from __future__ import annotations

import pytest
import torch
from hostile_nets import IN_PLACE, MIXED, MODES, READ_AS_NUMBERS, SIZED, WIDTH, WRITTEN_DOWN, Case, Hostile, one_image
from nets import (
    Traced,
    assert_exact,
    difference,
    ignoring,
    model_of,
    plan_of,
    random_keep,
    run,
    silenced,
    traced,
)
from torch import Tensor, nn
from torch.nn import functional as F

from edgeprune.errors import ModelError, TraceError
from edgeprune.model import Model
from edgeprune.prune.surgery import apply

ALL = WRITTEN_DOWN | READ_AS_NUMBERS | IN_PLACE | MIXED | MODES
QUICK = {
    "divided by its width",
    "viewed at its width",
    "counted by all elements",
    "norm of each filter",
    "calculated weight",
    "a part of the channels",
    "channels by a buffer",
    "a view at the traced batch",
    "batch and channels in one",
}
SIZES = ((2, 3, 12, 12), (1, 3, 12, 12), (3, 3, 12, 12), (2, 3, 8, 8), (2, 3, 16, 16), (1, 3, 20, 18))


def named(cases, quick=frozenset()):
    """The cases by name; all but the quick ones are slow."""
    return [
        pytest.param(case, id=name, marks=() if not quick or name in quick else pytest.mark.slow)
        for name, case in cases.items()
    ]


def made(module: nn.Module) -> Traced:
    return traced(model_of(module))


def cut(found: Traced, seed: int = 1) -> tuple[dict[str, tuple[int, ...]], Model]:
    keep = random_keep(found.channel_map, seed, keep=0.5)
    return keep, apply(plan_of(found.channel_map, keep), found.channel_map, found.model)


@pytest.mark.parametrize("case", named(ALL, QUICK))
def test_a_hostile_network_is_cut_exactly_or_left_whole_with_the_reason(case: Case):
    torch.manual_seed(0)
    found = made(case.network())
    spaces = {space.name: space for space in found.channel_map.spaces}
    assert case.why in spaces["first"].protected
    assert bool(spaces["first"].protected) == bool(case.why)
    keep, pruned = cut(found)
    assert ("first" in keep) == (not case.why)
    if keep:
        assert_exact(found, pruned, keep)


def test_a_buffer_that_counts_channels_counts_those_that_are_left_and_the_class_stays():
    network = MIXED["channels by a buffer"].network()
    found = made(network)
    pruned = apply(plan_of(found.channel_map, keep := {"first": (0, 2, 5, 7)}), found.channel_map, found.model)
    assert_exact(found, pruned, keep)
    assert type(pruned.module) is Hostile
    assert (network.chosen.tolist(), pruned.module.chosen.tolist()) == ([0, 1, 4, 5, -1], [0, 2, 3])


def assert_never_wrong(found: Traced, pruned: Model, keep) -> int:
    """At every size that the uncut network takes, the cut one computes the same or does not answer; how often."""
    refused = 0
    for shape in SIZES:
        images = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        try:
            expected = run(silenced(found, keep), images)
        except RuntimeError:
            continue
        try:
            output = run(pruned.module, images)
        except Exception:  # whatever it says: it does not answer
            refused += 1
            continue
        assert difference(output, expected) <= 1e-5, shape
        assert difference(output, run(ignoring(found, keep), images)) <= 1e-5, shape
    return refused


@pytest.mark.parametrize("case", named(SIZED, {"pools large images", "takes one size only"}))
def test_a_graph_is_never_wrong_at_sizes_that_it_was_not_traced_with(case: Case):
    torch.manual_seed(0)
    found = made(case.network())
    keep, pruned = cut(found)
    assert "first" in keep
    assert assert_never_wrong(found, pruned, keep) < len(SIZES) - 1


def test_a_graph_of_code_that_treats_a_single_image_in_another_way_is_refused():
    found = made(Hostile(one_image))
    with pytest.raises(ModelError, match="does not compute what the uncut one computes"):
        cut(found)


def test_a_network_that_gives_something_else_each_time_is_refused():
    found = made(Hostile(lambda x, m: x + torch.rand_like(x)))
    with pytest.raises(ModelError, match="other outputs each time it runs") as caught:
        cut(found)
    assert "random" in caught.value.fix


class Outputs(nn.Module):
    """Two convolutions and a linear layer, and outputs made of all of them."""

    def __init__(self, outputs) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 6, 3, padding=1)
        self.head, self.outputs = nn.Linear(6, 4), outputs

    def forward(self, x: Tensor):
        one = F.relu(self.first(x))
        two = F.relu(self.second(one))
        return self.outputs(self, one, two, self.head(two.mean((2, 3))))


RETURNED = {
    "feature maps": (lambda m, one, two, y: [one, y], {"second"}),
    "nothing beside": (lambda m, one, two, y: {"y": y, "aux": None}, {"first", "second"}),
    "numbers beside": (lambda m, one, two, y: (y, 1.5, 3), {"first", "second"}),
    "the same twice": (lambda m, one, two, y: (y, y), {"first", "second"}),
    "a mask": (lambda m, one, two, y: {"y": y, "mask": y > 0}, {"first", "second"}),
    "classes": (lambda m, one, two, y: (y, y.argmax(1)), {"first", "second"}),
    "none of the rows": (lambda m, one, two, y: (y, y[:, :0]), {"first", "second"}),
    "no numbers": (lambda m, one, two, y: (y, (y * 0).log()), {"first", "second"}),
    "a weight": (lambda m, one, two, y: (y, m.second.weight), set()),
    "a penalty on a weight": (lambda m, one, two, y: (y, m.second.weight.square().sum()), set()),
    "a mean of all channels": (lambda m, one, two, y: (y, one.mean()), {"second"}),
}


def leaves(output) -> list:
    if isinstance(output, dict):
        output = list(output.values())
    return [leaf for part in output for leaf in leaves(part)] if isinstance(output, list | tuple) else [output]


@pytest.mark.parametrize(("outputs", "free"), RETURNED.values(), ids=RETURNED)
def test_whatever_a_network_returns_is_left_whole_and_the_rest_is_cut(outputs, free):
    torch.manual_seed(0)
    found = made(Outputs(outputs))
    keep, pruned = cut(found)
    assert keep.keys() == free
    images = torch.randn(3, 3, 12, 12)
    for other in (silenced(found, keep), ignoring(found, keep)):
        output, expected = run(pruned.module, images), run(other, images)
        assert type(output) is type(expected)
        for one, two in zip(leaves(output), leaves(expected), strict=True):
            assert (
                torch.equal(one, two) or torch.allclose(one, two, atol=1e-5) if isinstance(two, Tensor) else one == two
            )


class Sized(nn.Conv2d):
    """A layer whose own forward calculates with its attributes."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.out_channels / 8


class Shadowing(nn.Module):
    """Attributes of its own that say its sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.width, self.in_features = 8, 6
        self.first, self.second = Sized(3, 8, 3, padding=1), nn.Conv2d(8, 6, 3, padding=1)
        self.head = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.first(x))
        n, _, h, w = x.shape
        x = x * x.reshape(n, self.width, h * w).mean(2).view(n, self.width, 1, 1)
        return self.head(F.relu(self.second(x)).mean((2, 3)).view(n, self.in_features))


def test_attributes_that_say_sizes_are_no_hindrance():
    found = made(Shadowing())
    keep, pruned = cut(found)
    assert keep.keys() == {"first", "second"}
    assert_exact(found, pruned, keep)
    assert assert_never_wrong(found, pruned, keep) == 0


class Remembering(nn.Module):
    """Writes buffers as it runs: a count, and the mean of its channels, which the next run reads."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 6, 3, padding=1)
        self.head = nn.Linear(6, 4)
        self.register_buffer("count", torch.zeros(()))
        self.register_buffer("mean", torch.zeros(8))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.first(x) - self.mean.view(-1, 1, 1))
        self.count += 1
        self.mean.copy_(x.mean((0, 2, 3)))
        return self.head(F.relu(self.second(x)).mean((2, 3)))


def test_a_cut_does_not_run_the_network_it_returns_so_its_buffers_are_those_of_the_uncut_one():
    found = made(Remembering())
    keep, pruned = cut(found)
    assert pruned.module.count == found.model.module.count == 0
    assert pruned.module.mean.abs().sum() == 0
    assert_exact(found, pruned, keep)


@pytest.mark.parametrize("register", ["register_forward_hook", "register_forward_pre_hook"])
def test_hooks_that_change_values_are_refused_by_name(register):
    network = Hostile(lambda x, m: x)
    getattr(network.second, register)(lambda module, inputs, *output: None)
    with pytest.raises(TraceError, match="hook"):
        made(network)


@pytest.mark.parametrize("kind", ["weight_norm", "spectral_norm"])
def test_a_layer_with_a_calculated_weight_stays_whole_and_so_does_what_it_reads(kind):
    network = Hostile(lambda x, m: m.inner(x), inner=nn.Conv2d(WIDTH, WIDTH, 3, padding=1))
    getattr(nn.utils.parametrizations, kind)(network.inner)
    found = made(network)
    assert "conv2d is used in a way that is not supported" in found.channel_map.space("first").protected
    keep, pruned = cut(found)
    assert keep.keys() == {"second"}
    assert_exact(found, pruned, keep)


def test_values_that_decide_the_way_are_refused_with_the_line():
    with pytest.raises(TraceError, match="cannot be traced"):
        made(Hostile(lambda x, m: x * 2 if x.sum() > 0 else x))
