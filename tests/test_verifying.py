"""`edgeprune verify RUN`: is every file of a finished run what its models compute, still?"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from listeners import Heard
from onnx import numpy_helper
from program_runs import ONE_SCREEN, Ran, Tiny, fault, fingerprint, run_forked, run_here, tiny_project
from safetensors.torch import load_file, save_file

from edgeprune.errors import UsageError
from edgeprune.report.document import Report
from edgeprune.verifying import VerifyOrder, verify

FILES = ["baseline-fp32.onnx", "pruned-fp32.onnx", "baseline-int8.onnx", "pruned-int8.onnx"]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """A user's project with a finished run in `run`."""
    tiny = tiny_project(tmp_path_factory.mktemp("finished"))
    given = ("--ratio", "0.5", "--formats", "onnx", "--precisions", "int8", "--no-bench")
    ran = run_forked(*tiny.compress(*given, "--out", str(tiny.folder / "run")))
    assert ran.code == 0, ran.err
    return tiny


@pytest.fixture
def run(project: Tiny, tmp_path: Path) -> Path:
    """A copy of the run, which a test may damage."""
    return Path(shutil.copytree(project.folder / "run", tmp_path / "run"))


def rewrite(path: Path, factor: float) -> None:
    proto = onnx.load(path)
    largest = max(proto.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    values = numpy_helper.to_array(largest) * np.float32(factor)
    largest.CopyFrom(numpy_helper.from_array(values.astype(np.float32), largest.name))
    onnx.save(proto, path)


def failed(ran: Ran) -> str:
    """The message of a run that printed what it found, and then said that it is not good."""
    assert ran.code == 5, ran.out + ran.err
    assert len(ran.err.strip().splitlines()) <= ONE_SCREEN
    assert "Traceback" not in ran.err
    return ran.err[ran.err.index("error: ") :]


def test_a_finished_run_passes_and_is_told_step_by_step(run):
    before = fingerprint(run)
    ran = run_forked("verify", str(run), "--json")
    assert ran.code == 0, ran.err
    assert fingerprint(run) == before
    found, report = json.loads(ran.out), Report.load(run / "report.json")
    assert (found["schema"], found["passed"], found["metric"]) == (1, True, "top1")
    assert report.accuracy is not None
    assert [one["name"] for one in found["models"]] == ["uncut", "cut"]
    assert found["models"][0]["share"] == report.accuracy.uncut.share
    assert report.accuracy.final is not None
    assert found["models"][1]["share"] == report.accuracy.final.share
    assert found["models"][1]["against_uncut"]["max_abs"] > 0
    assert [one["path"] for one in found["files"]] == FILES
    assert found["images"]["scored"] == report.accuracy.images == found["images"]["compared"]
    for now, then in zip(found["files"], report.artifacts, strict=True):
        assert (now["sha256"], now["passed"], now["faults"]) == (then.sha256, True, [])
        assert then.parity is not None
        assert now["parity"]["max_abs"] == pytest.approx(then.parity.max_abs)
        assert now["accuracy"]["images"] == report.accuracy.images
    assert found["files"][2]["tolerance"] == {
        "max_rel": None,
        "near_tie": 0.1,
        "top1_agreement": 0.8,
        "cosine": 0.9,
    }


def test_a_file_that_computes_something_else_ends_with_5_and_the_others_are_judged_all_the_same(run):
    rewrite(run / "pruned-fp32.onnx", 1.01)
    (run / "baseline-int8.onnx").unlink()
    ran = run_forked("verify", str(run))
    message = failed(ran)
    assert "2 of 4 files failed verification" in message
    assert "pruned-fp32.onnx: changed since it was written" in message
    assert "first tensor that diverges: " in message
    assert "layer head" in message
    rows = {line.split()[0]: line for line in ran.out.splitlines() if ".onnx " in line}
    assert {path: "passed" in rows[path] for path in FILES} == dict(zip(FILES, (True, False, False, True), strict=True))
    assert "FAILED baseline-int8.onnx: the file is missing" in ran.out
    assert "of the largest output, 0.0001 is tolerated" in ran.out


def test_a_file_that_was_rewritten_but_computes_the_same_is_said_to_have_changed(run):
    proto = onnx.load(run / "pruned-fp32.onnx")
    proto.doc_string = "rewritten"
    onnx.save(proto, run / "pruned-fp32.onnx")
    found = verify(VerifyOrder(run))
    (one,) = found.failed
    assert one.artifact.parity is not None
    assert one.artifact.parity.passed
    (told,) = one.faults
    assert told.startswith("changed since it was written: its SHA-256 is ")
    assert told.endswith(f"was {one.artifact.sha256}")


@pytest.mark.parametrize(("content", "told"), [(None, "cannot read"), ("{}", "schema"), ("other", "another file")])
def test_a_manifest_that_does_not_tell_of_its_file_is_said(run, content, told):
    manifest = run / "pruned-fp32.onnx.json"
    if content == "other":
        manifest.write_bytes((run / "baseline-fp32.onnx.json").read_bytes())
    elif content is None:
        manifest.unlink()
    else:
        manifest.write_text(content)
    (one,) = verify(VerifyOrder(run)).failed
    assert one.artifact.path == "pruned-fp32.onnx"
    assert len(one.faults) == 1
    assert told in one.faults[0]


def test_a_file_that_cannot_be_run_is_not_scored_and_neither_is_what_is_scored_beside_it(run):
    (run / "baseline-fp32.onnx").write_bytes(b"not a model")
    found = {one.artifact.path: one for one in verify(VerifyOrder(run)).files}
    assert "onnxruntime cannot run it" in found["baseline-fp32.onnx"].faults[1]
    assert found["baseline-fp32.onnx"].artifact.parity is None
    assert found["baseline-fp32.onnx"].divergence is None
    assert [path for path, one in found.items() if one.accuracy] == ["pruned-fp32.onnx", "pruned-int8.onnx"]


def test_other_weights_are_not_those_of_the_files(project, run, tmp_path):
    tensors = {name: one * 1.5 if one.ndim else one for name, one in load_file(project.weights).items()}
    save_file(tensors, tmp_path / "other.safetensors")
    found = verify(VerifyOrder(run, weights=tmp_path / "other.safetensors"))
    assert "baseline-fp32.onnx" in {one.artifact.path for one in found.failed}
    assert "pruned-fp32.onnx" not in {one.artifact.path for one in found.failed}


def test_other_images_are_taken_but_none_that_the_run_was_calibrated_with(project, run, tmp_path):
    mine = np.load(project.data)
    fresh = np.random.default_rng(5).integers(0, 256, (7, 8, 8, 1), dtype=np.uint8)
    np.savez(tmp_path / "more.npz", images=np.concatenate([mine["images"], fresh]))
    found = verify(VerifyOrder(run, data=str(tmp_path / "more.npz")))
    assert found.accuracy.images == 20 + 7  # half of the run's 40 calibrated
    assert found.accuracy.metric == "agreement"
    assert found.source.endswith("more.npz")
    fewer = verify(VerifyOrder(run, data=str(tmp_path / "more.npz"), images=9))
    assert fewer.accuracy.images <= 9


def test_fewer_images_are_the_first_of_the_runs_own(run):
    found = verify(VerifyOrder(run, images=3))
    assert (found.accuracy.images, found.change.images) == (3, 3)


def test_images_without_those_of_the_run_are_taken_with_a_warning(project, run, tmp_path):
    np.savez(tmp_path / "more.npz", images=np.load(project.data)["images"][:12])
    project.data.rename(project.folder / "moved.npz")
    heard = Heard()
    try:
        verify(VerifyOrder(run, data=str(tmp_path / "more.npz")), heard)
    finally:
        (project.folder / "moved.npz").rename(project.data)
    (line,) = heard.lines
    assert line.startswith("warning: whether the run was calibrated with some of")


def test_what_cannot_be_verified_is_a_usage_error(run, project):
    fault(run_here("verify", str(run / "none")), 2, "report.json")
    with pytest.raises(UsageError, match="--images must be at least 1"):
        verify(VerifyOrder(run, images=0))
    project.weights.rename(project.folder / "moved.safetensors")
    try:
        fault(run_here("verify", str(run)), 2, "cannot be loaded again", "--weights")
    finally:
        (project.folder / "moved.safetensors").rename(project.weights)
