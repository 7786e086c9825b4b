"""The loop: stopped anywhere and resumed, it gives the weights it would have given, bit for bit."""

from __future__ import annotations

import os
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from nets import Plain, Residual, model_of
from torch import nn

from edgeprune.data import ImageSet
from edgeprune.errors import TrainingError
from edgeprune.train.checkpoint import NAME, load_checkpoint
from edgeprune.train.job import Alone, Job, cross_entropy
from edgeprune.train.loop import fit
from edgeprune.train.settings import Settings

FINGERPRINT = "of this training"


pytestmark = pytest.mark.usefixtures("one_thread")


class Drawing(nn.Module):
    """A network whose training draws numbers, and which counts its forward passes in a buffer that is not saved."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.dropout = Plain(), nn.Dropout(0.3)
        self.register_buffer("passes", torch.zeros(()), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.passes += 1
        return self.body(self.dropout(x))


def images(count: int = 40) -> ImageSet:
    chance = np.random.default_rng(0)
    pixels = chance.integers(0, 256, (count, 12, 12, 3), dtype=np.uint8)
    return ImageSet(pixels, chance.integers(0, 4, count), "chance", count)


def job_of(network=Drawing, companion=None, evaluate=None, **settings) -> Job:
    torch.manual_seed(0)
    model = model_of(network())
    chosen = Settings(
        **{"epochs": 3, "batch": 16, "padding": 1, "flip": True, "device": "cpu", "checkpoint_s": 0.0, **settings}
    )
    loss = cross_entropy(chosen.smoothing)
    return Job(model.module, model.input, images(), chosen, loss, FINGERPRINT, companion or Alone(), evaluate)


def same(one: nn.Module, other: nn.Module) -> bool:
    tensors = {**dict(other.named_parameters()), **dict(other.named_buffers())}
    own = {**dict(one.named_parameters()), **dict(one.named_buffers())}
    return own.keys() == tensors.keys() and all(torch.equal(own[name], tensors[name]) for name in own)


class PowerCutError(Exception):
    """The power is cut."""


def interrupted_after(steps: int):
    done = 0

    def tick(*_: int) -> None:
        nonlocal done
        done += 1
        if done == steps:
            raise PowerCutError

    return tick


@pytest.mark.parametrize(
    "settings", [{}, {"ema": 0.8}, {"optimiser": "adamw", "rate": 1e-3}, {"as_in_use": True, "ema": 0.8}]
)
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5, 6])
def test_a_power_cut_after_any_step_changes_nothing(tmp_path, steps, settings):
    whole = fit(job_of(**settings))
    with pytest.raises(PowerCutError):
        fit(job_of(**settings), tmp_path, tick=interrupted_after(steps))
    torch.manual_seed(1234)
    resumed = fit(job_of(**settings), tmp_path)
    assert same(whole.module, resumed.module)
    assert [row["loss"] for row in whole.rows] == [row["loss"] for row in resumed.rows]


def test_it_can_be_cut_off_again_and_again(tmp_path):
    whole = fit(job_of())
    cuts = 0
    while cuts < 20:
        try:
            resumed = fit(job_of(), tmp_path, tick=interrupted_after(2))
            break
        except PowerCutError:
            cuts += 1
    assert cuts == 5  # each sitting but the last comes one step further: the second one's was not saved yet
    assert same(whole.module, resumed.module)


def test_a_signal_is_met_after_its_step_with_a_checkpoint(tmp_path):
    def tick(done: int, total: int) -> None:
        if done == 3:
            os.kill(os.getpid(), signal.SIGINT)

    job = job_of(checkpoint_s=1e9)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        fit(job, tmp_path, tick=tick)
    assert signal.getsignal(signal.SIGINT) is before
    _, document = load_checkpoint(tmp_path / NAME)
    assert document["done"] == 3
    assert same(fit(job_of()).module, fit(job_of(), tmp_path).module)


def test_a_finished_training_is_not_trained_again(tmp_path):
    first = fit(job_of(), tmp_path)
    ticks: list[int] = []
    again = fit(job_of(), tmp_path, tick=lambda done, total: ticks.append(done))
    assert same(first.module, again.module)
    assert first.rows == again.rows
    assert not ticks


def test_as_in_use_norms_keep_their_statistics_and_dropout_drops_nothing():
    class Watched(Drawing):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            assert torch.equal(self.dropout(x), x)
            return super().forward(x)

    job = job_of(Watched, as_in_use=True)
    result = fit(job).module
    norms = [(name, one) for name, one in job.module.named_buffers() if "running" in name]
    assert norms
    assert all(torch.equal(result.get_buffer(name), one) for name, one in norms)
    assert not torch.equal(result.body.first.weight, job.module.body.first.weight)
    assert result.passes > 0  # all else was in training mode


def test_the_network_that_was_given_is_as_it_was_and_the_result_is_ready_to_use():
    job = job_of()
    before = {name: tensor.clone() for name, tensor in job.module.state_dict().items()}
    result = fit(job).module
    assert all(torch.equal(before[name], tensor) for name, tensor in job.module.state_dict().items())
    assert not result.training
    assert not same(job.module, result)
    assert all(one.is_contiguous() and one.grad is None for one in result.parameters())


def test_another_seed_gives_other_weights_and_the_callers_random_numbers_go_on_undisturbed():
    state = torch.get_rng_state()
    first = fit(job_of())
    torch.set_rng_state(state)
    before = torch.rand(1)
    torch.set_rng_state(state)
    job = job_of(seed=1)
    torch.set_rng_state(state)
    second = fit(job)
    assert torch.equal(torch.rand(1), before)
    assert not same(first.module, second.module)


def test_it_learns():
    """Images that tell their class by which channel is bright."""
    labels = np.arange(60) % 3
    pixels = np.zeros((60, 12, 12, 3), np.uint8)
    pixels[np.arange(60), :, :, labels] = 200
    job = replace(job_of(Plain, epochs=15, rate=0.05), images=ImageSet(pixels, labels, "colours", 60))
    result = fit(job)
    with torch.no_grad():
        found = result.module(torch.from_numpy(job.input.normalise(pixels))).argmax(1)
    assert (found.numpy() == labels).mean() > 0.95
    assert result.rows[-1]["loss"] < 0.3 * result.rows[0]["loss"]


def test_rows_tell_of_each_epoch_and_of_what_was_evaluated():
    told = []
    result = fit(job_of(evaluate=lambda module: {"training": module.training}), say=told.append)
    assert [row["epoch"] for row in result.rows] == [1, 2, 3]
    assert [row["steps"] for row in result.rows] == [2, 2, 2]
    assert all(row["training"] is False for row in result.rows)
    assert tuple(told) == result.rows


def test_fewer_images_than_a_batch_make_one_step_an_epoch():
    result = fit(job_of(batch=64))
    assert [row["steps"] for row in result.rows] == [1, 1, 1]


@pytest.mark.parametrize("seconds", [7.0, 20.0, 100.0])
def test_the_time_is_over_within_a_step_and_the_rate_has_come_down(seconds):
    now = 0.0

    def clock() -> float:
        nonlocal now
        now += seconds
        return now

    result = fit(job_of(epochs=1000, minutes=1.0), clock=clock)
    assert 60 <= result.elapsed_s < 60 + seconds
    assert sum(row["steps"] for row in result.rows) == -(-60 // seconds)
    assert result.rows[-1]["rate"] <= 0.1 * 0.1 or seconds > 7


def test_time_counts_over_all_sittings(tmp_path):
    now = 0.0

    def clock() -> float:
        nonlocal now
        now += 10.0
        return now

    with pytest.raises(PowerCutError):
        fit(job_of(epochs=1000, minutes=1.0), tmp_path, tick=interrupted_after(4), clock=clock)
    result = fit(job_of(epochs=1000, minutes=1.0), tmp_path, clock=clock)
    assert sum(row["steps"] for row in result.rows) == 6


def test_a_loss_that_is_no_number_ends_the_training_and_leaves_the_last_checkpoint(tmp_path):
    calls = 0

    def loss(module, inputs, labels):
        nonlocal calls
        calls += 1
        return module(inputs).sum() * (float("nan") if calls == 4 else 1e-6)

    with pytest.raises(TrainingError, match="diverged") as told:
        fit(replace(job_of(), objective=loss), tmp_path)
    assert "epoch 2, step 2 of 2" in told.value.where
    assert "--lr 0.01 --restart" in told.value.fix
    tensors, document = load_checkpoint(tmp_path / NAME)
    assert document["done"] == 3
    assert all(tensor.isfinite().all() for tensor in tensors.values())


def test_a_checkpoint_of_another_training_is_refused(tmp_path):
    fit(job_of(epochs=1), tmp_path)
    with pytest.raises(TrainingError, match="another training") as told:
        fit(replace(job_of(epochs=1), fingerprint="another"), tmp_path)
    assert "--restart" in told.value.fix


@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"\x08\0\0\0\0\0\0\0{}      "])
def test_a_torn_checkpoint_is_told(tmp_path, content):
    (tmp_path / NAME).write_bytes(content)
    with pytest.raises(TrainingError, match="checkpoint"):
        fit(job_of(), tmp_path)


def test_a_network_without_anything_to_train_is_told():
    job = job_of()
    job.module.requires_grad_(False)
    with pytest.raises(TrainingError, match="no parameters"):
        fit(job)


def test_a_network_through_which_no_gradient_flows_is_told():
    with pytest.raises(TrainingError, match="cannot be trained") as told:
        fit(job_of(Residual))
    assert "inplace" in told.value.where


def test_frozen_parameters_stay_as_they_are():
    job = job_of()
    job.module.body.first.requires_grad_(False)
    result = fit(job).module
    assert torch.equal(result.body.first.weight, job.module.body.first.weight)
    assert not torch.equal(result.body.second.weight, job.module.body.second.weight)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_on_a_gpu_it_trains_in_mixed_precision_and_goes_on_from_a_checkpoint(tmp_path):
    with pytest.raises(PowerCutError):
        fit(job_of(device="cuda", epochs=20), tmp_path, tick=interrupted_after(5))
    result = fit(job_of(device="cuda", epochs=20), tmp_path)
    assert all(one.device.type == "cpu" and one.dtype == torch.float32 for one in result.module.parameters())
    assert result.rows[-1]["loss"] < result.rows[0]["loss"]


def judged_by(values: dict[int, float]):
    """An evaluation whose number depends on how often it was asked, the network as given included."""
    asked = 0

    def judge(module: nn.Module) -> dict[str, float]:
        nonlocal asked
        asked += 1
        return {"loss_found": values.get(asked - 1, 9.0), "asked": asked}

    return judge


def kept(values: dict[int, float], place=None, tick=None, **settings):
    job = replace(job_of(evaluate=judged_by(values), **settings), keep="loss_found")
    return fit(job, place, **({"tick": tick} if tick else {}))


def test_the_best_weights_are_the_result():
    ends = fit(job_of(epochs=1)).module  # another length has other rates: the first epoch is not that of three
    result = kept({0: 5.0, 1: 1.0, 2: 3.0, 3: 2.0})
    assert result.kept == 1
    assert [row["loss_found"] for row in result.rows] == [1.0, 3.0, 2.0]
    assert not same(result.module, fit(job_of()).module)
    assert not same(result.module, ends)
    assert same(kept({0: 5.0, 1: 4.0, 2: 3.0, 3: 2.0}).module, fit(job_of()).module)


@pytest.mark.parametrize("later", [1.0, float("nan"), float("inf")])
def test_what_was_given_is_kept_where_training_brings_nothing_better(later):
    job = job_of()
    result = kept({0: 1.0, 1: later, 2: later, 3: later})
    assert result.kept == 0
    assert same(result.module, job.module)


def test_it_ends_early_after_so_many_evaluations_without_a_better_one():
    result = kept({0: 5.0, 1: 3.0, 2: 1.0}, epochs=20, patience=3)
    assert len(result.rows) == 5
    assert result.kept == 2


def test_it_goes_on_as_long_as_it_gets_better_though_it_began_better():
    result = kept({0: 1.0, **{row: 9.5 - 1.1 * row for row in range(1, 9)}}, epochs=8, patience=3)
    assert len(result.rows) == 8
    assert result.kept == 8


@pytest.mark.parametrize("looks", [1, 2, 4])
def test_it_is_looked_at_in_equal_shares_of_the_training(looks):
    rows = fit(job_of(epochs=4, looks=looks)).rows
    assert [row["share"] for row in rows] == [(one + 1) / looks for one in range(looks)]
    assert sum(row["steps"] for row in rows) == 8


@pytest.mark.parametrize("steps", [1, 3, 5])
def test_the_best_weights_outlast_a_power_cut(tmp_path, steps):
    def by_weights(module: nn.Module) -> dict[str, float]:
        return {"loss_found": float(module.body.head.bias.detach()[0])}

    job = replace(job_of(evaluate=by_weights, looks=6), keep="loss_found")
    whole = fit(job)
    with pytest.raises(PowerCutError):
        fit(job, tmp_path, tick=interrupted_after(steps))
    resumed = fit(job, tmp_path)
    assert same(whole.module, resumed.module)
    assert whole.kept == resumed.kept
    timeless = [[{**row, "elapsed_s": 0} for row in one.rows] for one in (whole, resumed)]
    assert timeless[0] == timeless[1]


def test_full_precision_can_be_asked_for(monkeypatch):
    seen = set()

    def loss(module, inputs, labels):
        output = module(inputs)
        seen.add(output.dtype)
        return output.float().square().mean()

    monkeypatch.setattr("edgeprune.train.device._has_bfloat16", lambda: True)
    fit(replace(job_of(epochs=1, mixed=False), objective=loss))
    assert seen == {torch.float32}
    result = fit(replace(job_of(epochs=1), objective=loss))
    assert seen == {torch.float32, torch.bfloat16}
    assert all(one.dtype == torch.float32 for one in result.module.parameters())
