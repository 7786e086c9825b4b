"""recover: what can be computed from the kept filters is computed from them, and nothing gets worse."""

from __future__ import annotations

import copy
import itertools
import math

import pytest
import torch
from nets import (
    SMALL,
    Flat,
    Plain,
    Residual,
    Traced,
    difference,
    found_in,
    model_of,
    noise,
    plan_of,
    random_keep,
    run,
    traced,
    with_statistics,
)
from torch import Tensor, nn
from torch.nn import functional as F

from edgeprune.errors import ModelError
from edgeprune.model import Model
from edgeprune.patches import Rows
from edgeprune.program import capture, operator_of
from edgeprune.prune.surgery import apply
from edgeprune.recover.batchnorm import reestimate
from edgeprune.recover.finished import Refit
from edgeprune.recover.least_squares import PENALTIES, Sums, solve
from edgeprune.recover.reconstruct import Cut, reconstruct


def cut_of(found: Traced, keep) -> Cut:
    plan = plan_of(found.channel_map, keep)
    pruned = apply(plan, found.channel_map, found.model)
    return Cut(found.model, pruned, plan, found.channel_map, found.program, traced(pruned).program)


def recovered(found: Traced, keep, batches=None, norms: bool = False) -> tuple[Cut, Model, tuple[Refit, ...]]:
    cut = cut_of(found, keep)
    model, refits = reconstruct(cut, batches or [noise(found.model, 16, 7), noise(found.model, 16, 8)], norms=norms)
    return cut, model, refits


def assert_restored(found: Traced, keep, images: int = 32, tolerance: float = 2e-3) -> None:
    """Far from the uncut model after the cut, near it again after recovery, on images not seen before."""
    cut, model, refits = recovered(found, keep, [noise(found.model, images, 7)])
    unseen = noise(found.model, 8, 99)
    wanted = run(found.model.module, unseen)
    assert difference(run(cut.pruned.module, unseen), wanted) > 10 * tolerance
    assert difference(run(model.module, unseen), wanted) <= tolerance
    readers = {reader for name in keep for reader in found.channel_map.space(name).consumers}
    assert readers <= {refit.layer for refit in refits}
    assert all(refit.error_ratio < 1e-3 for refit in refits if refit.layer in readers)


def copy_filter(source: int, to: int, *layers: nn.Module) -> None:
    """Make one filter the exact double of another in a convolution and the normalisations after it."""
    with torch.no_grad():
        for layer in layers:
            for tensor in [*layer.parameters(recurse=False), *layer.buffers(recurse=False)]:
                if tensor.ndim:
                    tensor[to] = tensor[source]


def without(size: int, *gone: int) -> tuple[int, ...]:
    return tuple(index for index in range(size) if index not in gone)


def test_doubles_of_kept_filters_are_missed_by_nobody():
    model = model_of(Plain())
    copy_filter(0, 1, model.module.first, model.module.norm)
    copy_filter(2, 4, model.module.first, model.module.norm)
    assert_restored(traced(model), {"first": without(8, 1, 4)})


def test_a_linear_layer_after_a_flatten_is_refitted_in_blocks_of_columns():
    model = model_of(Flat())
    copy_filter(0, 1, model.module.body[3])
    with torch.no_grad():
        model.module.hidden.weight.mul_(5)
    assert_restored(traced(model), {"body.3": without(6, 1)}, images=256)  # one image is one sample here


class Straight(nn.Module):
    """Two convolutions with no activation between, so that linear combinations of filters stay linear."""

    def __init__(self, bias: bool, norm: bool, **conv) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3)
        self.second = nn.Conv2d(6, 5, 3, bias=bias, **conv)
        self.norm = nn.BatchNorm2d(5) if norm else nn.Identity()
        self.head = nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.norm(self.second(self.first(x)))).mean((2, 3)))


def straight(bias: bool, norm: bool, offset: float, **conv) -> Traced:
    """Its last filter is a combination of two others, and a constant."""
    model = model_of(Straight(bias, norm, **conv))
    with torch.no_grad():
        weight, shift = model.module.first.weight, model.module.first.bias
        weight[5] = 0.5 * weight[0] - 2 * weight[3]
        shift[5] = 0.5 * shift[0] - 2 * shift[3] + offset
    return traced(model)


@pytest.mark.parametrize(("bias", "norm"), [(True, False), (False, True), (True, True)])
def test_combinations_of_kept_filters_are_restored_and_the_bias_or_the_mean_carries_the_constant(bias, norm):
    assert_restored(straight(bias, norm, offset=3.0), {"first": without(6, 5)})


