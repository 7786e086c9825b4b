"""`edgeprune compress --recover distill`: what it hands over, interrupted and resumed, and what it refuses."""

from __future__ import annotations

import functools
import json
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from interrupting import interrupt
from program_runs import Ran, Tiny, fault, run_forked, run_here
from safetensors.torch import load_file

from edgeprune.data import ImageSet, InputSpec
from edgeprune.errors import DataError
from edgeprune.inputs import Photos, food
from edgeprune.journal import Journal, Nobody
from edgeprune.model import Model
from edgeprune.report.document import Report
from edgeprune.train.checkpoint import NAME


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def arguments(tiny: Tiny, *more: str) -> tuple[str, ...]:
    given = ("--recover", "distill", "--ratio", "0.5", "--formats", "onnx", "--no-bench", "--out", "runs/run")
    return tiny.compress(*given, "--epochs", "6", "--batch", "8", *more)


def distilled(tiny: Tiny, *more: str) -> Ran:
    ran = run_forked(*arguments(tiny, *more))
    assert ran.code == 0, ran.err
    return ran


def unlabelled(count: int = 60, size: int = 8, name: str = "food.npz") -> str:
    pixels = np.random.default_rng(7).integers(0, 256, (count, size, size, 1), dtype=np.uint8)
    np.savez(name, images=pixels)
    return name


def test_the_report_tells_what_distillation_brought(place, tiny):
    food = ("--train-data", unlabelled(), "--train-data", unlabelled(30, 16, "more.npz"))
    ran = distilled(tiny, *food, "--epochs", "20", "--json")
    report = Report.from_json(json.loads(ran.out))
    assert report.accuracy is not None
    steps = [step.name for step in report.accuracy.steps]
    assert steps == ["uncut", "cut", "norms", "reconstruction", "blocks", "distillation"]
    assert report.accuracy.steps[-1].kept
    assert report.recovery.name == "distill"
    told = report.recovery.settings
    assert told["images"] + told["held_out"] == 90
    assert told["before"]["from"] in ("reconstruct", "blocks")
    rows = [json.loads(line) for line in Path("runs/run/training.jsonl").read_text().splitlines()]
    assert rows[-1]["share"] == 1
    assert min(row["distance"] for row in rows) < rows[0]["distance"]
    assert not Path("runs/run.training").exists()
    assert "from the uncut model on 9 other images" in ran.err


@pytest.mark.slow
def test_ctrl_c_keeps_the_distillation_and_the_same_command_goes_on_exactly(place, tiny):
    food = unlabelled()
    distilled(tiny, "--train-data", food)
    Path("runs/run").rename("runs/whole")
    command = arguments(tiny, "--train-data", food)
    ran = run_forked(
        *command, before=functools.partial(interrupt, "edgeprune.compressing_command", "distil", signal.SIGINT, 9)
    )
    assert ran.code == 130, ran.err
    assert "the same command goes on from there" in ran.err
    assert [path.name for path in Path("runs").iterdir() if path.name != "whole"] == ["run.training"]
    assert [path.name for path in Path("runs/run.training").iterdir()] == [NAME]
    fault(run_forked(*command, "--lr", "0.01"), 2, "another training", "runs/run.training", "--restart")
    ran = run_forked(*command)
    assert ran.code == 0, ran.err
    assert "it goes on from there" in ran.err
    whole, resumed = (load_file(Path("runs", name, "pruned.safetensors")) for name in ("whole", "run"))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


@pytest.mark.slow
def test_labels_count_only_where_they_are_asked_for(place, tiny):
    images = np.load(tiny.data)["images"]
    np.savez("shifted.npz", images=images[:30], labels=np.full(30, 7))
    assert run_forked(*arguments(tiny, "--train-data", "shifted.npz")).code == 0
    ran = run_forked(*arguments(tiny, "--train-data", "shifted.npz", "--labels", "--overwrite"))
    fault(ran, 2, "labels out of range: 7", "shifted.npz")


def test_labels_that_contradict_the_uncut_model_are_warned_of(place, tiny):
    from program_runs import tiny_network

    images = np.load(tiny.data)["images"]
    with torch.no_grad():
        found = tiny_network()(torch.from_numpy(images.transpose(0, 3, 1, 2) / np.float32(255))).argmax(1).numpy()
    np.savez("wrong.npz", images=images, labels=(found + 1) % 4)
    more = np.random.default_rng(3).integers(0, 256, (20, 8, 8, 1), dtype=np.uint8)
    np.savez("scored.npz", images=more)
    command = arguments(tiny, "--calibration-data", "wrong.npz", "--labels", "--epochs", "1")
    ran = run_forked(*(("scored.npz" if part == str(tiny.data) else part) for part in command))
    assert ran.code == 0, ran.err
    assert "the uncut model is right on 0.0% of the images with labels" in ran.err


