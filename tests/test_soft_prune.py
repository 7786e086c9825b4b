"""Soft pruning: filters go to zero and may come back, until the choice is frozen; then cutting them changes nothing."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from nets import (
    Dense,
    Inverted,
    Plain,
    Residual,
    Traced,
    assert_exact,
    difference,
    found_in,
    noise,
    plan_of,
    random_keep,
    run,
)
from test_train_loop import PowerCutError, interrupted_after, job_of, same
from torch.nn import functional as F

from edgeprune.criteria import configure
from edgeprune.plan import Budget, PruningPlan
from edgeprune.prune.allocate import allocate, left_whole
from edgeprune.prune.score import Scorer
from edgeprune.prune.surgery import apply
from edgeprune.resize import all_tensors, copy_tensors, with_tensors
from edgeprune.train.loop import fit
from edgeprune.train.soft_prune import SoftPruning, action
from edgeprune.train.zeros import everything, recoverable, set_to_zero


class Summed(Residual):
    """The same, without the sum in place, through which no gradient flows."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.stem_norm(self.stem(x)))
        y = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        return self.head(F.relu(x + y).mean((2, 3)))


@given(st.integers(1, 40), st.integers(1, 20), st.floats(0, 1))
def test_the_choice_is_made_after_each_epoch_until_it_is_frozen_once(epochs, steps_each, freeze_last):
    frozen, seen = False, []
    for step in range(1, epochs * steps_each + 1):
        act = action(step / (epochs * steps_each), step % steps_each == 0, frozen, freeze_last)
        frozen = frozen or act == "freeze"
        seen.append(act)
    assert seen.count("freeze") == 1
    at = seen.index("freeze")
    assert (at + 1) / len(seen) >= 1 - freeze_last - 1e-6
    assert at == 0 or at / len(seen) < 1 - freeze_last + 1e-6
    assert all(act == "hold" for act in seen[at + 1 :])
    assert all(act == ("zero" if (place + 1) % steps_each == 0 else "none") for place, act in enumerate(seen[:at]))


def test_the_last_three_of_ten_epochs_are_frozen():
    acts = [action(epoch / 10, True, False, 0.3) for epoch in range(1, 11)]
    assert acts.index("freeze") == 6


def everywhere(found: Traced, ratio: float = 0.4, freeze_last: float = 0.4) -> SoftPruning:
    """Prune every space of a small network that can be cut, residual widths too, by SSM."""
    whole = left_whole(found.channel_map, "all")
    names = [space.name for space in found.channel_map.spaces if space.name not in whole]
    scored = with_tensors(found.model.module, {})

    def choose(module: torch.nn.Module) -> PruningPlan:
        copy_tensors(module, scored)
        scores = Scorer(found.channel_map, found.program, scored, []).score(configure("ssm"), names)
        return allocate(found.channel_map, scores, Budget(ratio=ratio), 1)

    return SoftPruning(choose, found.channel_map, found.program, freeze_last)


class Scripted(SoftPruning):
    """Removes what a script names, one choice after another, and remembers the network before and after each step."""

    def __init__(self, found: Traced, script: list[dict[str, tuple[int, ...]]], freeze_last: float) -> None:
        self.choices = 0
        self.before: list[dict[str, torch.Tensor]] = []
        self.after: list[dict[str, torch.Tensor]] = []

        def choose(module: torch.nn.Module) -> PruningPlan:
            self.choices += 1
            return plan_of(found.channel_map, script[self.choices - 1])

        super().__init__(choose, found.channel_map, found.program, freeze_last)

    def stepped(self, module: torch.nn.Module, share: float, epoch_ended: bool) -> None:
        self.before.append({name: one.detach().clone() for name, one in all_tensors(module).items()})
        super().stepped(module, share, epoch_ended)
        self.after.append({name: one.detach().clone() for name, one in all_tensors(module).items()})


FIRST, SECOND = {"conv1": tuple(range(6))}, {"conv1": tuple(range(6, 12))}
"""What stays: of two steps an epoch, the choices are made after steps 2, 4 and so on."""


def test_a_filter_at_zero_recovers_and_another_goes_in_its_place():
    pruning = Scripted(found_in(Summed), [FIRST, SECOND, SECOND], freeze_last=0.1)
    fit(job_of(Summed, pruning, rate=0.05))
    zeroed, recovered, next_zeroed = pruning.after[1], pruning.before[3], pruning.after[3]
    assert not zeroed["norm1.weight"][6:].any()
    assert not zeroed["norm1.bias"][6:].any()
    assert bool((zeroed["conv1.weight"][6:] != 0).any()), "its weights are left"
    assert bool((recovered["norm1.weight"][6:] != 0).all())
    assert torch.equal(next_zeroed["norm1.weight"][6:], recovered["norm1.weight"][6:])
    assert not next_zeroed["norm1.weight"][:6].any()


