"""What a run says of its models: by how much accuracy changed, and whether recovery helped."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import edgeprune.recovery
from edgeprune.pipeline import compress
from edgeprune.plan import Budget
from edgeprune.report.parts import Method
from edgeprune.report.scores import Step
from edgeprune.request import Request
from edgeprune.resize import with_tensors


def request(folder: Path, **more) -> Request:
    asked = Request(budget=Budget(ratio=0.4), formats=("onnx",), bench=False, images=200, out=folder / "run")
    return replace(asked, **more)


def spoiled(cut, batches, **_):
    """A recovery that makes the model useless."""
    module = with_tensors(cut.pruned.module, {})
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(-3)
    return replace(cut.pruned, module=module), ()


def steps_of(report) -> dict[str, Step]:
    return {step.name: step for step in report.accuracy.steps}


def test_what_recovery_made_worse_is_not_kept_and_the_report_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(edgeprune.recovery, "reconstruct", spoiled)
    report = compress(request(tmp_path)).report
    assert any(warning.startswith("recovery made the model worse") for warning in report.run.warnings)
    found = steps_of(report)
    assert found["norms"].kept
    assert found["reconstruction"].share < found["norms"].share
    assert (report.recovery.name, report.recovery.settings["tried"]) == ("bn", "reconstruct")


def test_where_the_norms_alone_are_worse_too_the_model_as_cut_is_kept(tmp_path, monkeypatch):
    def spoil(program, module, batches):
        with torch.no_grad():
            next(module.buffers()).fill_(1e3)

    monkeypatch.setattr(edgeprune.recovery, "reconstruct", spoiled)
    monkeypatch.setattr(edgeprune.recovery, "reestimate", spoil)
    report = compress(request(tmp_path)).report
    assert steps_of(report)["cut"].kept
    assert report.to_json()["accuracy"]["after_recovery"] is None
    assert report.recovery == Method("none", {"tried": "reconstruct", **report.recovery.settings})


def test_every_step_is_scored_and_its_change_lies_in_its_interval(tmp_path):
    report = compress(request(tmp_path)).report
    uncut, *steps = report.accuracy.steps
    assert not any(warning.startswith("recovery made") for warning in report.run.warnings)
    assert [step.name for step in steps] == ["cut", "norms", "reconstruction"]
    for step in steps:
        assert step.change.difference == pytest.approx(step.share - uncut.share)
        assert step.change.ci95[0] <= step.change.difference <= step.change.ci95[1]
        assert step.kept is (step.name == "reconstruction")
    assert steps[0].share < steps[1].share < steps[2].share


@pytest.mark.parametrize(("recover", "names"), [("none", ["uncut", "cut"]), ("bn", ["uncut", "cut", "norms"])])
def test_only_what_was_asked_for_is_tried(tmp_path, recover, names):
    assert list(steps_of(compress(request(tmp_path, recover=recover)).report)) == names


def test_too_few_images_are_one_warning_that_says_how_many_would_do(tmp_path):
    report = compress(request(tmp_path, calibration_images=8)).report
    (told,) = (warning for warning in report.run.warnings if "too few" in warning)
    needed = re.search(
        r"8 calibration images are too few .* (\d+) images would do \(--calibration-images (\d+)\)", told
    )
    assert needed
    enough = compress(request(tmp_path / "more", calibration_images=int(needed[1]))).report
    assert not any("too few" in warning for warning in enough.run.warnings)