def test_without_a_bias_or_a_norm_only_a_constant_is_lost():
    assert_restored(straight(bias=False, norm=False, offset=0.0), {"first": without(6, 5)})


@pytest.mark.parametrize(
    "conv",
    [
        {"stride": 2},
        {"dilation": 2},
        {"padding": 1},
        {"padding": (2, 0), "stride": (1, 3)},
        {"padding": "same", "dilation": 3},
        {"padding": "valid"},
    ],
)
def test_convolutions_of_every_geometry_are_refitted(conv):
    assert_restored(straight(bias=True, norm=False, offset=0.0, **conv), {"first": without(6, 5)})


class Geometries(nn.Module):
    """Convolutions of every geometry, each reading the image."""

    def __init__(self) -> None:
        super().__init__()
        options = itertools.product([1, (2, 5)], [1, (2, 3)], [0, (1, 2), "same", "valid"], [1, (1, 2)])
        self.convs = nn.ModuleList(
            nn.Conv2d(3, 5, kernel, stride, padding, dilation, bias=False)
            for kernel, stride, padding, dilation in options
            if padding != "same" or stride == 1  # torch has no strided "same"
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        return [conv(x) for conv in self.convs]


def assert_rows_are_the_layer(layer: nn.Module, node, images: Tensor, wanted: Tensor) -> None:
    """Samples times the weight, and what should come of them, are what the layer computes."""
    weight = layer.weight.detach()
    rows = Rows(node, tuple(weight.shape), len(images))
    matrix = rows.matrix(weight)
    assert torch.equal(rows.weight(matrix), weight)
    for x, y in rows.of(images, wanted):
        assert torch.allclose(x @ matrix, y, atol=1e-5), layer


def test_samples_times_the_weight_are_the_convolution():
    module = Geometries().eval()
    nodes = [node for node in capture(module, (3, 11, 13)).nodes if operator_of(node) == "conv2d"]
    images = torch.randn(2, 3, 11, 13)
    for conv, node, wanted in zip(module.convs, nodes, run(module, images), strict=True):
        assert_rows_are_the_layer(conv, node, images, wanted)


class InvertedBlock(nn.Module):
    """MobileNet-V2's block."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.expand, self.norm1 = nn.Conv2d(8, 16, 1, bias=False), nn.BatchNorm2d(16)
        self.depthwise, self.norm2 = nn.Conv2d(16, 16, 3, padding=1, groups=16, bias=False), nn.BatchNorm2d(16)
        self.project, self.norm3 = nn.Conv2d(16, 8, 1, bias=False), nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = F.relu6(self.norm2(self.depthwise(F.relu6(self.norm1(self.expand(x))))))
        return self.head((x + self.norm3(self.project(y))).mean((2, 3)))


def test_what_passes_a_depthwise_convolution_is_restored_behind_it():
    model = model_of(InvertedBlock())
    m = model.module
    for source, to in ((0, 1), (2, 9), (2, 10)):
        copy_filter(source, to, m.expand, m.norm1, m.depthwise, m.norm2)
    assert_restored(traced(model), {"expand": without(16, 1, 9, 10)})


class TwoBlocks(nn.Module):
    """Two residual blocks, so that the second can mend what the first lost."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.a1, self.a2 = nn.Conv2d(8, 12, 3, padding=1), nn.Conv2d(12, 8, 3, padding=1, bias=False)
        self.norm_a = nn.BatchNorm2d(8)
        self.b1, self.b2 = nn.Conv2d(8, 24, 3, padding=1), nn.Conv2d(24, 8, 3, padding=1, bias=False)
        self.norm_b = nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        x = F.relu(x + self.norm_a(self.a2(F.relu(self.a1(x)))))
        x = F.relu(x + self.norm_b(self.b2(F.relu(self.b1(x)))))
        return self.head(x.mean((2, 3)))


def block_sum(model: Model, found: Traced, images: Tensor) -> Tensor:
    """The value of the last sum, in the uncut order of operators."""
    seen = []
    hook = model.module.head.register_forward_hook(lambda layer, inputs, output: seen.append(inputs[0]) and None)
    run(model.module, images)
    hook.remove()
    return seen[0]


def test_a_later_block_mends_what_an_earlier_one_lost():
    found = traced(model_of(TwoBlocks()))
    keep = {"a1": (0, 1, 2), "b1": tuple(range(22))}
    cut, model, refits = recovered(found, keep, [noise(found.model, 32, 7)])
    images = noise(found.model, 16, 99)
    wanted, lost, mended = (block_sum(m, found, images) for m in (found.model, cut.pruned, model))
    assert difference(mended, wanted) < 0.5 * difference(lost, wanted)
    assert [refit.layer for refit in refits] == ["a2", "b1", "b2", "head"]


def test_layers_before_the_cut_and_beside_it_are_left_as_they_are():
    found = traced(model_of(TwoBlocks()))
    _, model, refits = recovered(found, {"b1": tuple(range(22))}, norms=True)
    assert [refit.layer for refit in refits] == ["b2", "head"]
    before, after = found.model.module.state_dict(), model.module.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items() if name.startswith(("stem", "a")))


