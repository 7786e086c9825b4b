"""trace: which filters go together, which must stay, and why."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from nets import (
    SMALL,
    Dense,
    Flat,
    Inverted,
    Plain,
    Residual,
    Scaled,
    Tokens,
    Traced,
    Twice,
    assert_exact,
    found_in,
    model_of,
    noise,
    plan_of,
    random_keep,
    run,
    traced,
    zoo,
)
from torch import Tensor, nn
from torch.nn import functional as F

from edgeprune.channels import FIXED
from edgeprune.prune.allocate import left_whole
from edgeprune.prune.cost import cost
from edgeprune.prune.surgery import apply


def reasons(found: Traced) -> dict[str, str]:
    return {space.name: space.protected for space in found.channel_map.spaces if space.protected}


def slots(found: Traced) -> dict[tuple[str, int], list[int]]:
    return {(slot.tensor, slot.axis): slot.channels.tolist() for slot in found.channel_map.slots}


def assert_still_cuts(found: Traced, *names: str) -> None:
    """What is protected does not keep the rest from an exact cut."""
    keep = random_keep(found.channel_map, seed=3, keep=0.5)
    assert set(names) <= keep.keys()
    assert_exact(found, apply(plan_of(found.channel_map, keep), found.channel_map, found.model), keep)


def test_each_convolution_makes_a_space_and_the_output_is_protected():
    found = found_in(Plain)
    assert [(space.name, space.size, space.consumers) for space in found.channel_map.spaces] == [
        ("first", 8, ("second",)),
        ("second", 6, ("head",)),
        ("head", 4, ()),
    ]
    assert reasons(found) == {"head": "network output"}


def test_the_image_has_no_channels_to_cut():
    assert ("first.weight", 1) not in slots(found_in(Plain))


def test_normalisation_and_bias_are_cut_along():
    found = slots(found_in(Plain))
    for tensor in ("first.weight", "norm.weight", "norm.bias", "norm.running_mean", "norm.running_var"):
        assert found[tensor, 0] == list(range(8))
    assert found["second.bias", 0] == list(range(8, 14))


def test_flattening_gives_each_channel_a_block_of_columns():
    found = found_in(Flat)
    second = found.channel_map.space("body.3")
    assert slots(found)["hidden.weight", 1] == np.repeat(np.arange(6) + second.first, 9).tolist()


def test_an_addition_ties_its_two_sides():
    found = found_in(Residual)
    shared = found.channel_map.space("stem")
    assert shared.producers == ("stem", "conv2")
    assert shared.residual
    assert slots(found)["stem.weight", 0] == slots(found)["conv2.weight", 0]
    assert not found.channel_map.space("conv1").residual


def test_depthwise_convolutions_and_gates_pass_channels_on():
    found = found_in(Inverted)
    wide = found.channel_map.space("expand")
    assert wide.producers == ("expand", "excite")
    assert wide.consumers == ("squeeze", "project")
    assert slots(found)["depthwise.weight", 0] == slots(found)["expand.weight", 0]
    assert ("depthwise.weight", 1) not in slots(found)


def test_a_depthwise_convolution_with_two_filters_a_channel_cuts_pairs():
    class Multiplied(Plain):
        def __init__(self):
            super().__init__(8, 16)
            self.second = nn.Conv2d(8, 16, 3, groups=8)

    found = found_in(Multiplied)
    assert slots(found)["second.weight", 0] == np.repeat(np.arange(8), 2).tolist()
    assert_still_cuts(found, "first")


def test_concatenation_puts_channels_side_by_side_with_the_image_between():
    found = found_in(Dense)
    one, two = found.channel_map.space("one"), found.channel_map.space("two")
    columns = slots(found)["mix.weight", 1]
    assert columns == [*range(two.first, two.first + 7), FIXED, FIXED, FIXED, *range(one.first, one.first + 5)]


def test_parameters_that_the_forward_pass_uses_itself_are_cut_along():
    found = slots(found_in(Scaled))
    for place in (("scale", 0), ("offset", 1), ("place", 0), ("prelu.weight", 0)):
        assert found[place] == list(range(8))
    assert ("one_slope.weight", 0) not in found


def test_a_layer_used_twice_ties_its_inputs_to_its_outputs():
    found = found_in(Twice)
    assert found.channel_map.space("stem").producers == ("stem", "conv")
    assert slots(found)["conv.weight", 0] == slots(found)["conv.weight", 1]
    assert not reasons(found).keys() - {"head"}


def test_layers_that_share_a_module_have_names_of_their_own():
    class Functional(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Parameter(torch.randn(8, 3, 3, 3)), nn.Parameter(torch.randn(6, 8, 3, 3))
            self.head = nn.Linear(6, 4)

        def forward(self, x):
            return self.head(F.relu(F.conv2d(F.relu(F.conv2d(x, self.one)), self.two)).mean((2, 3)))

    found = found_in(Functional)
    assert [space.name for space in found.channel_map.spaces] == ["one", "two", "head"]
    assert_still_cuts(found, "one", "two")


def test_a_filter_that_weighs_all_positions_does_not_tie_the_channels_together():
    found = found_in(Tokens)
    assert found.channel_map.space("patch").size == 8
    assert reasons(found)["look"].startswith("one filter that all channels meet (")


@pytest.mark.parametrize(
    ("name", "after", "before"),
    [("one", "elu", "conv2d"), ("two", "leaky_relu", "conv2d_1"), ("mix", "tanh", "conv2d_2")],
)
def test_feature_maps_are_shown_after_and_before_the_activation_even_behind_a_concatenation(name, after, before):
    space = found_in(Dense).channel_map.space(name)
    assert (space.after, space.before, space.linear) == (after, before, False)


def test_feature_maps_are_shown_before_pooling():
    space = found_in(Flat).channel_map.space("body.0")
    assert (space.after, space.before) == ("relu", "conv2d")


def test_filters_that_no_activation_follows_are_called_linear():
    assert found_in(Inverted).channel_map.space("stem").linear


class Softened(Plain):
    def forward(self, x):
        return self.head(F.relu(self.second(F.softmax(self.first(x), 1))).mean((2, 3)))


class Averaged(Plain):
    def __init__(self):
        super().__init__()
        self.second = nn.Conv2d(1, 6, 3)

    def forward(self, x):
        return self.head(F.relu(self.second(self.first(x).mean(1, keepdim=True))).mean((2, 3)))


class Weighed(Plain):
    def forward(self, x):
        x = F.relu(self.first(x)) * torch.linspace(1, 2, 8).view(8, 1, 1)
        return self.head(F.relu(self.second(x)).mean((2, 3)))


class Standardised(Plain):
    def forward(self, x):
        weight = self.second.weight - self.second.weight.mean((1, 2, 3), keepdim=True)
        x = F.conv2d(F.relu(self.norm(self.first(x))), weight, self.second.bias)
        return self.head(F.relu(x).mean((2, 3)))


class Peeking(Plain):
    """Uses a weight once as a layer, and once as a number."""

    def forward(self, x):
        x = F.relu(self.norm(self.first(x)) * self.first.weight.mean())
        return self.head(F.relu(self.second(x)).mean((2, 3)))


class ImageTwice(Plain):
    """The same convolution reads the image, and then its own output."""

    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)
        self.second = nn.Conv2d(3, 6, 3)

    def forward(self, x):
        return super().forward(F.relu(self.first(x)))


class ComputedBias(Plain):
    def forward(self, x):
        x = F.relu(F.conv2d(x, self.first.weight, self.norm.bias * 2, padding=1))
        return self.head(F.relu(self.second(x)).mean((2, 3)))


class Unpooled(Plain):
    def __init__(self):
        super().__init__()
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.third = nn.Conv2d(8, 6, 3)

    def forward(self, x):
        x, places = F.max_pool2d(F.relu(self.norm(self.first(x))), 2, return_indices=True)
        x = F.max_unpool2d(F.relu(self.second(x)), places, 2)
        return self.head(self.third(x).relu().mean((2, 3)))


@pytest.mark.parametrize(
    ("network", "space", "reason", "others"),
    [
        (Softened, "first", "normalised over channels by operator softmax (", ["second"]),
        (Averaged, "first", "reduced over channels by operator mean (", ["second"]),
        (Weighed, "first", "meets a tensor whose channels cannot be cut", ["second"]),
        (Standardised, "first", "operator conv2d is used in a way that is not supported", []),
        (Peeking, "first", "first.weight is used twice in different ways", ["second"]),
        (ImageTwice, "first", "first.weight is used twice in different ways", ["second"]),
        (ComputedBias, "first", "meets a computed tensor that cannot be cut", ["second"]),
        (Unpooled, "first", "not supported", []),
    ],
)
def test_what_cannot_be_cut_exactly_is_left_whole_with_the_reason_and_the_rest_is_cut(network, space, reason, others):
    found = found_in(network)
    assert reason in reasons(found)[space]
    if others:
        assert_still_cuts(found, *others)


def test_inner_scope_leaves_residual_widths_and_linear_bottlenecks_whole_and_says_so():
    found = found_in(Inverted)
    whole = left_whole(found.channel_map, "inner")
    assert "residual width, shared by 2 layers" in whole["stem"]
    assert left_whole(found.channel_map, "all").keys() == {"head"}


def test_equal_architectures_have_equal_fingerprints_whatever_their_weights():
    one, two = found_in(Plain), traced(model_of(Plain()))
    assert one.channel_map.fingerprint == two.channel_map.fingerprint
    assert traced(model_of(Plain(first=9))).channel_map.fingerprint != one.channel_map.fingerprint


@pytest.mark.parametrize("network", SMALL)
def test_every_stored_axis_with_channels_is_as_long_as_its_labels(network):
    found = found_in(network)
    for slot in found.channel_map.slots:
        tensor = found.model.module.state_dict()[slot.tensor]
        assert tensor.shape[slot.axis] == len(slot.channels)


def macs_by_hooks(module: nn.Module, images: torch.Tensor) -> int:
    """Counted on what the layers really do."""
    total = 0

    def count(layer, inputs, output):
        nonlocal total
        total += output[0].numel() * layer.weight[0].numel()

    layers = [layer for layer in module.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    run(module, images[:1])
    for hook in hooks:
        hook.remove()
    return total


@pytest.mark.parametrize("network", SMALL)
def test_macs_are_those_that_the_layers_do(network):
    found = found_in(network)
    counted = cost(found.program, found.channel_map, found.model.module)
    assert counted.macs == macs_by_hooks(found.model.module, noise(found.model))
    assert counted.parameters == sum(p.numel() for p in found.model.module.parameters())


def test_macs_of_a_linear_layer_on_merged_axes_count_every_row_of_an_image():
    class Rows(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.row, self.head = nn.Conv2d(3, 8, 1), nn.Linear(8, 5), nn.Linear(5, 4)

        def forward(self, x):
            n = x.size(0)
            rows = self.row(F.relu(self.conv(x)).permute(0, 2, 3, 1).reshape(-1, 8))
            return self.head(F.relu(rows).view(n, -1, 5).mean(1))

    found = found_in(Rows)
    assert cost(found.program, found.channel_map, found.model.module).macs == 144 * (3 * 8 + 8 * 5) + 5 * 4


@pytest.mark.parametrize(
    ("name", "macs", "parameters"),
    [("digits", 14_193_280, 223_306), ("resnet20", 40_551_040, 269_722), ("vgg16_bn_cifar", 313_463_808, 14_991_946)],
)
def test_the_cost_of_our_own_networks_is_the_published_one(name, macs, parameters):
    found = traced(zoo(name))
    counted = cost(found.program, found.channel_map, found.model.module)
    assert (counted.macs, counted.parameters) == (macs, parameters)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "macs", "parameters"),
    [
        ("resnet56", 125_485_696, 853_018),
        ("mobilenet_v2", 300_774_272, 3_504_872),
        ("mobilenet_v2_tf", 300_774_272, 3_504_872),
    ],
)
def test_the_cost_of_the_larger_networks_is_the_published_one(name, macs, parameters):
    found = traced(zoo(name))
    counted = cost(found.program, found.channel_map, found.model.module)
    assert (counted.macs, counted.parameters) == (macs, parameters)


class Gated(nn.Module):
    """Squeeze and excite in a residual block: the last layer of the gate has the width of what it gates."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.wide = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 16, 1)
        self.squeeze, self.excite = nn.Conv2d(16, 4, 1), nn.Conv2d(4, 16, 1)
        self.narrow, self.fc = nn.Conv2d(16, 8, 1), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.wide(x)
        y = y * self.excite(self.squeeze(y.mean((2, 3), keepdim=True)).relu()).sigmoid()
        return self.fc((x + self.narrow(y)).relu().mean((2, 3)))


