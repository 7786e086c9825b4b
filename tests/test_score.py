"""Scorer: what a criterion gets to see of each space."""

from __future__ import annotations

import copy

import pytest
import torch
from moving_nets import MOVING, Grouped, GroupedConcat, GroupedTransposed, Maxout, OptionA
from nets import SMALL, Dense, Flat, Inverted, Residual, Scaled, found_in, noise, run
from torch.nn import functional as F

from edgeprune.criteria import CRITERIA, Criterion, configure
from edgeprune.errors import EdgepruneError
from edgeprune.program import capture
from edgeprune.prune.allocate import left_whole
from edgeprune.prune.score import Scorer


def scorer_of(found, count: int = 4) -> Scorer:
    return Scorer(
        found.channel_map, found.program, found.model.module, [noise(found.model, count), noise(found.model, 2, 5)]
    )


def views_of(found, names=None) -> dict:
    """What a criterion that only looks has seen: space -> (view, maps after, maps before)."""
    seen = {}

    def look(view):
        seen[view.name] = (view, torch.cat(list(view.maps("after"))), torch.cat(list(view.maps("before"))))
        return torch.arange(view.size).float()

    names = names or [s.name for s in found.channel_map.spaces if s.name not in left_whole(found.channel_map, "all")]
    scored = scorer_of(found).score(Criterion("look", look, {}), names)
    assert scored.scores.keys() == set(names)
    return seen


@pytest.mark.parametrize("network", [*SMALL, *MOVING])
def test_a_criterion_sees_every_filter_and_its_maps_on_every_image(network):
    for view, after, before in views_of(found_in(network)).values():
        assert view.weight.shape[0] == view.size
        assert after.shape[:2] == before.shape[:2]
        assert after.shape[1] == view.size
        assert after.shape[0] % 6 == 0  # code that merges positions into the batch shows each as an image
        assert after.ndim == before.ndim == 4
        assert after.dtype == torch.float32


def test_the_maps_are_those_after_and_before_the_activation_not_pooled():
    found = found_in(Flat)
    images = torch.cat([noise(found.model, 4), noise(found.model, 2, 5)])
    before = run(found.model.module.body[0], images)
    _, after, seen_before = views_of(found, ["body.0"])["body.0"]
    assert torch.allclose(seen_before, before, atol=1e-6)
    assert torch.allclose(after, F.relu(before), atol=1e-6)


def test_the_maps_of_an_expansion_are_those_after_its_depthwise_layer():
    found = found_in(Inverted)
    module, images = found.model.module, torch.cat([noise(found.model, 4), noise(found.model, 2, 5)])
    wide = F.relu6(run(torch.nn.Sequential(module.stem, module.expand, module.norm1), images))
    seen = F.relu6(run(torch.nn.Sequential(module.depthwise, module.norm2), wide))
    assert torch.allclose(views_of(found, ["expand"])["expand"][1], seen, atol=1e-6)


def test_the_maps_of_a_part_of_a_concatenation_are_its_own():
    found = found_in(Dense)
    images = torch.cat([noise(found.model, 4), noise(found.model, 2, 5)])
    one = F.elu(run(found.model.module.one, images))
    assert torch.allclose(views_of(found)["one"][1], one, atol=1e-6)


def test_the_weights_of_a_shared_width_stand_side_by_side():
    found = found_in(Residual)
    view = views_of(found)["stem"][0]
    module = found.model.module
    assert torch.equal(view.weight, torch.cat([module.stem.weight.flatten(1), module.conv2.weight.flatten(1)], 1))


def test_filters_that_go_together_are_shown_as_one_their_maps_one_below_the_other():
    found = found_in(Maxout)
    module, images = found.model.module, torch.cat([noise(found.model, 4), noise(found.model, 2, 5)])
    view, after, _ = views_of(found)["stem"]
    maps = F.relu(run(torch.nn.Sequential(module.stem, module.norm), images))
    assert torch.allclose(after, maps.view(6, 8, 24, 12), atol=1e-6)
    assert torch.equal(view.weight, module.stem.weight.view(8, 2, -1).flatten(1))