def test_once_frozen_filters_stay_at_zero_after_every_step_and_nobody_is_asked_again():
    pruning = Scripted(found_in(Summed), [FIRST, SECOND], freeze_last=0.5)
    result = fit(job_of(Summed, pruning, epochs=4, rate=0.05))
    assert pruning.choices == 2
    assert pruning.frozen
    for seen in pruning.after[3:]:
        for name in ("conv1.weight", "norm1.weight", "norm1.bias"):
            assert not seen[name][:6].any()
            assert seen[name][6:].any()
        assert not seen["conv2.weight"][:, :6].any()
    assert not result.module.conv1.weight[:6].any()
    assert [row["frozen"] for row in result.rows] == [False, True, True, True]
    assert [row["new_ones"] for row in result.rows] == [6, 6, 0, 0]


@pytest.mark.parametrize("network", [Summed, Inverted, Dense])
@pytest.mark.parametrize("ema", [0.0, 0.5])
def test_the_trained_network_is_what_is_left_after_the_cut(network, ema):
    """Summed, depthwise with squeeze-and-excite, and concatenation; judged by the oracle of every cut, too."""
    found = found_in(network)
    pruning = everywhere(found)
    trained = fit(replace(job_of(network, pruning, rate=0.02, ema=ema), module=found.model.module)).module
    assert pruning.plan is not None
    ended = replace(found, model=replace(found.model, module=trained))
    pruned = apply(pruning.plan, found.channel_map, ended.model)
    assert_exact(ended, pruned, pruning.plan.keep)
    images = noise(found.model, count=3)
    assert difference(run(pruned.module, images), run(trained, images)) <= 1e-5
    for name, kept in pruning.plan.keep.items():
        assert len(kept) < found.channel_map.space(name).size


@pytest.mark.parametrize("ratio", [0.25, 0.5])
def test_the_ratio_that_is_reached_is_the_one_asked_for(ratio):
    found = found_in(Summed)
    pruning = everywhere(found, ratio)
    result = fit(job_of(Summed, pruning))
    assert pruning.plan is not None
    sizes = {name: found.channel_map.space(name).size for name in pruning.plan.keep}
    assert {name: len(kept) for name, kept in pruning.plan.keep.items()} == {
        name: round((1 - ratio) * size) for name, size in sizes.items()
    }
    assert result.rows[-1]["filters_at_zero"] == round(ratio * sum(sizes.values()))


def test_pruning_nothing_is_ordinary_training():
    found = found_in(Summed)
    nothing = SoftPruning(lambda module: plan_of(found.channel_map, {}), found.channel_map, found.program, 0.4)
    assert same(fit(job_of(Summed)).module, fit(job_of(Summed, nothing)).module)


def pruned_job():
    return job_of(Summed, everywhere(found_in(Summed)), epochs=4, rate=0.05)


@cache
def whole_training():
    return fit(pruned_job())


@pytest.mark.parametrize("steps", range(1, 9))
def test_a_power_cut_before_or_after_the_freezing_changes_nothing(tmp_path, steps):
    whole = whole_training()
    with pytest.raises(PowerCutError):
        fit(pruned_job(), tmp_path, tick=interrupted_after(steps))
    resumed = fit(pruned_job(), tmp_path)
    assert same(whole.module, resumed.module)
    rows = [[{**row, "elapsed_s": 0} for row in one.rows] for one in (whole, resumed)]
    assert rows[0] == rows[1]


@pytest.mark.parametrize("network", [Plain, Summed, Inverted, Dense])
def test_a_filter_that_may_recover_puts_out_nothing(network):
    """In training mode, where a normalisation uses the batch: it is the same whether the filter is read or not."""
    found = found_in(network)
    keep = random_keep(found.channel_map, seed=0)
    at_zero, unread = (with_tensors(found.model.module, {}).train() for _ in range(2))
    set_to_zero(at_zero, recoverable(found.channel_map, found.program, keep, "scales"))
    set_to_zero(unread, everything(found.channel_map, keep))
    images = noise(found.model, count=4)
    assert difference(run(at_zero, images), run(unread, images)) <= 1e-5


def test_soft_filter_prunings_zeros_are_the_weights_alone():
    found = found_in(Plain)
    keep = {"first": (0, 1, 2), "second": (0, 1, 2)}
    weights, scales = (set(recoverable(found.channel_map, found.program, keep, zero)) for zero in ("weights", "scales"))
    assert weights == {"first.weight", "second.weight", "second.bias"}
    assert scales == {"norm.weight", "norm.bias", "second.weight", "second.bias"}
    statistics = {"norm.running_mean", "norm.running_var"}
    assert set(everything(found.channel_map, keep)) == weights | scales | statistics | {"head.weight"}
