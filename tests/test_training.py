"""`edgeprune train`: from images to a cut model's files in one run, interrupted and resumed, and what it refuses."""

from __future__ import annotations

import functools
import json
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from interrupting import interrupt
from program_runs import Ran, Tiny, fault, fingerprint, run_forked, run_here
from safetensors.torch import load_file
from told_race import second_is_slower_in_int8

from edgeprune import racing
from edgeprune.model import load_saved
from edgeprune.plan import PruningPlan
from edgeprune.report.document import Report
from edgeprune.train.checkpoint import NAME

IN_INT8 = ("--precisions", "int8", "--float-where-faster", "--bench")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def arguments(tiny: Tiny, *more: str, data: str = "") -> tuple[str, ...]:
    given = ("train", tiny.net, "--data", data or str(tiny.data), "--input", "1x8x8", "--out", "runs/run")
    return (*given, "--epochs", "4", "--batch", "8", "--formats", "onnx", "--no-bench", *more)


def trained(tiny: Tiny, *more: str) -> Ran:
    ran = run_forked(*arguments(tiny, *more))
    assert ran.code == 0, ran.err
    return ran


def test_it_trains_cuts_and_hands_over_files_and_a_report(place, tiny):
    ran = trained(tiny, "--ratio", "0.5", "--multiple", "4", "--json")
    document = json.loads(ran.out)
    rows = [json.loads(line) for line in Path("runs/run/training.jsonl").read_text().splitlines()]
    assert document["epochs"] == rows
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4]
    assert {"loss", "rate", "top1", "images", "filters_at_zero", "new_ones", "frozen", "macs_kept"} <= rows[0].keys()
    assert document["training"]["criterion"] == "ssm"
    report = Report.load(Path("runs/run/report.json"))
    assert report.recovery.name == "train"
    assert {one.role for one in report.artifacts} == {"baseline", "pruned"}
    assert all(one.parity is not None for one in report.artifacts)
    plan = PruningPlan.load(Path("runs/run/plan.json"))
    assert {name: len(kept) for name, kept in plan.keep.items()} == {"first": 16, "second": 16}
    pruned, whole = load_saved("runs/run"), load_saved("runs/run", "trained")
    images = torch.randn(3, 1, 8, 8)
    with torch.no_grad():
        assert torch.allclose(pruned.module(images), whole.module(images), atol=1e-4)
    assert not Path("runs/run.training").exists()
    assert "epoch   4/4: loss" in ran.err


@pytest.mark.slow
def test_what_was_trained_can_be_compressed_again(place, tiny):
    trained(tiny, "--ratio", "0.5", "--multiple", "4")
    run = Path("runs/run")
    again = tiny.compress("--weights", str(run / "trained.safetensors"), "--plan", str(run / "plan.json"))
    ran = run_forked(*again, "--recover", "none", "--formats", "onnx", "--no-bench", "--out", "runs/again")
    assert ran.code == 0, ran.err
    one, other = (load_file(folder / "pruned.safetensors") for folder in (run, Path("runs/again")))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_ratio_0_only_trains(place, tiny):
    ran = trained(tiny, "--ratio", "0", "--json")
    document = json.loads(ran.out)
    assert document["report"] is None
    assert "filters_at_zero" not in document["epochs"][0]
    assert sorted(path.name for path in Path("runs/run").iterdir()) == [
        "trained.json",
        "trained.safetensors",
        "training.json",
        "training.jsonl",
    ]
    trained(tiny, "--ratio", "0", "--overwrite")


@pytest.mark.parametrize(
    ("number", "steps"), [(signal.SIGINT, 3), pytest.param(signal.SIGTERM, 14, marks=pytest.mark.slow)]
)
def test_ctrl_c_keeps_the_training_and_the_same_command_goes_on_exactly(place, tiny, number, steps):
    trained(tiny, "--ratio", "0.5", "--multiple", "4")
    Path("runs/run").rename("runs/whole")
    command = arguments(tiny, "--ratio", "0.5", "--multiple", "4")
    ran = run_forked(
        *command, before=functools.partial(interrupt, "edgeprune.training_command", "train", number, steps)
    )
    assert ran.code == 130, ran.err
    assert ran.err.strip().splitlines()[-1] == "interrupted: nothing is left half-written"
    assert "the same command goes on from there" in ran.err
    assert "Traceback" not in ran.err
    assert [path.name for path in Path("runs").iterdir() if path.name != "whole"] == ["run.training"]
    assert [path.name for path in Path("runs/run.training").iterdir()] == [NAME]
    ran = run_forked(*command)
    assert ran.code == 0, ran.err
    assert "it goes on from there" in ran.err
    whole, resumed = (load_file(Path("runs", name, "pruned.safetensors")) for name in ("whole", "run"))
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


