"""What a run says of its models: by how much accuracy changed, and whether recovery helped."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import edgeprune.pipeline
from edgeprune.pipeline import compress
from edgeprune.plan import Budget
from edgeprune.report.parts import Change
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


def test_what_recovery_made_worse_is_not_kept_and_the_report_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(edgeprune.pipeline, "reconstruct", spoiled)
    report = compress(request(tmp_path)).report
    assert any(warning.startswith("recovery made the model worse") for warning in report.run.warnings)
    assert report.accuracy.after_recovery is None


def test_the_change_of_accuracy_is_that_of_the_shares_and_lies_in_its_interval(tmp_path):
    report = compress(request(tmp_path)).report
    accuracy = report.accuracy
    assert not any(warning.startswith("recovery made") for warning in report.run.warnings)
    assert accuracy.changes.keys() == {"after_cut", "after_recovery"}
    for step, change in accuracy.changes.items():
        assert change.difference == pytest.approx(getattr(accuracy, step) - accuracy.baseline)
        assert change.ci95[0] <= change.difference <= change.ci95[1]
    assert isinstance(accuracy.changes["after_cut"], Change)
    assert accuracy.changes["after_cut"].difference < accuracy.changes["after_recovery"].difference