def test_of_a_layer_with_filters_in_several_spaces_each_sees_its_own():
    found = found_in(OptionA)
    views, stem, down = (
        views_of(found),
        *(getattr(found.model.module, name).weight.flatten(1) for name in ("stem", "down")),
    )
    assert torch.equal(views["stem"][0].weight, torch.cat([stem, down[4:12]], 1))
    assert torch.equal(views["down"][0].weight, torch.cat([down[:4], down[12:]]))


def test_a_filter_that_a_layer_has_not_has_no_weight_there():
    found = found_in(GroupedConcat)
    weight, module = views_of(found)["stem"][0].weight, found.model.module
    own, width = module.stem.weight.flatten(1), module.stem.out_channels
    assert torch.equal(weight[:width, : own.shape[1]], own)
    assert torch.equal(weight[width:, : own.shape[1]], torch.zeros(len(weight) - width, own.shape[1]))


@pytest.mark.parametrize(("network", "space"), [(Grouped, "groups"), (GroupedTransposed, "up")])
def test_the_filters_of_a_grouped_convolution_are_seen_group_by_group(network, space):
    found = found_in(network)
    layer = found.model.module.get_submodule(space)
    filters = layer.weight if network is Grouped else layer.weight.unflatten(0, (4, 4)).transpose(1, 2).flatten(0, 1)
    assert torch.equal(views_of(found)[space][0].weight[:, : filters[0].numel()], filters.flatten(1))


def test_a_criterion_sees_the_weights_that_readers_give_to_each_filter():
    found = found_in(Inverted)
    module, view = found.model.module, views_of(found)["expand"][0]
    squeeze, project = view.readers
    assert torch.equal(squeeze, module.squeeze.weight.transpose(0, 1))
    assert torch.equal(project, module.project.weight.transpose(0, 1))


def test_of_a_concatenation_the_reader_is_seen_as_far_as_it_reads_the_filters():
    found = found_in(Dense)
    module, view = found.model.module, views_of(found)["one"][0]
    two, mix = view.readers
    assert torch.equal(two, module.two.weight.transpose(0, 1))
    assert torch.equal(mix, module.mix.weight.transpose(0, 1)[10:])


def test_a_linear_layer_after_flattening_reads_each_filter_at_every_position():
    found = found_in(Flat)
    (reader,) = views_of(found)["body.3"][0].readers
    hidden = found.model.module.hidden.weight.unflatten(1, (6, 9))
    assert reader.shape == (6, 90)
    assert torch.equal(reader, hidden.permute(1, 2, 0).flatten(1))