@pytest.mark.slow
def test_an_interrupted_training_is_not_mixed_with_another(place, tiny):
    ran = run_forked(
        *arguments(tiny), before=functools.partial(interrupt, "edgeprune.training_command", "train", signal.SIGINT, 2)
    )
    assert ran.code == 130, ran.err
    before = fingerprint(place)
    other = run_forked(*arguments(tiny, "--lr", "0.02"))
    fault(other, 2, "another training", "runs/run.training", "--restart")
    assert fingerprint(place) == before
    assert run_forked(*arguments(tiny, "--lr", "0.02", "--restart")).code == 0


def test_a_training_that_diverges_ends_with_an_error(place, tiny):
    ran = run_forked(*arguments(tiny, "--lr", "1e30"))
    fault(ran, 2, "diverged", "--lr 1e+30", "lower rate")
    assert not Path("runs/run").exists()


@pytest.mark.slow
def test_time_ends_it_with_a_whole_result(place, tiny):
    ran = trained(tiny, "--epochs", "100000", "--minutes", "0.02", "--json")
    document = json.loads(ran.out)
    assert document["epochs"][-1]["frozen"] is True
    assert document["report"]["recovery"]["settings"]["minutes"] == 0.02


def test_images_without_labels_are_refused(place, tiny):
    np.savez("unlabelled.npz", images=np.zeros((20, 8, 8, 1), np.uint8))
    ran = run_here(*arguments(tiny, data="unlabelled.npz"))
    fault(ran, 2, "no labels", "unlabelled.npz", "labels.txt")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--freeze-last", "1.5"), "--freeze-last"),
        (("--epochs", "0"), "--epochs"),
        (("--lr", "0"), "--lr"),
        (("--batch", "1"), "--batch"),
        (("--minutes", "0"), "--minutes"),
        (("--multiple", "0"), "--multiple"),
        (("--device", "cudaa"), "--device"),
        (("--zero", "scale"), "scales"),
        (("--from-scratch", "--weights", "w.safetensors"), "--from-scratch"),
        (("--ratio", "1"), "--ratio"),
        (("--criterion", "smm"), "ssm"),
    ],
)
def test_options_that_cannot_be_are_refused_before_any_work(place, tiny, more, said):
    fault(run_here(*arguments(tiny, *more)), 2, said)
    assert not list(place.iterdir())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_a_gpu_that_is_not_there_is_told(place, tiny):
    fault(run_here(*arguments(tiny, "--device", "cuda")), 2, "no CUDA device", "--device cpu")


def test_images_are_needed(place, tiny):
    fault(run_here("train", tiny.net, "--input", "1x8x8"), 2, "labels are needed", "--data")


def test_a_network_that_is_cut_as_a_graph_is_refused(place, tiny):
    (place / "calculated.py").write_text(
        "import torch\nfrom torch import nn\nfrom torch.nn.utils.parametrizations import weight_norm\n\n\n"
        "def build():\n"
        "    first = weight_norm(nn.Conv2d(1, 16, 3))\n"
        "    return nn.Sequential(first, nn.ReLU(), nn.Conv2d(16, 16, 3), nn.Flatten(), nn.Linear(256, 4))\n"
    )
    command = arguments(tiny)
    ran = run_here(command[0], "calculated.py:build", *command[2:])
    fault(ran, 2, "cannot be trained here")


def test_a_folder_of_something_else_is_not_replaced(place, tiny):
    Path("runs/run").mkdir(parents=True)
    Path("runs/run/mine.txt").write_text("mine")
    fault(run_here(*arguments(tiny, "--overwrite")), 2, "not a training of edgeprune")
    assert Path("runs/run/mine.txt").read_text() == "mine"


def test_layers_that_take_longer_in_int8_are_left_in_float_where_that_is_asked_for(place, tiny):
    before = functools.partial(second_is_slower_in_int8, "edgeprune.training")
    ran = run_forked(*arguments(tiny, *IN_INT8, "--ratio", "0.5", "--multiple", "4"), before=before)
    assert ran.code == 0, ran.err
    artifacts = Report.load(Path("runs/run/report.json")).artifacts
    told = {one.path: one.details["race"]["in_float"] for one in artifacts if one.precision == "int8"}
    assert told == {"baseline-int8.onnx": ["second"], "pruned-int8.onnx": ["second"]}


def test_layers_cannot_be_timed_for_a_board_of_another_kind(place, tiny, monkeypatch):
    ran = run_here(*arguments(tiny, "--bench", "--float-where-faster"))
    fault(ran, 2, "--float-where-faster is about", "--precisions int8")
    monkeypatch.setattr(racing, "facts_of", lambda _: {"machine": "m68k", "cpu": "an Amiga"})
    ran = run_here(*arguments(tiny, *IN_INT8))
    fault(ran, 2, "cannot be timed on an Amiga", "--target host")
    assert not Path("runs").exists()
