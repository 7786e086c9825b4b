"""apply: the cut network computes what the uncut one computes without the removed filters, and is really smaller."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from nets import (
    SMALL,
    Flat,
    Plain,
    Residual,
    Traced,
    Twice,
    assert_attributes_are_true,
    assert_exact,
    difference,
    found_in,
    model_of,
    noise,
    plan_of,
    random_keep,
    run,
    traced,
    zoo,
)

from edgeprune.errors import EdgepruneError, ModelError
from edgeprune.graph import GraphNetwork
from edgeprune.prune.cost import cost, macs
from edgeprune.prune.surgery import apply


def cut(found: Traced, keep):
    return apply(plan_of(found.channel_map, keep), found.channel_map, found.model)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("network", SMALL)
def test_a_small_network_is_cut_exactly(network, seed):
    found = found_in(network)
    keep = random_keep(found.channel_map, seed)
    pruned = cut(found, keep)
    assert_exact(found, pruned, keep)
    assert_attributes_are_true(pruned.module)


def check_zoo(name, shape, scope):
    found = traced(zoo(name, shape))
    keep = random_keep(found.channel_map, 0, scope)
    assert any(len(kept) < found.channel_map.space(space).size for space, kept in keep.items())
    pruned = cut(found, keep)
    assert_exact(found, pruned, keep)
    assert_attributes_are_true(pruned.module)
    again = traced(pruned)
    counted = cost(again.program, again.channel_map, pruned.module)
    uncut = cost(found.program, found.channel_map, found.model.module)
    assert counted.macs == macs(found.channel_map, found.channel_map.alive(keep).astype(float)) < uncut.macs
    assert counted.parameters < uncut.parameters
    assert counted.peak_activation_bytes <= uncut.peak_activation_bytes


@pytest.mark.parametrize("scope", ["inner", "all"])
def test_the_demo_is_cut_exactly(scope):
    check_zoo("digits", None, scope)


@pytest.mark.slow
@pytest.mark.parametrize("scope", ["inner", "all"])
@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("resnet20", None),
        ("resnet56", None),
        ("vgg16_bn_cifar", None),
        ("mobilenet_v2", (3, 64, 64)),
        ("mobilenet_v2_tf", (3, 64, 64)),
    ],
)
def test_our_own_networks_are_cut_exactly(name, shape, scope):
    check_zoo(name, shape, scope)


def test_keeping_all_changes_nothing():
    found = found_in(Residual)
    keep = {space.name: tuple(range(space.size)) for space in found.channel_map.spaces}
    images = noise(found.model)
    for kept in (keep, {}):
        assert torch.equal(run(cut(found, kept).module, images), run(found.model.module, images))


def test_the_cut_model_is_a_new_one_of_the_same_class_and_the_uncut_one_is_as_it_was():
    found = traced(model_of(Residual()))
    before = {name: tensor.clone() for name, tensor in found.model.module.state_dict().items()}
    pruned = cut(found, {"conv1": (0, 3, 5)})
    assert type(pruned.module) is Residual
    assert not pruned.module.training
    after = found.model.module.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    with torch.no_grad():
        pruned.module.head.weight.zero_()
    assert found.model.module.head.weight.abs().sum() > 0


def test_the_kept_filters_are_those_of_the_plan_in_its_order():
    found = found_in(Plain)
    pruned = cut(found, {"first": (1, 4, 6), "second": (0, 5)})
    kept = torch.tensor([1, 4, 6])
    assert torch.equal(pruned.module.first.weight, found.model.module.first.weight[kept])
    assert torch.equal(pruned.module.norm.running_var, found.model.module.norm.running_var[kept])
    assert torch.equal(pruned.module.second.weight, found.model.module.second.weight[[0, 5]][:, kept])
    assert pruned.module.head.in_features == 2


def test_a_weight_under_two_names_stays_one():
    found = found_in(Twice)
    pruned = cut(found, {"left": (0, 2), "stem": (1, 2, 3)})
    assert pruned.module.left.weight is pruned.module.right.weight
    assert pruned.module.right.out_channels == 2
    assert pruned.module.right.bias.shape == (2,)


def test_every_cut_is_remembered_and_a_cut_model_can_be_cut_again():
    found = found_in(Flat)
    first = cut(found, {"body.0": (0, 1, 2, 5)})
    again = traced(first)
    keep = {"body.0": (1, 3), "hidden": tuple(range(4))}
    second = cut(again, keep)
    assert_exact(again, second, keep)
    assert len(second.plans) == 2
    assert second.plans[0] == first.plans[0]


def test_gradients_flow_through_a_cut_model():
    found = found_in(Plain)
    pruned = cut(found, {"first": (0, 1)})
    pruned.module(noise(found.model)).sum().backward()
    assert all(parameter.grad is not None for parameter in pruned.module.parameters())


@pytest.mark.parametrize("kept", [(), (0, 0), (1, 0), (-1, 0), (0, 8)])
def test_impossible_indices_are_refused(kept):
    with pytest.raises(EdgepruneError, match="'first' of 8"):
        cut(found_in(Plain), {"first": kept})


def test_a_protected_space_is_not_cut():
    with pytest.raises(EdgepruneError, match="protected: network output"):
        cut(found_in(Plain), {"head": (0, 1)})


def test_a_space_that_does_not_exist_is_named():
    with pytest.raises(EdgepruneError, match="'third'"):
        cut(found_in(Plain), {"third": (0,)})


def test_the_plan_of_another_model_is_refused():
    plan = plan_of(found_in(Residual).channel_map, {})
    with pytest.raises(EdgepruneError, match="made for another model"):
        apply(plan, found_in(Plain).channel_map, found_in(Plain).model)


class Baked(Plain):
    """Its code says how wide it is."""

    def forward(self, x):
        x = self.second(torch.relu(self.first(x)))
        return self.head(x.view(x.size(0), 6, 25).mean(2))


class Scaling(Plain):
    """Calculates with its width: nothing in the trace tells."""

    def forward(self, x):
        x = torch.relu(self.first(x))
        return self.head(torch.relu(self.second(x / x.shape[1])).mean((2, 3)))


class Dividing(Plain):
    """Divides by nothing once it is five filters wide."""

    def forward(self, x):
        x = self.first(x)
        return self.head(torch.relu(self.second(x / (x.shape[1] - 5))).mean((2, 3)))


@pytest.mark.parametrize(
    ("network", "keep", "what"),
    [
        (Baked, {"second": (0, 1, 2)}, "shape '[2, 6, 25]' is invalid"),
        (Scaling, {"first": (0, 1, 2)}, "outputs differ by up to"),
        (Dividing, {"first": (0, 1, 2, 3, 4)}, "outputs differ by up to inf"),
    ],
)
def test_a_forward_pass_that_has_its_width_written_into_it_becomes_a_graph_that_says_why(network, keep, what):
    found = found_in(network)
    pruned = cut(found, keep)
    assert type(pruned.module) is GraphNetwork
    assert "its forward has a width written into it" in pruned.rewritten
    assert what in pruned.rewritten
    assert_exact(found, pruned, keep)
    assert dict(pruned.module.named_parameters()).keys() == dict(found.model.module.named_parameters()).keys()


def test_a_forward_pass_that_a_cut_does_not_touch_stays_the_users_own():
    assert type(cut(found_in(Scaling), {"second": (0, 1, 2)}).module) is Scaling


def test_a_model_that_does_not_compute_the_same_twice_is_refused():
    class Drifting(Plain):
        runs = 0

        def forward(self, x):
            Drifting.runs += 1
            return super().forward(x) * Drifting.runs

    found = traced(model_of(Drifting()))
    with pytest.raises(ModelError, match="other outputs each time it runs"):
        cut(found, {"first": (0, 1, 2)})


def test_the_oracle_can_fail():
    """A cut network whose weights are a little off does not pass."""
    found = found_in(Plain)
    keep = {"first": (0, 2, 5)}
    pruned = cut(found, keep)
    with torch.no_grad():
        pruned.module.second.weight[0, 0] += 1e-3
    with pytest.raises(AssertionError):
        assert_exact(found, pruned, keep)


def test_removing_filters_that_give_nothing_changes_nothing():
    found = traced(model_of(Plain()))
    with torch.no_grad():
        found.model.module.second.weight[:, [1, 4]] = 0
    images = noise(found.model)
    pruned = cut(found, {"first": tuple(np.delete(np.arange(8), [1, 4]).tolist())})
    assert difference(run(pruned.module, images), run(found.model.module, images)) <= 1e-6
