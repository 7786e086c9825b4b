"""`edgeprune finetune RUN`: the model of a finished run learns on, into a run of its own."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from program_runs import Ran, Tiny, fault, fingerprint, nothing, run_forked, run_here, run_python, tiny_project
from safetensors.torch import load_file, save_file
from told_race import second_is_slower_in_int8

from edgeprune import racing
from edgeprune.report.document import Report
from edgeprune.verifying import VerifyOrder, verify

IN_INT8 = ("--precisions", "int8", "--float-where-faster", "--bench")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """A user's project with a finished run in `runs/run`, and images to train on."""
    tiny = tiny_project(tmp_path_factory.mktemp("finished"))
    given = ("--ratio", "0.5", "--formats", "onnx", "--no-bench", "--out", str(tiny.folder / "runs/run"))
    ran = run_forked(*tiny.compress(*given))
    assert ran.code == 0, ran.err
    pixels = np.random.default_rng(7).integers(0, 256, (60, 8, 8, 1), dtype=np.uint8)
    np.savez(tiny.folder / "food.npz", images=pixels)
    return tiny


@pytest.fixture
def place(project: Tiny, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Its folder, where nothing may be changed but by a run that ends well."""
    monkeypatch.chdir(project.folder)
    before = fingerprint(project.folder / "runs/run")
    yield project.folder
    assert fingerprint(project.folder / "runs/run") == before


def arguments(*more: str) -> tuple[str, ...]:
    return ("finetune", "runs/run", "--epochs", "6", "--batch", "8", "--formats", "onnx", "--no-bench", *more)


def finetuned(*more: str) -> Ran:
    ran = run_forked(*arguments("--train-data", "food.npz", "--overwrite", *more))
    assert ran.code == 0, ran.err
    return ran


def test_it_goes_on_from_the_runs_model_and_scores_the_same_images(place):
    report = Report.from_json(json.loads(finetuned("--json").out))
    first = Report.load(Path("runs/run/report.json"))
    assert report.accuracy is not None
    assert first.accuracy is not None
    steps = {step.name: step for step in report.accuracy.steps}
    assert list(steps) == ["uncut", "cut", "reconstruction", "distillation"]
    assert steps["distillation"].kept
    assert report.accuracy.images == first.accuracy.images
    for before in first.accuracy.steps:
        assert before.name == "norms" or steps[before.name].share == before.share
    assert report.recovery.settings["before"]["from"] == "reconstruct"
    assert not Path("runs/run-finetuned.training").exists()
    one, other = (load_file(Path("runs", name, "pruned.safetensors")) for name in ("run", "run-finetuned"))
    assert {name: tensor.shape for name, tensor in one.items()} == {name: other[name].shape for name in other}
    assert not all(torch.equal(one[name], other[name]) for name in one)
    assert Path("runs/run/plan.json").read_bytes() == Path("runs/run-finetuned/plan.json").read_bytes()


@pytest.mark.slow
def test_what_was_finetuned_can_be_finetuned_again(place):
    finetuned()
    again = [part if part != "runs/run" else "runs/run-finetuned" for part in arguments("--out", "runs/again")]
    ran = run_forked(*again, "--train-data", "food.npz", "--lr", "0.001", "--json", "--overwrite")
    assert ran.code == 0, ran.err
    accuracy = Report.from_json(json.loads(ran.out)).accuracy
    assert accuracy is not None
    assert [step.name for step in accuracy.steps][:3] == ["uncut", "cut", "recovery"]


def test_what_is_no_run_is_told(place):
    fault(run_here("finetune", "runs/none"), 2, "report.json")


def test_the_uncut_models_weights_must_be_there(place, project):
    project.weights.rename(project.folder / "moved.safetensors")
    try:
        ran = run_here(*arguments("--out", "runs/none"))
    finally:
        (project.folder / "moved.safetensors").rename(project.weights)
    fault(ran, 2, "cannot be loaded again", "net.safetensors", "--weights")


def test_another_uncut_model_is_not_learnt_from(place, project):
    tensors = {name: one * 1.5 if one.ndim else one for name, one in load_file(project.weights).items()}
    save_file(tensors, "other.safetensors")
    ran = run_forked(*arguments("--weights", "other.safetensors", "--out", "runs/other"))
    fault(ran, 2, "not the uncut model of the run", "other.safetensors", "--weights")
    assert not Path("runs/other").exists()


def test_the_run_itself_is_not_written_over(place):
    fault(run_here(*arguments("--out", "runs/run")), 2, "the output folder exists")
    fault(run_here(*arguments("--out", "runs/run", "--overwrite")), 2, "the run itself")


@pytest.mark.slow
def test_several_processes_make_one_run(place):
    given = arguments("--train-data", "food.npz", "--out", "runs/together", "--overwrite", "--json")
    torchrun = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "29512"]
    ran = run_python([*torchrun, "-m", "edgeprune", *given])
    assert ran.code == 0, ran.err
    accuracy = Report.from_json(json.loads(ran.out)).accuracy
    assert accuracy is not None
    assert "Traceback" not in ran.err
    looks = Path("runs/together/training.jsonl").read_text().splitlines()
    assert ran.err.count("from the uncut model on 6 other images") == len(looks)


def test_options_that_cannot_be_are_refused(place):
    fault(run_here(*arguments("--lr", "-1")), 2, "--lr")


@pytest.mark.parametrize(
    ("more", "said"),
    [(("0.5",), "--precisions int8"), (("-1", "--precisions", "int8"), "--max-drop must be from 0 to below 100")],
)
def test_an_accuracy_that_cannot_be_kept_to_is_refused(place, more, said):
    fault(run_here(*arguments("--max-drop", *more)), 2, "--max-drop", said)


def missing() -> None:
    """Whatever the files lose is too much."""
    from edgeprune.report import mixed

    mixed.missed = lambda artifacts: f"all of {len(artifacts)} files lose too much"


@pytest.mark.parametrize(("before", "code"), [(nothing, 0), (missing, 1)])
def test_what_cut_and_int8_cost_together_is_counted_on_images_that_are_not_reported_on(place, before, code):
    options = ("--train-data", "food.npz", "--precisions", "int8", "--max-drop", "90", "--out", "runs/small")
    ran = run_forked(*arguments(*options, "--overwrite", "--json"), before=before)
    assert ran.code == code, ran.err
    assert ("goal missed: all of 4 files lose too much" in ran.err) == bool(code)
    report, first = Report.from_json(json.loads(ran.out)), Report.load(Path("runs/run/report.json"))
    told = [one.details["mixed"] for one in report.artifacts if one.precision == "int8"]
    assert [one["max_drop"] for one in told] == [90, 90]
    assert report.accuracy is not None
    assert first.accuracy is not None
    assert {one["images"] + report.accuracy.images for one in told} == {first.accuracy.images}
    found = verify(VerifyOrder(Path("runs/small"))).accuracy
    assert report.accuracy.final is not None
    assert (found.images, found.uncut.share) == (report.accuracy.images, report.accuracy.uncut.share)
    assert [one.share for one in found.steps if one.kept] == [report.accuracy.final.share]


def test_files_are_of_the_kind_that_is_asked_for_as_those_of_compress(place):
    options = ("--onnx-batch", "1", "--fold-preprocessing", "--out", "runs/pixels")
    artifacts = Report.from_json(json.loads(finetuned(*options, "--json").out)).artifacts
    assert len(artifacts) == 2
    for one in artifacts:
        assert one.details["input"]["dtype"] == "uint8"
        entry = onnx.load(f"runs/pixels/{one.path}").graph.input[0].type.tensor_type.shape
        assert [axis.dim_value for axis in entry.dim] == [1, 8, 8, 1]
        assert one.folded is not None


@pytest.mark.parametrize("option", ["--onnx-batch", "--tflite-converter", "--tflite-int8"])
def test_a_kind_of_file_that_is_not_known_is_refused(place, option):
    fault(run_here(*arguments(option, "2")), 2, option)


def test_layers_that_take_longer_in_int8_are_left_in_float_where_that_is_asked_for(place):
    before = functools.partial(second_is_slower_in_int8, "edgeprune.finetuning")
    ran = run_forked(*arguments(*IN_INT8, "--out", "runs/mixed", "--train-data", "food.npz"), before=before)
    assert ran.code == 0, ran.err
    artifacts = Report.load(Path("runs/mixed/report.json")).artifacts
    told = {one.path: one.details["race"]["in_float"] for one in artifacts if one.precision == "int8"}
    assert told == {"baseline-int8.onnx": ["second"], "pruned-int8.onnx": ["second"]}


def test_layers_cannot_be_timed_for_a_board_of_another_kind(place, monkeypatch):
    ran = run_here(*arguments("--bench", "--float-where-faster"))
    fault(ran, 2, "--float-where-faster is about", "--precisions int8")
    monkeypatch.setattr(racing, "facts_of", lambda _: {"machine": "m68k", "cpu": "an Amiga"})
    ran = run_here(*arguments(*IN_INT8, "--out", "runs/none"))
    fault(ran, 2, "cannot be timed on an Amiga", "--target host")
    assert not Path("runs/none").exists()
