"""blocks: what was cut learns what it put out before, block by block, and nothing else changes."""

from __future__ import annotations

import json
import math

import pytest
import torch
from nets import SMALL, Inverted, Residual, found_in, noise, random_keep
from program_runs import run_forked
from test_recover import TwoBlocks, cut_of
from torch.nn import functional as F

from edgeprune.recover.batchnorm import norm_nodes
from edgeprune.recover.reconstruct import Cut, reconstruct
from edgeprune.report.document import Report
from edgeprune.train import blocks
from edgeprune.train.blocks import blocks_of, refine
from edgeprune.walk import Walk

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "STEPS", 50)


@pytest.fixture
def cut() -> Cut:
    found = found_in(TwoBlocks)
    inner = {name: kept for name, kept in random_keep(found.channel_map, seed=1).items() if name in ("a1", "b1")}
    assert len(inner) == 2
    return cut_of(found, inner)


@pytest.fixture
def batches(cut: Cut) -> list[torch.Tensor]:
    return [noise(cut.uncut, 64, 7), noise(cut.uncut, 64, 8)]


def test_a_block_reaches_from_one_whole_value_to_the_next(cut):
    first, second = blocks_of(cut)
    assert (first.name, second.name) == ("a2", "b2")
    assert set(first.learns) == {"a1.weight", "a1.bias", "a2.weight", "norm_a.weight", "norm_a.bias"}
    assert set(second.learns) == {"b1.weight", "b1.bias", "b2.weight", "norm_b.weight", "norm_b.bias"}
    assert (first.start, first.end) == ("relu", "add")
    assert second.start == "relu_2"


@pytest.mark.parametrize("network", SMALL)
def test_every_tensor_that_was_cut_lies_in_one_block(network):
    found = found_in(network)
    cut = cut_of(found, random_keep(found.channel_map, seed=3))
    before, after = dict(cut.uncut.module.named_parameters()), dict(cut.pruned.module.named_parameters())
    smaller = [name for name in before if before[name].shape != after[name].shape]
    learned = [name for block in blocks_of(cut) for name in block.learns]
    assert set(smaller) <= set(learned)
    assert len(learned) == len(set(learned))


def test_a_block_ends_behind_the_norm_of_its_last_layer():
    """A refit may have written an offset into the norm's mean: what the norm reads is not what it was."""
    found = found_in(Inverted)
    cut = cut_of(found, random_keep(found.channel_map, seed=3, scope="inner"))
    read_by_norms = {one.args[0].name for one in norm_nodes(cut.pruned_program)}
    ends = {block.end for block in blocks_of(cut)}
    assert ends
    assert not ends & read_by_norms


def test_blocks_come_nearer_on_images_not_seen_before(cut, batches):
    start, _ = reconstruct(cut, batches)
    model, refits = refine(cut, start, batches)
    assert [refit.layer for refit in refits] == ["a2", "b2"]
    assert all(refit.error_ratio < 0.95 for refit in refits)
    end, unseen = blocks_of(cut)[-1].end, [noise(cut.uncut, 32, 99)]
    (wanted,) = Walk(cut.uncut_program, cut.uncut.module, unseen).stream(end)
    before, after = (next(Walk(cut.pruned_program, one.module, unseen).stream(end)) for one in (start, model))
    assert F.mse_loss(after, wanted) < 0.9 * F.mse_loss(before, wanted)
    assert all(
        torch.equal(model.module.get_buffer(name), one)
        for name, one in start.module.named_buffers()
        if "running" in name
    )
    assert torch.equal(model.module.stem.weight, start.module.stem.weight)


def test_the_model_given_is_as_it_was_and_the_same_comes_of_it_again(cut, batches):
    start, _ = reconstruct(cut, batches)
    before = {name: one.clone() for name, one in start.module.state_dict().items()}
    one, other = (refine(cut, start, batches)[0].module.state_dict() for _ in range(2))
    assert all(torch.equal(start.module.state_dict()[name], value) for name, value in before.items())
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("rate", [1e3, math.nan])
def test_what_does_not_become_better_stays(cut, batches, monkeypatch, rate):
    monkeypatch.setattr(blocks, "RATE", rate)
    start, _ = reconstruct(cut, batches)
    model, refits = refine(cut, start, batches)
    assert [refit.error_ratio for refit in refits] == [1.0, 1.0]
    assert all(torch.equal(model.module.state_dict()[name], one) for name, one in start.module.state_dict().items())


def test_fewer_images_are_taken_where_they_need_more_memory(cut, batches, monkeypatch):
    taken = []
    learn = blocks._Learner.learn

    def noting(self, x, y, seed):
        taken.append((len(x), len(y)))
        return learn(self, x, y, seed)

    monkeypatch.setattr(blocks._Learner, "learn", noting)
    refine(cut, cut.pruned, batches)
    monkeypatch.setattr(blocks, "_BLOCK_BYTES", 1)
    refine(cut, cut.pruned, batches)
    assert taken == [(128, 128)] * 2 + [(blocks.BATCH, blocks.BATCH)] * 2


def test_finished_blocks_are_not_learned_again(cut, batches, monkeypatch):
    kept = {}

    class Kept:
        def load(self, job):
            return kept.get(job)

        def save(self, job, changed, refit):
            kept[job] = ({name: one.clone() for name, one in changed.items()}, refit)

    model, refits = refine(cut, cut.pruned, batches, finished=Kept())
    monkeypatch.setattr(blocks._Learner, "learn", None)
    again, told = refine(cut, cut.pruned, batches, finished=Kept())
    assert told == refits
    assert all(torch.equal(again.module.state_dict()[name], one) for name, one in model.module.state_dict().items())


def test_the_command_tells_what_it_brought(tiny, tmp_path):
    given = ("--recover", "blocks", "--ratio", "0.5", "--formats", "onnx", "--no-bench", "--json")
    ran = run_forked(*tiny.compress(*given, "--out", str(tmp_path / "run")))
    assert ran.code == 0, ran.err
    report = Report.from_json(json.loads(ran.out))
    assert report.accuracy is not None
    assert [step.name for step in report.accuracy.steps] == ["uncut", "cut", "norms", "reconstruction", "blocks"]
    told = report.recovery.settings
    assert told["blocks_error_ratio"].keys() <= told["held_out_error_ratio"].keys()
    assert not (tmp_path / "run.recovery").exists()


def test_a_network_that_is_one_block_learns_to_give_the_same_answers(monkeypatch):
    monkeypatch.setattr(blocks, "STEPS", 150)
    found = found_in(Residual)
    cut = cut_of(found, random_keep(found.channel_map, seed=2))
    start, _ = reconstruct(cut, [noise(found.model, 64, 7)])
    whole = [block for block in blocks_of(cut) if block.end == cut.pruned_program.outputs[0].name]
    assert len(whole) == 1
    _, refits = refine(cut, start, [noise(found.model, 64, 7), noise(found.model, 64, 8)])
    assert refits[-1].error_ratio < 1
