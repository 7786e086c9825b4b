"""Whatever the network and whichever filters go: the cut network computes what the uncut one does without them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
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
    traced,
)
from networks import SHAPE, Drawn, networks

from edgeprune.prune.cost import cost, macs
from edgeprune.prune.surgery import apply

FEW = settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
MANY = settings(FEW, max_examples=100)


def check(network: Drawn, seed: int) -> None:
    found = traced(model_of(network, SHAPE))
    check_identity(found)
    before = {name: tensor.clone() for name, tensor in found.model.module.state_dict().items()}
    once = check_cut(found, seed)
    check_cut(once, seed + 1)
    assert all(torch.equal(before[name], tensor) for name, tensor in found.model.module.state_dict().items())


def check_identity(found: Traced) -> None:
    """A plan that keeps all changes nothing."""
    keep = {s.name: tuple(range(s.size)) for s in found.channel_map.spaces}
    same = apply(plan_of(found.channel_map, keep), found.channel_map, found.model)
    images = noise(found.model)
    assert difference(run(same.module, images), run(found.model.module, images)) <= 1e-6


def check_cut(found: Traced, seed: int) -> Traced:
    """A cut is exact, as small as was counted before it, and can be cut again."""
    keep = random_keep(found.channel_map, seed)
    pruned = apply(plan_of(found.channel_map, keep), found.channel_map, found.model)
    assert_exact(found, pruned, keep)
    assert_attributes_are_true(pruned.module)
    again = traced(pruned)
    alive = found.channel_map.alive(keep)
    counted = cost(again.program, again.channel_map, pruned.module)
    assert counted.macs == macs(found.channel_map, alive.astype(float))
    assert counted.macs <= cost(found.program, found.channel_map, found.model.module).macs
    return again


@FEW
@given(networks(), st.integers(0, 9))
def test_a_cut_of_any_network_is_exact(network, seed):
    check(network, seed)


@pytest.mark.slow
@MANY
@given(networks(), st.integers(0, 99))
def test_a_cut_of_very_many_networks_is_exact(network, seed):
    check(network, seed)
