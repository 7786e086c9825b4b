"""Networks that move channels about: which of their filters are free, and a cut of any of them is exact."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import moving_nets
import pytest
import torch
from moving_nets import (
    MOVING,
    AddedToConcat,
    C2f,
    Facts,
    Frozen,
    Ghost,
    Grouped,
    GroupedConcat,
    GroupedTransposed,
    OptionA,
    Selective,
    ShuffleV1,
    Uneven,
    WithoutNumbers,
)
from nets import (
    Traced,
    assert_attributes_are_true,
    assert_exact,
    difference,
    found_in,
    ignoring,
    model_of,
    plan_of,
    random_keep,
    run,
    silenced,
    traced,
)
from torch import Tensor, nn

from edgeprune.errors import EdgepruneError
from edgeprune.graph import GraphNetwork
from edgeprune.model import Model, load_saved, save_model
from edgeprune.prune.cost import cost, macs
from edgeprune.prune.surgery import apply

BIGGER = (2, 3, 20, 16)


def cut(found: Traced, keep) -> Model:
    return apply(plan_of(found.channel_map, keep), found.channel_map, found.model)


@cache
def cut_of(network: type[nn.Module], seed: int) -> tuple[Traced, dict[str, tuple[int, ...]], Model]:
    """A network, a random plan for it, and what the plan makes of it."""
    found = found_in(network)
    keep = random_keep(found.channel_map, seed)
    return found, keep, cut(found, keep)


networks = pytest.mark.parametrize(("network", "facts"), MOVING.items(), ids=lambda one: getattr(one, "__name__", ""))
seeds = pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])


@networks
def test_what_is_free_and_what_must_stay_is_known_with_the_reason(network, facts: Facts):
    spaces = {space.name: space for space in found_in(network).channel_map.spaces}
    assert spaces.pop("head").protected == "network output"
    assert {name: space.size for name, space in spaces.items() if not space.protected} == facts.free
    assert {name: len(set(space.cells)) for name, space in spaces.items() if space.cells} == facts.cells
    protected = {name: space.protected for name, space in spaces.items() if space.protected}
    assert protected.keys() == facts.whole.keys()
    assert all(reason in protected[name] for name, reason in facts.whole.items())


@seeds
@networks
def test_a_cut_is_exact_and_of_the_class_that_suits_it(network, facts: Facts, seed):
    found, keep, pruned = cut_of(network, seed)
    assert keep.keys() == facts.free.keys()
    assert_exact(found, pruned, keep)
    assert_attributes_are_true(pruned.module)
    if facts.as_graph is not None:
        assert type(pruned.module) is (GraphNetwork if facts.as_graph else network)
    counted = cost(found.program, found.channel_map, found.model.module).macs
    again = traced(pruned)
    left = cost(again.program, again.channel_map, pruned.module).macs
    assert left == macs(found.channel_map, found.channel_map.alive(keep).astype(float)) < counted


@seeds
@networks
def test_a_cut_network_takes_images_of_the_sizes_that_the_uncut_one_takes(network, facts: Facts, seed):
    found, keep, pruned = cut_of(network, seed)
    images = torch.randn(BIGGER)
    assert difference(run(pruned.module, images), run(ignoring(found, keep), images)) <= 1e-5
    assert difference(run(pruned.module, images[:1]), run(silenced(found, keep), images[:1])) <= 1e-5


@pytest.mark.slow
@networks
def test_a_cut_network_can_be_cut_again(network, facts: Facts):
    _, _, pruned = cut_of(network, 0)
    once = traced(pruned)
    keep = random_keep(once.channel_map, 7)
    twice = cut(once, keep)
    assert_exact(once, twice, keep)
    assert len(twice.plans) == 2


@pytest.mark.parametrize(("network", "space"), [(Grouped, "groups"), (GroupedTransposed, "up")])
def test_the_groups_of_a_convolution_choose_filters_of_their_own(network, space):
    found = found_in(network)
    width = found.channel_map.space(space).size // 4
    chosen = (0, width + 1, 2 * width, 3 * width + 1)
    keep = {"stem": (0, 1, 4, 6, 9, 11, 14, 15), space: chosen}
    pruned = cut(found, keep)
    assert_exact(found, pruned, keep)
    layer, uncut = pruned.module.get_submodule(space), found.model.module.get_submodule(space)
    assert (layer.in_channels, layer.out_channels, layer.groups) == (8, 4, 4)
    if not isinstance(layer, nn.ConvTranspose2d):
        columns = [(0, 1), (0, 2), (1, 3), (2, 3)]
        expected = [uncut.weight[row, list(read)] for row, read in zip(chosen, columns, strict=True)]
        assert torch.equal(layer.weight, torch.stack(expected))


@pytest.mark.parametrize("kept", [(0, 1, 2, 3), (0, 3), (0, 3, 6, 7, 9)])
def test_a_plan_that_leaves_groups_of_different_width_is_refused(kept):
    with pytest.raises(EdgepruneError, match="equally many filters in each of the 4 groups of space 'groups'"):
        cut(found_in(Grouped), {"groups": kept})


def test_a_shuffle_ties_the_same_places_of_every_group():
    found = found_in(ShuffleV1)
    space = found.channel_map.space("squeeze")
    slot = next(slot for slot in found.channel_map.slots if slot.tensor == "squeeze.weight" and slot.axis == 0)
    assert (space.size, space.repeat) == (8, 2)
    assert (slot.channels - space.first).tolist() == [*range(8), *range(8)]


def test_a_concatenation_read_in_groups_is_one_space_of_all_its_layers():
    found = found_in(GroupedConcat)
    assert found.channel_map.space("stem").producers == ("stem", "other")


def test_no_layer_of_a_shared_space_may_lose_all_its_filters():
    space = found_in(GroupedConcat).channel_map.space("stem")
    width = found_in(GroupedConcat).model.module.stem.out_channels
    assert set(space.parts) == {tuple(range(width)), tuple(range(width, space.size))}


def test_no_part_of_a_split_may_lose_all_its_filters():
    found = found_in(Uneven)
    assert set(found.channel_map.space("stem").parts) == {(0, 1, 2), (3, 4, 5, 6, 7)}
    with pytest.raises(EdgepruneError, match="none of the filters that a layer or a part"):
        cut(found, {"stem": (3, 4, 7)})


@pytest.mark.parametrize(
    ("network", "makers"),
    [
        (AddedToConcat, {"stem": ("stem", "wide"), "other": ("other", "wide")}),
        (OptionA, {"stem": ("stem", "down"), "down": ("down",)}),
    ],
)
def test_filters_that_other_layers_make_are_a_space_of_their_own(network, makers):
    spaces = found_in(network).channel_map.spaces
    assert {space.name: space.producers for space in spaces if space.name in makers} == makers
    assert not any(space.parts for space in spaces)


def test_the_parts_of_a_split_keep_a_filter_each():
    found = found_in(C2f)
    assert set(found.channel_map.space("stem").parts) == {(0, 1, 2, 3), (4, 5, 6, 7)}


def test_a_split_in_halves_stays_one():
    assert found_in(C2f).channel_map.space("stem").cells == (0, 0, 0, 0, 1, 1, 1, 1)


def test_widths_written_into_the_forward_pass_make_a_graph_where_the_cut_changes_them():
    found = found_in(C2f)
    assert type(cut(found, {"one": (0, 2)}).module) is C2f
    keep = {"stem": (0, 1, 3, 4, 5, 6)}
    pruned = cut(found, keep)
    assert type(pruned.module) is GraphNetwork
    assert "width written into it" in pruned.rewritten
    assert_exact(found, pruned, keep)
    assert pruned.module.state_dict().keys() == found.model.module.state_dict().keys()


def test_the_constant_channels_of_a_short_cut_go_with_the_filters_they_are_added_to():
    found = found_in(OptionA)
    keep = {"stem": (1, 5), "down": (0, 5)}  # those of the stem stand beside 5 and 9 of down; its 0 and 13 beside zeros
    pruned = cut(found, keep)
    assert_exact(found, pruned, keep)
    shapes = {name: tuple(tensor.shape) for name, tensor in pruned.module.named_parameters()}
    assert shapes["stem.weight"][0] == 2
    assert shapes["down.weight"][:2] == (4, 2)
    kept = dict(pruned.module.named_parameters())["down.weight"]
    assert torch.equal(kept, found.model.module.down.weight[[0, 5, 9, 13]][:, [1, 5]])


def test_a_radix_ties_the_branches_of_a_channel():
    found = found_in(Selective)
    space = found.channel_map.space("stem")
    assert (space.size, space.producers) == (8, ("stem", "conv", "excite"))


def test_a_slice_takes_what_is_left_of_its_part():
    found = found_in(Ghost)
    keep = {"stem": (1, 6, 7)}  # the cheap maps 6 and 7 are sliced off
    pruned = cut(found, keep)
    assert_exact(found, pruned, keep)
    assert dict(pruned.module.named_parameters())["last.weight"].shape[1] == 4


class Several(nn.Module):
    """Two branches that share a stem, each with an output of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.left, self.right = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 6, 1), nn.Conv2d(8, 6, 1)
        self.one, self.two = nn.Linear(6, 4), nn.Conv2d(6, 5, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.stem(x).relu()
        return self.one(self.left(x).relu().mean((2, 3))), self.two(self.right(x).relu())


class Named(Several):
    def forward(self, x: Tensor) -> dict[str, Tensor | list[Tensor]]:
        one, two = super().forward(x)
        return {"one": one, "rest": [two, one * 2]}


def tensors_of(output) -> list[Tensor]:
    if isinstance(output, Tensor):
        return [output]
    return [tensor for part in (output.values() if isinstance(output, dict) else output) for tensor in tensors_of(part)]


@pytest.mark.parametrize("network", [Several, Named])
def test_networks_with_several_outputs_are_cut_and_all_outputs_are_protected(network):
    found = traced(model_of(network()))
    assert [space.name for space in found.channel_map.spaces if not space.protected] == ["stem", "left", "right"]
    keep = random_keep(found.channel_map, 2)
    pruned = cut(found, keep)
    images = torch.randn(3, 3, 9, 14)
    outputs, expected = run(pruned.module, images), run(silenced(found, keep), images)
    assert type(outputs) is type(expected)
    for one, other in zip(tensors_of(outputs), tensors_of(expected), strict=True):
        assert difference(one, other) <= 1e-5


class TwoInputs(nn.Module):
    """Images and a second map, mixed by a sum, and by a gate."""

    def __init__(self) -> None:
        super().__init__()
        self.image, self.depth = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(1, 8, 3, padding=1)
        self.mix, self.head = nn.Conv2d(8, 6, 1), nn.Linear(6, 4)

    def forward(self, x: Tensor, depth: Tensor) -> Tensor:
        x = self.image(x) + self.depth(depth)
        return self.head((self.mix(x.relu()) * depth.sigmoid()).relu().mean((2, 3)))


def test_a_network_with_two_inputs_is_cut():
    found = traced(Model(TwoInputs().eval(), model_of(TwoInputs()).input, "two", "tests", more_inputs=((1, 12, 12),)))
    keep = {"image": (0, 3, 4), "mix": (1, 5)}
    pruned = cut(found, keep)
    inputs = torch.randn(3, 3, 12, 12), torch.randn(3, 1, 12, 12)
    with torch.no_grad():
        for module in (silenced(found, keep), ignoring(found, keep)):
            assert difference(pruned.module(*inputs), module(*inputs)) <= 1e-5
    assert pruned.module.depth.out_channels == 3


def test_layers_that_store_no_numbers_say_what_is_left_of_their_width_and_do_so_when_loaded_again(tmp_path):
    found = found_in(WithoutNumbers)
    pruned = cut(found, {"stem": (0, 3, 4, 9, 15), "wide": (1, 4)})
    sizes = (pruned.module.twice.num_features, pruned.module.groups.num_groups, pruned.module.groups.num_channels)
    assert sizes == (5, 2, 4)
    assert found.model.module.twice.num_features == 16
    save_model(replace(pruned, source=f"{Path(moving_nets.__file__)}:WithoutNumbers"), tmp_path)
    again = load_saved(tmp_path).module
    assert (again.twice.num_features, again.groups.num_groups, again.groups.num_channels) == sizes
    assert torch.equal(run(again.eval(), images := torch.randn(2, 3, 12, 12)), run(pruned.module, images))


def test_stored_numbers_that_are_added_make_no_residual_stream():
    assert not any(space.residual for space in found_in(Frozen).channel_map.spaces if space.name == "stem")
