"""TensorRT by trtexec: what is read of its files, and a whole run with a stand-in for the program of the board."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from test_bench_session import IMAGES, an_artifact, bench

from edgeprune.bench.reference import host_outputs
from edgeprune.errors import DeviceError
from edgeprune.worker import trtexec
from edgeprune.worker.loaded import UnfitError
from edgeprune.worker.onnx_header import Header, read_header

HERE = Path(__file__).parent
GOLDEN = HERE / "golden" / "trtexec"


@pytest.fixture
def stand_in(tmp_path, monkeypatch) -> Path:
    """A folder on PATH with a trtexec of version 8.2.1 that is none, and a home of its own."""
    programs = tmp_path / "programs"
    programs.mkdir()
    shutil.copy(HERE / "stand_in_trtexec.py", programs / "stand_in.py")
    program = programs / "trtexec"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} {programs}/stand_in.py 8201 "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return programs


def calls(programs: Path) -> list[str]:
    return (programs / "calls.txt").read_text().splitlines()


def test_times_are_those_of_the_whole_way_in_nanoseconds():
    assert trtexec.read_times((GOLDEN / "times.json").read_text()) == [2620610, 2607420]


def test_the_output_asked_for_is_read_with_its_shape():
    found = trtexec.read_output((GOLDEN / "output.json").read_text(), "logits")
    assert found.shape == (1, 2, 3)
    assert found.ravel().tolist() == [np.float32(x) for x in (0.5, -1.25, 3e-5, 4, 5, 6)]


@pytest.mark.parametrize(
    ("said", "release"), [("8201", (8, 2, 1)), ("8602", (8, 6, 2)), ("100300", (10, 3, 0)), ("110401", (11, 4, 1))]
)
def test_the_version_is_read_from_the_first_line(said, release):
    assert trtexec.version(f"&&&& RUNNING TensorRT.trtexec [TensorRT v{said}] # trtexec --help") == release


def test_a_program_that_says_no_version_is_no_trtexec():
    with pytest.raises(UnfitError, match="does not say its version"):
        trtexec.version("usage: something else")


def test_the_header_of_a_file_is_read_without_the_onnx_package(tmp_path):
    an_artifact(tmp_path, "a.onnx")
    assert read_header(str(tmp_path / "a.onnx")) == Header("t0", (1, 3, 32, 32), True, "t3", False, False)


@pytest.mark.parametrize("junk", [b"", b"junk", b"\x3a\xff\xff\xff\x7f", bytes(range(256))])
def test_what_is_no_onnx_file_is_named(tmp_path, junk):
    (tmp_path / "a.onnx").write_bytes(junk)
    with pytest.raises(ValueError, match="is no ONNX file"):
        read_header(str(tmp_path / "a.onnx"))


def test_older_versions_are_told_the_files_own_precision_and_newer_ones_read_it():
    half = Header("x", (1,), False, "y", True, True)
    assert trtexec._precision_flags(half, (10, 3, 0)) == ["--fp16", "--int8"]
    assert trtexec._precision_flags(half, (11, 0, 0)) == []
    assert trtexec._precision_flags(Header("x", (1,), False, "y", False, False), (8, 2, 1)) == []


def test_a_run_is_timed_by_the_program_in_turns_and_compared_with_the_host(tmp_path, stand_in):
    pair = [an_artifact(tmp_path, "base.onnx"), an_artifact(tmp_path, "cut.onnx", role="pruned", channels=4)]
    references = host_outputs(pair, tmp_path, IMAGES)
    found = bench(pair, tmp_path, (1, 2), runtimes=("tensorrt",), references=references)
    assert [(one.path, one.runtime, one.runtime_version, one.threads) for one in found] == [
        ("base.onnx", "tensorrt", "8.2.1", 1),
        ("cut.onnx", "tensorrt", "8.2.1", 1),
    ]
    for one in found:
        assert one.placement == {"TensorRT": 1.0}
        assert one.parity["passed"]
        assert [len(block.samples_ns) >= 3 for block in one.blocks] == [True, True]
        assert one.peak_rss_bytes > 1 << 20
        assert one.warm_up["calls"] >= 10
    timed = [call.split()[0] for call in calls(stand_in) if "--exportTimes" in call]
    assert len(timed) == 6, "a warm-up and two blocks of each"
    assert len(set(timed)) == 2
    built = [call for call in calls(stand_in) if "--onnx" in call]
    assert all("--shapes=t0:1x3x32x32" in call for call in built)


def test_an_engine_is_built_once_and_kept(tmp_path, stand_in):
    one = an_artifact(tmp_path, "base.onnx")
    for _ in range(2):
        bench([one], tmp_path, runtimes=("tensorrt",))
    assert sum("--onnx" in call for call in calls(stand_in)) == 1
    (engine,) = (tmp_path / "home" / ".cache" / "edgeprune" / "engines").iterdir()
    assert engine.name.endswith("-tensorrt-8.2.1.engine")


def test_what_it_refuses_is_said_in_its_own_words_and_leaves_no_engine(tmp_path, stand_in):
    one = an_artifact(tmp_path, "base.onnx")
    (stand_in / "trtexec").write_text(
        '#!/bin/sh\necho "&&&& RUNNING TensorRT.trtexec [TensorRT v8201]"\n[ "$1" = --help ] && exit 0\n'
        'echo "[11/21/2026-12:00:00] [E] Error[3]: no kernel for node conv"\nexit 1\n'
    )
    with pytest.raises(DeviceError) as caught:
        bench([one], tmp_path, runtimes=("tensorrt",))
    assert "tensorrt cannot run base.onnx: trtexec cannot build the engine (exit code 1)" in caught.value.what
    assert "no kernel for node conv" in caught.value.what
    assert "--onnx=" in caught.value.fix
    assert not list((tmp_path / "home" / ".cache" / "edgeprune" / "engines").iterdir())


def test_without_the_program_it_is_a_missing_runtime(tmp_path, monkeypatch):
    monkeypatch.setattr(trtexec, "PLACES", ())
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UnfitError, match="no trtexec"):
        trtexec.load_trtexec("a.onnx", 1)
    with pytest.raises(DeviceError, match="trtexec is not installed on local") as caught:
        bench([an_artifact(tmp_path, "base.onnx")], tmp_path, runtimes=("tensorrt",))
    assert "JetPack" in caught.value.fix
