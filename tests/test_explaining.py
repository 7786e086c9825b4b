"""A cut file that is not surely faster is not recommended: the run says so, and asks the runtimes why."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from report_samples import FRONT, FULL, speed_up

from edgeprune import measuring
from edgeprune.bench.compare import compare
from edgeprune.bench.profiling import PROFILES_NAME
from edgeprune.deciding import Decision
from edgeprune.errors import DeviceError
from edgeprune.latency import Conditions
from edgeprune.measuring import not_faster
from edgeprune.pipeline import Outcome, compress
from edgeprune.plan import Budget, PruningPlan
from edgeprune.profile import load_profiles
from edgeprune.report.headline import headline
from edgeprune.request import Request


def run(folder: Path) -> Outcome:
    budget = Budget(ratio=0.3)
    return compress(Request(formats=("onnx",), recover="none", images=16, budget=budget, out=folder / "run"))


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever this machine measures, no file is faster."""
    verdict = "no significant difference"
    monkeypatch.setattr(
        measuring, "compare", lambda them: tuple(replace(one, verdict=verdict) for one in compare(them))
    )


@pytest.mark.slow
def test_a_run_that_is_not_faster_says_why_and_is_still_handed_over(slow: None, tmp_path: Path) -> None:
    done = run(tmp_path)
    assert done.report is not None
    assert done.missed == ""  # no speed was asked for
    assert {one.role for one in load_profiles(tmp_path / "run" / PROFILES_NAME)} == {"baseline", "pruned"}
    (told, *_) = done.report.explanations
    assert told.device == done.report.comparisons[0].device
    assert "Not recommended, as not surely faster than the uncut model: pruned-fp32.onnx." in headline(done.report)
    assert told.findings[0].remedy in headline(done.report)


@pytest.mark.slow
def test_a_reason_that_cannot_be_found_out_costs_no_run(
    slow: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def lost(*_: object) -> None:
        raise DeviceError("the worker was ended")

    monkeypatch.setattr(measuring, "ask_why", lost)
    done = run(tmp_path)
    assert done.report is not None
    assert "could not be found out: the worker was ended" in done.report.run.warnings[-1]


def test_a_speed_up_that_was_tried_is_missed_where_the_finished_file_is_not_surely_faster() -> None:
    same = speed_up("onnxruntime", 1, 1.01, (0.98, 1.04), "no significant difference")
    faster = speed_up("onnxruntime", 2, 1.5, (1.4, 1.6), "faster")
    report = replace(FULL, comparisons=(same, faster))
    there = Conditions(same.device, "onnxruntime", "1.31.1", 1, "onnx")
    tried = Decision(PruningPlan("f", "l1", {}, Budget(speedup=1.5), 8, {}, {}, 0.5), conditions=there)
    assert "pruned.fp32.onnx is 1.01x as fast [0.98, 1.04]" in not_faster(report, tried)
    walked = replace(tried, front=FRONT)
    assert not_faster(report, walked) == ""  # int8 was chosen: what fp32 is does not matter
    fp32 = replace(FRONT, candidates=tuple(replace(one, chosen=one.round == 1) for one in FRONT.candidates[:3]))
    assert not_faster(report, replace(tried, front=fp32)) == not_faster(report, tried)
    for other in (replace(there, threads=2), replace(there, board="another"), None):
        assert not_faster(report, replace(tried, conditions=other)) == ""