@pytest.mark.parametrize("network", [Grouped, GroupedTransposed])
def test_a_group_reads_its_own_filters(network):
    found = found_in(network)
    (reader,) = views_of(found)["stem"][0].readers
    if network is GroupedTransposed:  # [inputs, outputs of a group, ...]
        assert torch.equal(reader, found.model.module.up.weight)
        return
    weight = found.model.module.groups.weight  # 12 outputs of 4 inputs each, in 4 groups
    assert reader.shape == (16, 3, 3, 3)
    assert all(torch.equal(reader[at], weight[3 * (at // 4) : 3 * (at // 4) + 3, at % 4]) for at in range(16))


def test_a_criterion_sees_what_a_normalisation_multiplies_each_filter_by():
    found = found_in(Residual)
    norm, view = found.model.module.norm1, views_of(found)["conv1"][0]
    (gain,) = view.gains
    assert torch.allclose(gain, norm.weight / (norm.running_var + norm.eps).sqrt())
    assert torch.equal(views_of(found_in(Flat))["body.0"][0].gains[0], torch.ones(8))
    assert not view.residual
    assert views_of(found)["stem"][0].residual


def test_a_criterion_sees_what_share_is_to_go():
    def look(view):
        assert view.share == 0.3
        return torch.zeros(view.size)

    scorer_of(found_in(Flat)).score(Criterion("look", look, {}), ["body.0"], share=0.3)


def test_the_readers_of_a_residual_width_are_all_that_read_the_sum():
    found = found_in(Residual)
    block, head = views_of(found)["stem"][0].readers
    module = found.model.module
    assert torch.equal(block, module.conv1.weight.transpose(0, 1))
    assert torch.equal(head, module.head.weight.T)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize("network", [Residual, Inverted, Maxout])
@pytest.mark.parametrize("name", sorted(CRITERIA.rows))
def test_a_gpu_finds_the_scores_that_the_cpu_finds(name, network):
    found = found_in(network)
    names = [s.name for s in found.channel_map.spaces if s.name not in left_whole(found.channel_map, "all")]
    module = copy.deepcopy(found.model.module).cuda()
    program, images = capture(module, found.model.input.shape), [noise(found.model, 4), noise(found.model, 2, 5)]
    with torch.backends.cudnn.flags(allow_tf32=False):
        there = Scorer(found.channel_map, program, module, [batch.cuda() for batch in images])
        scored = there.score(configure(name), names)
    here = scorer_of(found).score(configure(name), names)
    assert scored.removed == here.removed
    assert all(torch.allclose(scored.scores[space], here.scores[space], rtol=1e-4) for space in names)


@pytest.mark.parametrize("network", [*SMALL, *MOVING])
def test_every_criterion_scores_every_network(network):
    found = found_in(network)
    sizes = {s.name: s.size for s in found.channel_map.spaces if s.name not in left_whole(found.channel_map, "all")}
    for name in CRITERIA.rows:
        scored = scorer_of(found).score(configure(name), list(sizes))
        assert {space: len(scores) for space, scores in scored.scores.items()} == sizes


def test_spaces_may_be_asked_for_in_any_order():
    found = found_in(Scaled)
    names = [s.name for s in found.channel_map.spaces if not s.protected]
    scorer = scorer_of(found)
    one = scorer.score(configure("qsfm"), names)
    other = scorer.score(configure("qsfm"), names[::-1])
    assert all(torch.equal(one.scores[name], other.scores[name]) for name in names)


def test_the_settings_that_a_criterion_ran_with_are_kept():
    scored = scorer_of(found_in(Flat)).score(configure("qsfm", {"images": "3"}), ["body.0"])
    assert scored.criterion == "qsfm"
    assert scored.settings["images"] == 3
    assert set(scored.settings) == {"metric", "side", "drop", "images"}


@pytest.mark.parametrize(
    "scores", [torch.zeros(7), torch.zeros(8, 1), torch.full((8,), torch.nan), torch.full((8,), torch.inf)]
)
def test_a_criterion_that_does_not_return_one_finite_score_a_filter_is_refused(scores):
    with pytest.raises(EdgepruneError, match="'broken' did not return 8 finite scores"):
        scorer_of(found_in(Flat)).score(Criterion("broken", lambda view: scores, {}), ["body.0"])


def test_a_criterion_that_looks_at_all_spaces_first_settles_what_it_runs_with():
    found = found_in(Dense)
    names = [s.name for s in found.channel_map.spaces if s.name not in left_whole(found.channel_map, "all")]
    scored = scorer_of(found).score(configure("apssf", {"rate": "0.4"}), names)
    total = sum(len(scores) for scores in scored.scores.values())
    assert scored.settings["threshold"] > 0
    assert sum(scored.removed.values()) >= round(0.4 * total)
    assert len({removed / len(scored.scores[name]) for name, removed in scored.removed.items()}) > 1


def test_progress_is_told_from_none_to_all():
    ticks = []
    scorer_of(found_in(Flat)).score(
        configure("l1"), ["body.0", "body.3"], tick=lambda done, total: ticks.append((done, total))
    )
    assert ticks == [(0, 2), (1, 2), (2, 2)]
