"""Networks of the kinds that are put on devices: all but their outputs may be cut, and every cut is exact."""

from __future__ import annotations

import pytest
import torch
from deployed_nets import DEPLOYED, CifarResNet, Detector, ShuffleNet, UNet, Yolo
from nets import (
    assert_attributes_are_true,
    difference,
    found_in,
    ignoring,
    plan_of,
    random_keep,
    run,
    silenced,
    traced,
)
from torch import Tensor

from edgeprune.errors import ModelError
from edgeprune.graph import GraphNetwork
from edgeprune.prune.cost import cost, macs
from edgeprune.prune.surgery import apply

QUICK = (UNet, ShuffleNet, Detector)
networks = pytest.mark.parametrize("network", DEPLOYED, ids=lambda one: one.__name__)
any_size = pytest.mark.parametrize(
    "network",
    [
        pytest.param(network, id=network.__name__, marks=() if network in QUICK else pytest.mark.slow)
        for network in DEPLOYED
        if network is not CifarResNet
    ],
)
seeds = pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))])


def tensors_of(output) -> list[Tensor]:
    return [output] if isinstance(output, Tensor) else [tensor for part in output for tensor in tensors_of(part)]


def assert_equal(module, other, images: Tensor) -> None:
    outputs, expected = run(module, images), run(other, images)
    assert type(outputs) is type(expected)
    for one, two in zip(tensors_of(outputs), tensors_of(expected), strict=True):
        assert difference(one, two) <= 2e-5


@networks
def test_all_but_the_output_layers_are_free(network):
    spaces = found_in(network).channel_map.spaces
    outputs, _ = DEPLOYED[network]
    protected = {space.name: space.protected for space in spaces if space.protected}
    assert {name for space in spaces if space.protected for name in space.producers} == outputs, protected


@seeds
@any_size
def test_a_cut_is_exact_on_any_number_of_images_of_any_size(network, seed):
    found = found_in(network)
    keep = random_keep(found.channel_map, seed)
    pruned = apply(plan_of(found.channel_map, keep), found.channel_map, found.model)
    for shape in ((3, 3, 12, 12), (1, 3, 16, 16), (2, 3, 24, 24)):
        images = torch.randn(shape)
        for other in (silenced(found, keep), ignoring(found, keep)):
            assert_equal(pruned.module, other, images)
    assert_attributes_are_true(pruned.module)
    _, as_graph = DEPLOYED[network]
    if as_graph is not None:
        assert type(pruned.module) is (GraphNetwork if as_graph else network)


@pytest.mark.slow
@networks
def test_a_cut_network_costs_what_was_counted_and_can_be_cut_again(network):
    found = found_in(network)
    keep = random_keep(found.channel_map, 4)
    pruned = apply(plan_of(found.channel_map, keep), found.channel_map, found.model)
    again = traced(pruned)
    counted = cost(again.program, again.channel_map, pruned.module).macs
    assert counted == macs(found.channel_map, found.channel_map.alive(keep).astype(float))
    keep = random_keep(again.channel_map, 5)
    twice = apply(plan_of(again.channel_map, keep), again.channel_map, pruned)
    assert_equal(twice.module, silenced(again, keep), torch.randn(2, *found.model.input.shape))


def test_residual_filters_that_zeros_are_padded_to_are_a_space_for_each_stage_that_begins_with_them():
    spaces = {space.name: space for space in found_in(CifarResNet).channel_map.spaces if space.residual}
    assert {name: space.size for name, space in spaces.items()} == {"conv1": 4, "layer2.0.conv2": 4, "layer3.conv2": 8}
    assert spaces["conv1"].producers == ("conv1", "layer1.conv2", "layer2.0.conv2", "layer2.1.conv2", "layer3.conv2")
    assert spaces["layer2.0.conv2"].producers == ("layer2.0.conv2", "layer2.1.conv2", "layer3.conv2")
    assert spaces["layer3.conv2"].producers == ("layer3.conv2",)


@pytest.mark.slow
def test_a_graph_whose_code_pools_by_the_size_of_its_maps_is_exact_at_that_size_and_refuses_others():
    found = found_in(CifarResNet)
    keep = random_keep(found.channel_map, 0)
    pruned = apply(plan_of(found.channel_map, keep), found.channel_map, found.model)
    assert type(pruned.module) is GraphNetwork
    for other in (silenced(found, keep), ignoring(found, keep)):
        assert_equal(pruned.module, other, torch.randn(3, 3, 12, 12))
    with pytest.raises(ModelError, match="is not known for others"):
        run(pruned.module, torch.randn(3, 3, 16, 16))


def test_the_stages_of_a_split_block_share_a_space_only_where_a_short_cut_adds_them():
    spaces = {space.name: space for space in found_in(Yolo).channel_map.spaces}
    assert "stage1.m.0.1.0" in spaces["stage1.cv1.0"].producers
    assert spaces["neck1.m.0.1.0"].producers == ("neck1.m.0.1.0",)