def test_a_gate_ties_widths_but_is_no_residual_sum_so_the_gated_width_is_cut():
    channel_map = found_in(Gated).channel_map
    wide = channel_map.space("wide")
    assert wide.producers == ("wide", "excite")
    assert not wide.residual
    assert not wide.linear
    assert channel_map.space("stem").residual
    assert set(left_whole(channel_map)) == {"stem", "fc"}


class Viewed(Plain):
    """Numbers of its own, one for each channel, that it views as a map is shaped."""

    def __init__(self):
        super().__init__()
        self.gain, self.offset = nn.Parameter(torch.rand(8) + 0.5), nn.Parameter(torch.randn(8))

    def forward(self, x):
        x = F.relu(self.norm(self.first(x) * self.gain[None, :, None, None] + self.offset.view(1, -1, 1, 1)))
        return self.head(F.relu(self.second(x)).mean((2, 3)))


class ViewedTwice(Viewed):
    def forward(self, x):
        return super().forward(x) * self.gain.view(2, 4).sum()


def test_a_view_of_a_parameter_is_cut_along():
    found = found_in(Viewed)
    assert slots(found)["gain", 0] == slots(found)["offset", 0] == list(range(8))
    assert_still_cuts(found, "first", "second")


def test_a_parameter_that_is_also_viewed_as_something_else_keeps_its_filters():
    found = found_in(ViewedTwice)
    assert reasons(found)["first"] == "gain is used twice in different ways"
    assert_still_cuts(found, "second")
