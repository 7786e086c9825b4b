"""A device must compute what the host computes with the same file."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from test_bench_session import IMAGES, START, Scripted, a_ready, an_artifact, bench
from test_bench_trust import measured

from edgeprune.bench.reference import host_outputs, parity
from edgeprune.bench.trust import doubts, verdict


def test_small_differences_are_those_of_other_kernels():
    own = np.array([1.0, -2.0, 0.5])
    assert parity([1.0, -2.000001, 0.5], own, "fp32") == {"max_rel": pytest.approx(5e-7), "passed": True}
    assert not parity([1.0, -2.1, 0.5], own, "fp32")["passed"]
    assert parity([1.0, -2.05, 0.5], own, "int8")["passed"]


def test_what_is_not_a_number_never_passes():
    assert parity([float("nan")], np.array([1.0]), "fp32") == {"max_rel": None, "passed": False}


def test_without_a_reference_nothing_is_claimed():
    assert parity([1.0], None, "fp32") == {}


def test_a_file_measured_here_agrees_with_itself(tmp_path):
    one = an_artifact(tmp_path, "base.onnx")
    references = host_outputs([one], tmp_path, IMAGES)
    (found,) = bench([one], tmp_path, references=references)
    assert found.parity["passed"]
    assert found.parity["max_rel"] < 1e-5


def test_a_device_that_computes_something_else_is_not_trusted(tmp_path):
    one = an_artifact(tmp_path, "base.onnx")
    wrong = a_ready("base.onnx@1") | {"output": [1e9]}
    device = Scripted(START, wrong, {"event": "end"})
    (found,) = bench([one], tmp_path, transport=device, references=host_outputs([one], tmp_path, IMAGES))
    assert found.parity["passed"] is False
    assert verdict(doubts(replace(measured(), parity=found.parity))).startswith("PARITY: its output differs")