@pytest.mark.slow
def test_a_distillation_that_diverges_ends_with_an_error(place, tiny):
    fault(run_forked(*arguments(tiny, "--train-data", unlabelled(), "--lr", "1e30")), 2, "diverged", "--lr 1e+30")
    assert not Path("runs/run").exists()


@pytest.mark.slow
def test_time_ends_it_with_a_whole_result(place, tiny):
    given = [part for part in arguments(tiny, "--train-data", unlabelled()) if part not in ("--epochs", "6")]
    ran = run_forked(*given, "--minutes", "0.00001")
    assert ran.code == 0, ran.err
    assert Report.load(Path("runs/run/report.json")).accuracy is not None


def test_too_few_images_are_refused(place, tiny):
    ran = run_forked(*arguments(tiny, "--train-data", unlabelled(9)))
    fault(ran, 2, "9 images are too few", "food.npz", "--train-data")
    assert not Path("runs/run").exists()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--epochs", "0"), "--epochs"),
        (("--minutes", "0"), "--minutes"),
        (("--batch", "1"), "--batch"),
        (("--lr", "0"), "--lr"),
        (("--mixup", "-1"), "--mixup"),
        (("--patience", "-1"), "--patience"),
        (("--train-images", "0"), "--train-images"),
        (("--train-device", "gpu"), "--train-device"),
        (("--device", "cuda"), "--train-device"),
        (("--recover", "distil"), "distill"),
        (("--optimiser", "adam"), "adamw"),
        (("--recover", "bn"), "--recover distill"),
        (("--recover", "bn", "--freeze-norms"), "--recover distill"),
    ],
)
def test_options_that_cannot_be_are_refused_before_any_work(place, tiny, more, said):
    fault(run_here(*arguments(tiny, *more)), 2, said)
    assert not list(place.iterdir())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_a_gpu_that_is_not_there_is_told(place, tiny):
    fault(run_here(*arguments(tiny, "--train-device", "cuda")), 2, "no CUDA device", "--device cpu")


def test_a_network_that_is_cut_as_a_graph_is_refused(place, tiny):
    (place / "calculated.py").write_text(
        "from torch import nn\nfrom torch.nn.utils.parametrizations import weight_norm\n\n\n"
        "def build():\n"
        "    first = weight_norm(nn.Conv2d(1, 16, 3))\n"
        "    return nn.Sequential(first, nn.ReLU(), nn.Conv2d(16, 16, 3), nn.Flatten(), nn.Linear(256, 4))\n"
    )
    given = ("compress", "calculated.py:build", "--data", str(tiny.data), "--input", "1x8x8", "--recover", "distill")
    fault(run_here(*given), 2, "cannot be distilled", "--recover reconstruct")


MODEL = Model(torch.nn.Identity(), InputSpec((1, 8, 8), (0.0,), (1.0,)), "none", "none")


def photos() -> Photos:
    pixels = np.random.default_rng(7).integers(0, 256, (60, 8, 8, 1), dtype=np.uint8)
    every = ImageSet(pixels, None, "photos", 60)
    return Photos(every.take(range(20, 40)), every.take(range(15)))


def test_nothing_is_scored_that_is_trained_on(place):
    journal = Journal(Nobody())
    images, kept = food([unlabelled(10)], 100, photos(), MODEL, journal, labels=False, seed=0)
    assert len(images) == 10
    assert len(kept.scoring) == 5
    assert any("10 images of photos are also training images and were not scored" in line for line in journal.warnings)


def test_food_is_the_calibration_images_unless_there_is_other(place):
    given = photos()
    images, kept = food([], 100, given, MODEL, Journal(Nobody()), labels=False, seed=0)
    assert np.array_equal(images.images, given.calibration.images)
    assert kept is given


def test_several_sources_are_shuffled_into_one_with_the_labels_at_their_images(place):
    sources = []
    for place_, value in enumerate((10, 200)):
        name = f"{value}.npz"
        np.savez(name, images=np.full((20, 8, 8, 1), value, np.uint8), labels=np.full(20, place_))
        sources.append(name)
    images, _ = food(sources, 15, photos(), MODEL, Journal(Nobody()), labels=True, seed=0)
    assert len(images) == 30
    assert images.labels is not None
    assert np.array_equal(images.images[:, 0, 0, 0], np.where(images.labels == 0, 10, 200))
    assert 0 < images.labels[:15].sum() < 15
    with pytest.raises(DataError, match="do not all have labels"):
        food([*sources, unlabelled()], 15, photos(), MODEL, Journal(Nobody()), labels=True, seed=0)
