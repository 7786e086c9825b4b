"""Weights that a forward pass calculates are held as numbers, and can then be cut."""

from __future__ import annotations

import pytest
import torch
from nets import SHAPE, Plain, Traced, assert_exact, difference, model_of, plan_of, random_keep, run, traced
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from edgeprune.graph import GraphNetwork
from edgeprune.model import Model, load_saved, save_model
from edgeprune.program import capture
from edgeprune.prune.fold import calculated_weights, fold_weights
from edgeprune.prune.surgery import apply


class Standardised(nn.Conv2d):
    """Weight standardisation (Qiao et al. 2019, https://arxiv.org/abs/1903.10520, section 3)."""

    def forward(self, x: Tensor) -> Tensor:
        deviation, mean = torch.std_mean(self.weight, (1, 2, 3), keepdim=True)
        weight = (self.weight - mean) / (deviation + 1e-5)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding)


class Normalised(Plain):
    """Standardised weights in the layers that are cut."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = Standardised(3, 8, 3, padding=1, bias=False), Standardised(8, 6, 3, stride=2)


class WeightNormed(Plain):
    """Weight normalisation, by torch's own parametrisation."""

    def __init__(self) -> None:
        super().__init__()
        parametrizations.weight_norm(self.second)


class Doubled(Plain):
    """A calculated bias, and a weight that is also read as it is."""

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(F.conv2d(x, self.first.weight * 2, self.norm.bias + 1, padding=1))
        return self.head(F.relu(self.second(x)).mean((2, 3))) * self.first.weight.mean()


def folded(module: nn.Module) -> tuple[Model, Model]:
    model = model_of(module)
    return model, fold_weights(model, capture(model.module, SHAPE))


@pytest.mark.parametrize("network", [Normalised, WeightNormed, Doubled])
def test_a_folded_network_computes_the_same_for_images_of_other_sizes(network):
    model, fixed = folded(network())
    assert isinstance(fixed.module, GraphNetwork)
    for size in (12, 17):
        images = torch.randn(3, 3, size, size)
        assert difference(run(fixed.module, images), run(model.module, images)) <= 1e-6


@pytest.mark.parametrize(
    ("network", "layers"),
    [(Normalised, {"first.weight", "second.weight"}), (WeightNormed, {"second.weight"})],
)
def test_a_folded_weight_has_the_name_of_its_layer(network, layers):
    model, fixed = folded(network())
    program = capture(model.module, SHAPE)
    assert set(calculated_weights(program).values()) == layers
    assert layers <= fixed.module.state_dict().keys()
    assert not [name for name in fixed.module.state_dict() if "parametrizations" in name]


def test_a_weight_that_is_read_as_it_is_keeps_its_name():
    _, fixed = folded(Doubled())
    assert {"first.weight", "conv2d.weight", "conv2d.bias"} <= fixed.module.state_dict().keys()


@pytest.mark.parametrize("network", [Normalised, WeightNormed])
def test_what_reads_and_makes_calculated_weights_can_be_cut(network):
    _, fixed = folded(network())
    found: Traced = traced(fixed)
    assert {space.name for space in found.channel_map.spaces if not space.protected} == {"first", "second"}
    keep = random_keep(found.channel_map, seed=0)
    assert_exact(found, apply(plan_of(found.channel_map, keep), found.channel_map, fixed), keep)


def test_the_model_says_why_it_is_a_graph():
    _, fixed = folded(Normalised())
    assert fixed.rewritten == "its forward calculates the weights of 2 layers (first)"


def test_a_network_without_calculated_weights_stays_as_it_is():
    model, same = folded(Plain())
    assert same is model


def test_the_user_s_own_network_is_not_changed():
    model = model_of(WeightNormed())
    before = {name: tensor.clone() for name, tensor in model.module.state_dict().items()}
    fold_weights(model, capture(model.module, SHAPE))
    after = model.module.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_folded_and_cut_network_is_saved_and_loaded_without_its_class(tmp_path):
    _, fixed = folded(Normalised())
    found = traced(fixed)
    pruned = apply(plan_of(found.channel_map, random_keep(found.channel_map, seed=1)), found.channel_map, fixed)
    save_model(pruned, tmp_path)
    images = torch.randn(2, *SHAPE)
    assert torch.equal(run(load_saved(tmp_path).module, images), run(pruned.module, images))
