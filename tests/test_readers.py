"""Readers: what is lost in the layers that read a space, and in the outputs, when filters go."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from moving_nets import MOVING, Grouped, GroupedTransposed
from nets import SMALL, Dense, Flat, Inverted, Plain, Residual, found_in, noise, traced

from edgeprune.criteria import configure
from edgeprune.distance import distance
from edgeprune.errors import ModelError
from edgeprune.plan import Budget
from edgeprune.prune.allocate import Scored, allocate, left_whole
from edgeprune.prune.score import Scorer
from edgeprune.prune.surgery import apply
from edgeprune.recover.reconstruct import Cut, reconstruct


def batches_of(model, count: int = 48) -> list[torch.Tensor]:
    return [noise(model, count // 2, seed) for seed in (1, 2)]


def scored(found, criterion: str = "reconstruction", share: float = 0.5) -> Scored:
    names = [s.name for s in found.channel_map.spaces if s.name not in left_whole(found.channel_map, "all")]
    scorer = Scorer(found.channel_map, found.program, found.model.module, batches_of(found.model))
    return scorer.score(configure(criterion), names, share=share, damage=True)


@pytest.mark.parametrize("network", [*SMALL, Grouped, GroupedTransposed])
def test_the_fewer_filters_stay_the_more_is_lost_and_nothing_with_all(network):
    found = found_in(network)
    scores = scored(found)
    assert scores.damage.keys() == scores.scores.keys()
    for name, damage in scores.damage.items():
        assert damage.shape == (found.channel_map.space(name).size + 1,)
        assert torch.isfinite(damage).all()
        assert (damage.diff() <= 1e-12).all()
        assert float(damage[-1]) == 0
        assert float(damage[0]) > 0


@pytest.mark.slow
@pytest.mark.parametrize("network", MOVING)
def test_damage_is_known_of_every_network_that_can_be_cut(network):
    for damage in scored(found_in(network)).damage.values():
        assert torch.isfinite(damage).all()
        assert (damage.diff() <= 1e-12).all()


@pytest.mark.parametrize("network", [Plain, Flat, Residual, Dense, Inverted])
def test_a_filter_that_nobody_weighs_goes_first_at_no_cost(network):
    """The second filter of each space meets weights of zero in every layer that reads it."""
    module = copy.deepcopy(found_in(network).model.module)
    found = found_in(network)
    state = dict(module.named_parameters())
    with torch.no_grad():
        for layer in found.channel_map.layers:
            for space in found.channel_map.spaces:
                state[layer.weight][:, layer.inputs == space.first + 1] = 0
    changed = traced(replace(found.model, module=module))
    scores = scored(changed)
    for name, found_scores in scores.scores.items():
        assert int(found_scores.argmin()) == 1, name
        assert float(scores.damage[name][-2]) <= 1e-9 * float(scores.damage[name][0])


@pytest.mark.parametrize(("share", "gone"), [(0.5, 0.5), (0.1, 0.75)])
@pytest.mark.parametrize(("network", "name"), [(Plain, "first"), (Flat, "body.0"), (Inverted, "expand")])
def test_the_damage_is_about_that_of_a_real_cut_and_refit(network, name, share, gone):
    """Of one space, whatever share of all filters was to go; the refit has another penalty."""
    found = found_in(network)
    name = next((s.name for s in found.channel_map.spaces if s.name == name), next(iter(scored(found).scores)))
    scores = scored(found, "l1", share)
    size = found.channel_map.space(name).size
    one = replace(scores, scores={name: scores.scores[name]}, damage={})
    plan = allocate(found.channel_map, one, Budget(ratio=gone), 1)
    pruned = traced(apply(plan, found.channel_map, found.model))
    cut = Cut(found.model, pruned.model, plan, found.channel_map, found.program, pruned.program)
    recovered, _ = reconstruct(cut, batches_of(found.model), norms=False)
    with torch.inference_mode():
        batches = batches_of(found.model)
        before = [(found.model.module(batch),) for batch in batches]
        after = [(recovered.module(batch),) for batch in batches]
    expected = float(scores.damage[name][len(plan.keep[name])])
    assert len(plan.keep[name]) == int(size * (1 - gone))
    assert expected / 3 < distance(before, after) < 3 * expected


@pytest.mark.parametrize("network", [Plain, Flat, Residual])
def test_a_small_share_that_goes_tells_of_a_space_cut_to_a_tenth_what_a_large_one_tells(network):
    little, much = (scored(found_in(network), "l1", share).damage for share in (0.1, 0.9))
    for name, damage in little.items():
        width = max(1, round(0.1 * (len(damage) - 1)))
        assert float(damage[width]) == pytest.approx(float(much[name][width]), rel=1e-3)


def test_activations_that_are_not_finite_are_told_with_the_layer():
    found = found_in(Plain)
    batches = [torch.full_like(batch, torch.nan) for batch in batches_of(found.model)]
    scorer = Scorer(found.channel_map, found.program, found.model.module, batches)
    with pytest.raises(ModelError, match="not finite on the calibration images\nsecond"):
        scorer.score(configure("l1"), ["first"], damage=True)


def test_distances_by_hand():
    even, odd = torch.zeros(1, 2), torch.tensor([[0.0, float(torch.log(torch.tensor(3.0)))]])
    # Probabilities 1/2, 1/2 against 1/4, 3/4: log 2 / 2 + log(2/3) / 2.
    assert distance([(even,)], [(odd,)]) == pytest.approx(0.5 * (0.693147 - 0.405465), rel=1e-4)
    maps = torch.ones(2, 1, 2, 2)
    assert distance([(maps,)], [(maps * 1.5,)]) == pytest.approx(0.25)
    assert distance([(maps,), (maps,)], [(maps * 1.5,), (maps,)]) == pytest.approx(0.125)
    assert distance([(even, maps)], [(even, maps)]) == 0