class SharedNorm(nn.Module):
    """One normalisation after two convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 8, 3, bias=False), nn.Conv2d(8, 8, 3, bias=False)
        self.three = nn.Conv2d(8, 8, 3, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.two(F.relu(self.one(x)))))
        return self.fc(F.relu(self.norm(self.three(x))).mean((2, 3)))


def test_a_norm_that_serves_twice_is_left_as_trained():
    found = found_in(SharedNorm)
    before = {name: buffer.clone() for name, buffer in found.model.module.named_buffers()}
    _, model, refits = recovered(found, {"one": (0, 2, 5, 7)}, norms=True)
    assert [refit.layer for refit in refits] == ["two", "three", "fc"]
    for name, buffer in model.module.named_buffers():
        assert torch.equal(buffer, before[name])


@pytest.mark.parametrize("network", [Plain, *(pytest.param(other, marks=pytest.mark.slow) for other in SMALL[1:])])
def test_no_refit_is_worse_on_images_it_has_not_fitted_than_leaving_the_weights(network):
    found = found_in(network)
    keep = random_keep(found.channel_map, seed=1)
    _, model, refits = recovered(found, keep, norms=True)
    assert all(0 <= refit.error_ratio <= 1 for refit in refits)
    assert torch.isfinite(run(model.module, noise(found.model))).all()


@pytest.mark.parametrize("network", [Plain, Flat])
def test_one_image_is_enough_to_run(network):
    found = found_in(network)
    _, model, refits = recovered(found, random_keep(found.channel_map, seed=1), [noise(found.model, 1)], norms=True)
    assert refits
    assert torch.isfinite(run(model.module, noise(found.model))).all()


def test_batches_of_any_size_give_the_same_model():
    found = found_in(Plain)
    keep = random_keep(found.channel_map, seed=1)
    images = noise(found.model, 10)
    one, other = (recovered(found, keep, batches, norms=True)[1] for batches in ([images], list(images.split(3))))
    assert difference(run(one.module, images), run(other.module, images)) < 1e-3


def test_neither_the_uncut_nor_the_cut_model_is_changed():
    found = found_in(Residual)
    cut = cut_of(found, random_keep(found.channel_map, seed=1))
    before = [copy.deepcopy(model.module.state_dict()) for model in (cut.uncut, cut.pruned)]
    model, _ = reconstruct(cut, [noise(found.model, 8)])
    after = [model.module.state_dict() for model in (cut.uncut, cut.pruned)]
    assert all(torch.equal(old[name], new[name]) for old, new in zip(before, after, strict=True) for name in old)
    assert model.plans == cut.pruned.plans
    assert not torch.equal(model.module.conv2.weight, cut.pruned.module.conv2.weight)


def test_layers_that_read_only_whole_spaces_keep_their_weights():
    found = found_in(Plain)
    cut, model, refits = recovered(found, {"second": (0, 1, 2)}, norms=True)
    assert [refit.layer for refit in refits] == ["head"]
    assert torch.equal(model.module.second.weight, cut.pruned.module.second.weight)


def test_a_plan_that_removes_nothing_leaves_the_model_as_it_is():
    found = found_in(Plain)
    _, model, refits = recovered(found, {})
    assert refits == ()
    images = noise(found.model)
    assert torch.equal(run(model.module, images), run(found.model.module, images))


def test_progress_is_told_from_none_to_all():
    found = found_in(Plain)
    ticks: list[tuple[int, int]] = []
    cut = cut_of(found, {"first": (0, 1), "second": (0, 1)})
    reconstruct(cut, [noise(found.model, 4)], norms=False, tick=lambda done, total: ticks.append((done, total)))
    assert ticks == [(0, 2), (1, 2), (2, 2)]


def in_training_mode(module: nn.Module, batches: list[Tensor]) -> nn.Module:
    """A copy whose statistics torch itself has measured: the cumulative average of training mode."""
    measured = copy.deepcopy(module)
    for norm in measured.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.reset_running_stats()
            norm.momentum = None
            norm.train()
    for batch in batches:
        run(measured, batch)
    return measured.eval()


def test_reestimated_statistics_are_those_of_torch_in_training_mode():
    model = model_of(Residual())
    images = noise(model, 16)
    wanted = in_training_mode(model.module, [images])
    reestimate(capture(model.module, model.input.shape), model.module, [images])
    n = 16 * 12 * 12
    for name in ("stem_norm", "norm1", "norm2"):
        ours, theirs = getattr(model.module, name), getattr(wanted, name)
        assert torch.allclose(ours.running_mean, theirs.running_mean, atol=1e-5)
        assert torch.allclose(ours.running_var, theirs.running_var * (n - 1) / n, rtol=1e-4)


def test_reestimated_means_are_the_average_over_batches():
    model = model_of(Plain())
    batches = list(noise(model, 12).split(4))
    wanted = in_training_mode(model.module, batches)
    reestimate(capture(model.module, model.input.shape), model.module, batches)
    assert torch.allclose(model.module.norm.running_mean, wanted.norm.running_mean, atol=1e-5)


def test_reestimation_makes_every_normalisation_normalise():
    model = model_of(Residual())
    images = noise(model, 16)
    reestimate(capture(model.module, model.input.shape), model.module, list(images.split(5)))
    seen = {}
    norms = {"stem_norm": model.module.stem_norm, "norm1": model.module.norm1, "norm2": model.module.norm2}
    for name, norm in norms.items():
        norm.register_forward_hook(lambda layer, inputs, output, name=name: seen.update({name: output.clone()}))
    run(model.module, images)
    for name, norm in norms.items():
        assert torch.allclose(seen[name].mean((0, 2, 3)), norm.bias, atol=1e-4)
        assert torch.allclose(seen[name].var((0, 2, 3), unbiased=False), norm.weight**2, rtol=1e-2)


def test_a_norm_without_statistics_of_its_own_is_left_alone():
    class Own(Plain):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm2d(8, track_running_stats=False)

    module = with_statistics(Own())
    reestimate(capture(module, (3, 12, 12)), module, [torch.randn(4, 3, 12, 12)])


def sums_of(x: Tensor, y: Tensor) -> Sums:
    sums = Sums.zeros(1, x.shape[1], y.shape[1])
    sums.add(x.unsqueeze(0), y.unsqueeze(0))
    return sums


def solved(fit: Sums, held_out: Sums, start: Tensor, free: int = 0) -> tuple[Tensor, float]:
    found = solve(fit, held_out, start.unsqueeze(0), free)
    assert not found.ill
    return found.weight[0], found.error_ratio


def test_least_squares_find_an_exact_map():
    x, true = torch.randn(60, 5), torch.randn(5, 3)
    start = torch.zeros(5, 3, dtype=torch.float64)
    weight, ratio = solved(sums_of(x[:40], x[:40] @ true), sums_of(x[40:], x[40:] @ true), start)
    assert torch.allclose(weight.float(), true, atol=1e-3)
    assert ratio < 1e-6


def test_directions_that_no_sample_shows_keep_their_start():
    x = torch.randn(60, 4)
    x[:, 3] = 0
    start = torch.full((4, 1), 7.0, dtype=torch.float64)
    y = x @ torch.tensor([[1.0], [2.0], [3.0], [4.0]])
    weight, _ = solved(sums_of(x[:40], y[:40]), sums_of(x[40:], y[40:]), start)
    assert weight.squeeze().tolist() == pytest.approx([1, 2, 3, 7], abs=1e-3)


def test_a_fit_that_is_worse_on_the_held_out_samples_is_not_taken():
    x, start = torch.randn(40, 3), torch.randn(3, 2, dtype=torch.float64)
    right, noise_only = x[20:] @ start.float(), torch.randn(20, 2) * 10
    weight, ratio = solved(sums_of(x[:20], noise_only), sums_of(x[20:], right), start)
    assert torch.equal(weight, start)
    assert ratio == 1.0


def test_fewer_samples_than_weights_still_have_a_finite_answer():
    x, y, start = torch.randn(2, 9), torch.randn(2, 3), torch.randn(9, 3, dtype=torch.float64)
    weight, ratio = solved(sums_of(x, y), sums_of(x, y), start)
    assert torch.isfinite(weight).all()
    assert ratio == pytest.approx(0, abs=1e-6)


def test_inputs_that_are_all_zero_leave_the_start():
    start = torch.randn(3, 2, dtype=torch.float64)
    nothing = sums_of(torch.zeros(5, 3), torch.ones(5, 2))
    weight, ratio = solved(nothing, nothing, start)
    assert (torch.equal(weight, start), ratio) == (True, 1.0)


def test_the_constant_is_not_held_back():
    """A bias far from its start costs nothing, however strong the penalty on the weights is."""
    x = torch.cat([torch.randn(60, 3), torch.ones(60, 1)], 1)
    y = torch.full((60, 1), 50.0) + torch.randn(60, 1)
    weight, _ = solved(sums_of(x[:40], y[:40]), sums_of(x[40:], y[40:]), torch.zeros(4, 1, dtype=torch.float64), free=1)
    assert float(weight[3]) == pytest.approx(50, abs=1)


def test_samples_that_contradict_each_other_by_rounding_are_told_and_the_smallest_weights_taken():
    """Two inputs that are one, but for the last digits of their sums, which make the matrix indefinite."""
    off = 1 + 2 * max(PENALTIES)
    sums = Sums(
        torch.tensor([[[1.0, off], [off, 1.0]]], dtype=torch.float64), torch.full((1, 2, 1), 2.0).double(), 4, 9
    )
    found = solve(sums, sums, torch.zeros(1, 2, 1, dtype=torch.float64))
    assert found.ill
    assert torch.isfinite(found.weight).all()
    assert float(found.weight[0, 0]) == pytest.approx(float(found.weight[0, 1]))


def test_one_dead_group_does_not_keep_the_others_from_being_fitted():
    x, true = torch.randn(2, 60, 3), torch.randn(2, 3, 2)
    x[1] = 0
    sums = Sums.zeros(2, 3, 2)
    sums.add(x, x @ true)
    found = solve(sums, sums, torch.zeros(2, 3, 2, dtype=torch.float64))
    assert torch.allclose(found.weight[0].float(), true[0], atol=1e-3)
    assert not found.weight[1].any()
    assert not found.ill


def test_a_dead_channel_and_a_constant_one_are_no_hindrance():
    """The filter that goes is told by the others; one of these is nothing and one is always the same."""
    module = Straight(bias=True, norm=False)
    with torch.no_grad():
        weight, shift = module.first.weight, module.first.bias
        weight[1], shift[1] = 0, 0
        weight[2], shift[2] = 0, 3
        weight[5] = 0.5 * weight[0] - 2 * weight[3]
        shift[5] = 0.5 * shift[0] - 2 * shift[3] + 1
    assert_restored(traced(model_of(module)), {"first": without(6, 5)})


@pytest.mark.parametrize(("norms", "layer"), [(False, "second"), (True, "norm")])
def test_the_layer_and_the_image_that_bring_numbers_that_are_none_are_named(norms, layer):
    found = found_in(Plain)
    images = noise(found.model, 12)
    images[7, 0, 3, 3] = torch.nan
    cut = cut_of(found, {"first": (0, 2, 5)})
    with pytest.raises(ModelError, match=rf"not finite on the calibration images\n{layer}, calibration image 7 \("):
        reconstruct(cut, [images[:5], images[5:]], norms=norms)


def test_norms_name_the_image_too():
    module = with_statistics(Plain())
    images = torch.randn(6, 3, 12, 12)
    images[4, 0, 0, 0] = torch.inf
    with pytest.raises(ModelError, match=r"calibration image 4 \("):
        reestimate(capture(module, (3, 12, 12)), module, list(images.split(3)))


def test_a_refit_says_how_many_images_would_tell_all_its_weights():
    """One image is one sample of a linear layer, which has as many unknowns for an output as inputs, and the bias."""
    found = found_in(Flat)
    _, model, refits = recovered(found, {"body.3": without(6, 1)}, [noise(found.model, 20)])
    hidden = next(refit for refit in refits if refit.layer == "hidden")
    unknowns = 1 + model.module.hidden.weight.shape[1]
    assert hidden.images == math.ceil(unknowns * 5 / 4)  # every fifth image chooses the penalty
