"""Whatever the network and whichever filters go: the cut network computes what the uncut one does without them."""

from __future__ import annotations

from collections import Counter

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

from edgeprune.errors import BudgetError
from edgeprune.plan import Budget
from edgeprune.prune.allocate import Scored, allocate, left_whole
from edgeprune.prune.cost import cost, macs
from edgeprune.prune.surgery import apply, check_plan

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


def check_plan_of(found: Traced, share: float, multiple: int, seed: int) -> None:
    """A plan by random scores keeps to the budget and to what each space asks for."""
    whole = left_whole(found.channel_map, "all")
    spaces = [space for space in found.channel_map.spaces if space.name not in whole]
    random = torch.Generator().manual_seed(seed)
    scores = {space.name: torch.rand(space.size, generator=random) for space in spaces}
    try:
        plan = allocate(found.channel_map, Scored("random", {}, scores), Budget(macs=share), multiple)
    except BudgetError:
        return
    check_plan(plan, found.channel_map)
    assert plan.macs_kept <= share * (1 + 1e-9)
    for space in spaces:
        kept = plan.keep[space.name]
        assert len(kept) == space.size or len(kept) * space.repeat % multiple == 0
        counts = Counter(space.cells[index] for index in kept) if space.cells else {0: 1}
        assert counts.keys() == (set(space.cells) or {0})
        assert len(set(counts.values())) == 1
        assert all(set(part) & set(kept) for part in space.parts)


@settings(FEW, max_examples=20)
@given(networks(), st.integers(10, 95), st.sampled_from([1, 2, 4]), st.integers(0, 9))
def test_a_plan_for_any_network_suits_its_groups_its_parts_and_the_channel_multiple(network, percent, multiple, seed):
    check_plan_of(traced(model_of(network, SHAPE)), percent / 100, multiple, seed)
