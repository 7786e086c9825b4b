"""The whole road to an arm64 board, over real SSH: emulated, so it proves what works and never how fast.

The root folder is built once, in about 40 s, and kept ($EDGEPRUNE_ARM_CACHE, else ~/.cache/edgeprune-tests). The wheels
come by pip, from an index or from its cache.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from arm_board import ArmBoard, missing
from export_nets import COST, SHAPE, Tiny, images_of, model_of
from program_runs import run_here
from report_samples import FULL

from edgeprune.artifact import Artifact
from edgeprune.bench import session
from edgeprune.bench.setup import Installed, clean, set_up
from edgeprune.bench.transport import open_device, pack_worker
from edgeprune.bench.trust import Reason, doubts
from edgeprune.errors import DeviceError
from edgeprune.export.onnx import export_onnx
from edgeprune.export.tflite import export_tflite
from edgeprune.measurement import Measurement
from edgeprune.report.document import Report
from edgeprune.target import load_target

pytestmark = [pytest.mark.arm, pytest.mark.slow, pytest.mark.skipif(bool(missing()), reason=missing() or "-")]


@pytest.fixture(scope="module")
def installed(board) -> Iterator[Installed]:
    yield set_up(board.device, ["onnxruntime", "litert"])
    clean(board.device)
    assert not board.cache.exists()


@pytest.fixture
def bare(board) -> Iterator[ArmBoard]:
    """The board as if it was never set up, whatever ran before."""
    link, aside = board.cache / "venv", board.cache / "aside"
    if link.is_symlink():
        link.rename(aside)
    yield board
    if aside.is_symlink():
        aside.rename(link)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("run")


@pytest.fixture(scope="module")
def files(run) -> list[Artifact]:
    """A network with all that is hard for converters, as ONNX and as TFLite."""
    pytest.importorskip("litert_torch", reason="needs the [tflite] extra", exc_type=ImportError)
    model, target = model_of(Tiny), load_target("rpi4")
    return [
        export_onnx(model, COST, target, "fp32", run / "tiny.onnx"),
        export_tflite(model, COST, target, "fp32", run / "tiny.tflite"),
    ]


def bench(device: str, artifacts: list[Artifact], run: Path, **settings) -> tuple[Measurement, ...]:
    settings = {"rounds": 2, "repeats": 0, "block_seconds": 0.01, **settings}
    with open_device(device) as transport:
        return session.measure(artifacts, run, images_of(), (1,), transport=transport, **settings)


def test_a_board_that_was_not_set_up_says_what_is_missing(bare, files, run):
    with pytest.raises(DeviceError, match="numpy is not installed") as told:
        bench(bare.device, files[:1], run)
    assert told.value.fix == f"edgeprune bench --setup --device {bare.device}"


def test_the_wheels_of_the_board_are_carried_over(installed):
    assert {"numpy", "onnxruntime", "ai_edge_litert"} <= {name.partition("==")[0] for name in installed.packages}
    assert all("aarch64" in name or name.endswith("-any.whl") for name in installed.wheels)
    assert installed.python.endswith("/.cache/edgeprune/venv/bin/python")


def test_onnx_and_tflite_run_and_their_times_are_called_emulated(board, installed, files, run):
    assert files[0].input_shape == SHAPE
    found = bench(board.device, files, run)
    assert [one.runtime for one in found] == ["onnxruntime", "litert"]
    for one in found:
        assert len(one.blocks) == 2
        assert one.device["machine"] == "aarch64"
        assert one.device["cpu"] == "Cortex-A72"
        assert one.device["model"] == "Raspberry Pi 4 Model B Rev 1.5"
        assert one.device["at_start"]["temperature_c"] == 48.2
        assert one.device["emulated"] is True
        assert Reason.EMULATED in {doubt.reason for doubt in doubts(one)}
    assert list(board.cache.glob("run-*")) == []


def test_an_emulator_that_is_not_named_anywhere_is_seen(board, tmp_path):
    pack_worker(tmp_path / "worker.pyz")
    (tmp_path / "job.json").write_text(json.dumps({"schema": session.JOB_SCHEMA, "entries": []}))
    with open_device(board.device) as transport:
        hidden = ["/usr/bin/env", "-i", "PATH=/usr/bin", transport.python, transport.put(tmp_path / "worker.pyz")]
        start, *_ = map(json.loads, transport.run([*hidden, transport.put(tmp_path / "job.json")]))
        assert list(transport.run([*hidden[:3], "/usr/bin/env"])) == ["PATH=/usr/bin\n"]
    assert start["device"]["cpu"] == "Cortex-A72"
    assert start["device"]["emulated"] is True


def test_a_connection_that_is_cut_in_mid_run_costs_no_block(board, installed, files, run):
    cuts = []

    def cut(done: int, total: int) -> None:
        if done == total // 2 and not cuts:
            cuts.append(done)
            board.cut_connections()

    before = board.logins
    (found,) = bench(board.device, files[:1], run, rounds=6, tick=cut)
    assert cuts == [3]
    assert [block.round for block in found.blocks] == list(range(6))
    assert board.logins - before == 2


def test_a_file_that_the_runtime_refuses_is_named(board, installed, files, run):
    (run / "broken.onnx").write_bytes(b"junk")
    with pytest.raises(DeviceError, match=r"onnxruntime cannot run broken\.onnx"):
        bench(board.device, [replace(files[0], path="broken.onnx")], run)


def test_the_bench_command_says_that_it_works_and_never_how_fast(board, installed, files, run):
    folder = run / "finished"
    folder.mkdir()
    for one in files:
        (folder / one.path).write_bytes((run / one.path).read_bytes())
    replace(FULL, artifacts=tuple(files), measurements=(), comparisons=(), devices=()).save(folder)
    np.save(folder / session.INPUTS_NAME, images_of())
    argv = ("bench", str(folder), "--device", board.device, "--threads", "1", "--blocks", "6")
    ran = run_here(*argv)
    assert ran.code == 4
    assert "EMULATED: aarch64 programs on a kernel for x86_64" in ran.err
    assert "trust: EMULATED" in ran.out
    rows = [line.split() for line in ran.out.splitlines() if line.startswith("tiny.")]
    works = ["1", "-", "-", "-", "functional,", "output", "as", "here"]  # threads, p50, p99, speed-up
    assert rows == [["tiny.onnx", *works], ["tiny.tflite", *works]]
    (device,) = json.loads(run_here(*argv, "--json").out)["devices"]
    for row in device["rows"]:
        assert row["functional"] is True
        assert row["device_parity"]["passed"] is True
        assert not [name for name in row if name.endswith("_ms") or name == "samples"]
        assert row["speed_up"] is None
    report = Report.load(folder / "report.json")
    assert (report.measurements, report.comparisons, report.devices) == ((), (), ())
    assert any(line.startswith("EMULATED: the files work on") for line in report.run.warnings)
    assert list(board.cache.glob("run-*")) == []
