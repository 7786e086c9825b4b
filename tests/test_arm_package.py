"""A bundle on an arm64 board: copied over SSH, installed there without a network, run. Emulated, so never timed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from arm_board import ArmBoard, missing
from package_runs import a_run
from PIL import Image
from program_runs import run_here

from edgeprune.packaging import PackageOrder, package

pytestmark = [pytest.mark.arm, pytest.mark.slow, pytest.mark.skipif(bool(missing()), reason=missing() or "-")]
_INSTALL_SECONDS = 400


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    pytest.importorskip("litert_torch", reason="needs the [tflite] extra", exc_type=ImportError)
    return a_run(tmp_path_factory.mktemp("package") / "run", tflite=True)


def on_board(board: ArmBoard, *argv: str) -> subprocess.CompletedProcess:
    command = ["ssh", "-p", str(board.port), "root@127.0.0.1", *argv]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=_INSTALL_SECONDS)


@pytest.mark.parametrize("name", ["pruned-fp32.onnx", "pruned-fp32.tflite"])
def test_a_bundle_is_installed_offline_and_computes_what_the_host_computes(board, run, tmp_path, name):
    made = package(PackageOrder(run, "rpi4", artifact=name, out=tmp_path / f"bundle-{os.getpid()}"))
    Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(tmp_path / "photo.jpg")
    there = board.home / made.place.name
    try:
        client = str(board.folder / "bin" / "ssh")
        copy = ["scp", "-q", "-r", "-S", client, "-P", str(board.port), made.place, tmp_path / "photo.jpg"]
        subprocess.run([*copy, "root@127.0.0.1:"], check=True, timeout=100)
        ran = on_board(board, "unshare", "--net", f"./{there.name}/run.sh", "check", "--json")
        assert ran.returncode == 0, ran.stderr
        told = json.loads(ran.stdout)
        assert told["passed"] is True
        assert told["max_rel"] < 1e-5
        if name.endswith(".tflite"):  # what follows is the same for both
            return
        ran = on_board(board, f"./{there.name}/run.sh")
        assert ran.returncode == 4, ran.stderr
        assert "installing" not in ran.stderr
        assert "Raspberry Pi 4 Model B Rev 1.5, Cortex-A72, 4 cores" in ran.stdout
        assert ran.stdout.endswith("functional, not timed\n")
        ran = on_board(board, f"./{there.name}/run.sh", "infer", "photo.jpg")
        assert len(ran.stdout.splitlines()) == 5, ran.stderr
    finally:
        shutil.rmtree(there, ignore_errors=True)
        (board.home / "photo.jpg").unlink(missing_ok=True)


def test_a_run_is_benched_with_the_wheels_of_its_bundle_and_no_index_is_asked(board, run, tmp_path, monkeypatch):
    made = package(PackageOrder(run, "rpi4", out=tmp_path / "bundle"))
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    to_board = ("--device", board.device, "--runtime", "onnxruntime")
    ran = run_here(
        "bench", str(run), *to_board, "--setup", "--wheels", str(made.place), "--threads", "1", "--blocks", "6"
    )
    try:
        assert ran.code == 4, ran.err
        assert "EMULATED" in ran.err
        rows = [line.split() for line in ran.out.splitlines() if ".onnx" in line]
        assert [row[0] for row in rows] == ["baseline-fp32.onnx", "pruned-fp32.onnx"]
        assert all(row[-4:] == ["functional,", "output", "as", "here"] for row in rows)
    finally:
        run_here("bench", "--clean", *to_board)
