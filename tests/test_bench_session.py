"""A bench run from artifacts to measurements, on this machine and with real runtimes."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgeprune.artifact import Artifact
from edgeprune.bench import session
from edgeprune.bench.compare import compare
from edgeprune.bench.session import LOG_NAME, measure
from edgeprune.bench.transport import Local
from edgeprune.errors import DataError, DeviceError, MissingExtraError
from edgeprune.files import sha256_of
from edgeprune.measurement import load_measurements

DATA = Path(os.environ.get("EDGEPRUNE_DATA", "../shared/data"))
IMAGES = np.random.default_rng(0).random((3, 3, 32, 32), dtype=np.float32)


def an_artifact(run: Path, name: str, *, role: str = "baseline", channels: int = 8) -> Artifact:
    """Three convolutions; `channels` sets the work."""
    rng = np.random.default_rng(0)
    widths = [3, channels, channels, channels]
    weights = [rng.standard_normal((widths[i + 1], widths[i], 3, 3)).astype(np.float32) for i in range(3)]
    tensors = [onnx.numpy_helper.from_array(w, f"w{i}") for i, w in enumerate(weights)]
    nodes = [helper.make_node("Conv", [f"t{i}", f"w{i}"], [f"t{i + 1}"], pads=[1] * 4) for i in range(3)]
    source = helper.make_tensor_value_info("t0", TensorProto.FLOAT, ["N", 3, 32, 32])
    sink = helper.make_tensor_value_info("t3", TensorProto.FLOAT, ["N", channels, 32, 32])
    graph = helper.make_graph(nodes, "net", [source], [sink], tensors)
    path = run / name
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), path)
    return Artifact(name, sha256_of(path), path.stat().st_size, role, "onnx", "fp32", (3, 32, 32), "NCHW", 1, 1)


def bench(artifacts: Sequence[Artifact], run: Path, threads=(1,), transport=None, **settings):
    settings = {"rounds": 2, "repeats": 0, "block_seconds": 0.005, **settings}
    with transport or Local() as device:
        return measure(artifacts, run, IMAGES, threads, transport=device, **settings)


@pytest.fixture
def pair(tmp_path) -> list[Artifact]:
    return [
        an_artifact(tmp_path, "base.onnx", channels=64),
        an_artifact(tmp_path, "cut.onnx", role="pruned", channels=16),
    ]


def test_each_block_has_a_process_of_its_own_but_under_sustained_load(pair, tmp_path, monkeypatch):
    jobs = []
    monkeypatch.setattr(session, "FRESH", True)
    monkeypatch.setattr(session, "events_of", lambda transport, argv: (event for event in ()))
    monkeypatch.setattr(session, "carried", lambda job, *rest: jobs.append(job) or [])
    bench(pair, tmp_path)
    bench(pair, tmp_path, sustained_s=1.0)
    assert [job["fresh"] for job in jobs] == [True, False]


def test_each_artifact_is_measured_at_each_thread_count(pair, tmp_path):
    ticks = []
    found = bench(pair, tmp_path, (1, 2), tick=lambda done, total: ticks.append((done, total)))
    assert [(one.path, one.threads) for one in found] == [
        ("base.onnx", 1),
        ("cut.onnx", 1),
        ("base.onnx", 2),
        ("cut.onnx", 2),
    ]
    assert list(dict.fromkeys(ticks)) == [(done, 8) for done in range(9)]
    for one in found:
        assert [block.round for block in one.blocks] == [0, 1]
        assert one.artifact == sha256_of(tmp_path / one.path)
        assert one.p50_ms > 0
        assert one.peak_rss_bytes > 1 << 20
        assert one.device["cores"] >= 1
    assert len({one.session for one in found}) == 1


def test_what_is_returned_is_what_is_on_the_disk(pair, tmp_path):
    found = bench(pair, tmp_path)
    assert load_measurements(tmp_path / LOG_NAME) == found


def test_a_much_smaller_file_takes_less_time(pair, tmp_path):
    uncut, cut = bench(pair, tmp_path, rounds=8, block_seconds=0.02)
    # A busy machine taints blocks, and may leave too few to compare; the best block of each is hardly touched by it.
    assert min(block.median_ns for block in uncut.blocks) > 2 * min(block.median_ns for block in cut.blocks)
    assert {(one.baseline, one.candidate) for one in compare((uncut, cut))} <= {("base.onnx", "cut.onnx")}


def test_a_broken_file_is_an_error_that_names_it_and_keeps_no_process(pair, tmp_path):
    (tmp_path / "cut.onnx").write_bytes(b"junk")
    with pytest.raises(DeviceError, match=r"onnxruntime cannot run cut\.onnx"):
        bench(pair, tmp_path)


def test_images_of_another_shape_are_refused_before_anything_starts(pair, tmp_path):
    with Local() as device, pytest.raises(DataError, match=r"\[3, 32, 32\]"):
        measure(pair, tmp_path, IMAGES[:, :, :8], (1,), transport=device)
    with Local() as device, pytest.raises(DataError, match="float32"):
        measure(pair, tmp_path, IMAGES.astype(np.float64), (1,), transport=device)
    assert not (tmp_path / LOG_NAME).exists()


class InterruptionError(Exception):
    pass


def test_an_interrupted_run_keeps_its_blocks(pair, tmp_path):
    def stop(done: int, total: int) -> None:
        if done == 3:
            raise InterruptionError

    with pytest.raises(InterruptionError):
        bench(pair, tmp_path, rounds=50, tick=stop)
    assert sum(len(one.blocks) for one in load_measurements(tmp_path / LOG_NAME)) == 3


class Scripted(Local):
    """A device that says what it is told to say."""

    def __init__(self, *lines: dict | str, name: str = "local") -> None:
        self.name = name
        self._lines = [line if isinstance(line, str) else json.dumps(line) for line in lines]

    def run(self, argv):
        yield from self._lines


START = {"event": "start", "schema": 1, "device": {}}


def missing(runtime: str) -> dict:
    return {"event": "error", "entry": "base.onnx@1", "reason": f"{runtime} is not installed", "missing": runtime}


def test_a_missing_extra_on_this_machine_names_it(pair, tmp_path):
    with pytest.raises(MissingExtraError, match=r"pip install 'edgeprune\[tflite\]'"):
        bench(pair, tmp_path, transport=Scripted(START, missing("litert")))


def test_a_missing_runtime_on_a_board_says_what_to_install_there(pair, tmp_path):
    with pytest.raises(DeviceError, match="edgeprune bench --setup --device ssh://pi@board") as told:
        bench(pair, tmp_path, transport=Scripted(START, missing("litert"), name="ssh://pi@board"))
    assert "ssh://pi@board" in str(told.value)


@pytest.mark.parametrize("line", ["Segmentation fault", "[1]", '{"no": "event"}'])
def test_talk_that_is_no_event_is_an_error(pair, tmp_path, line):
    with pytest.raises(DeviceError, match="no event"):
        bench(pair, tmp_path, transport=Scripted(START, line))


def test_a_worker_that_stops_early_is_an_error(pair, tmp_path):
    with pytest.raises(DeviceError, match="before its work was done"):
        bench(pair, tmp_path, transport=Scripted(START))


def a_ready(name: str, stable: bool = True) -> dict:
    told = {"calls": 9, "seconds": 5.0, "stable": stable}
    return {
        "event": "ready",
        "entry": name,
        "warm_up": told,
        "load_ns": 1,
        "first_ns": 1,
        "runtime_version": "1",
        "output_sha256": "0",
    }


def test_what_makes_times_doubtful_is_kept_with_them(tmp_path):
    start = {**START, "device": {"governor": "powersave", "cores": 2}}
    one = an_artifact(tmp_path, "base.onnx")
    device = Scripted(start, a_ready("base.onnx@4", stable=False), {"event": "end"})
    (found,) = bench([one], tmp_path, (4,), transport=device)
    assert (found.device["governor"], found.device["cores"], found.threads) == ("powersave", 2, 4)
    assert found.warm_up["stable"] is False


def test_energy_is_kept_with_the_measurement_it_is_of(tmp_path):
    told = {"event": "energy", "entry": "base.onnx@1", "unavailable": "no sensor"}
    block = {"event": "block", "entry": "base.onnx@1", "round": 0, "order": 0, "started_s": 1.0, "sensors": {}}
    block |= {"samples_ns": [1, 1, 1], "peak_rss_bytes": 1}
    device = Scripted(START, a_ready("base.onnx@1"), block, told, {"event": "end"})
    (found,) = bench([an_artifact(tmp_path, "base.onnx")], tmp_path, transport=device, energy=True)
    assert found.energy == {"unavailable": "no sensor"}
    assert load_measurements(tmp_path / LOG_NAME) == (found,)


def test_under_sustained_load_the_files_take_turns_for_six_rounds_at_least(pair, tmp_path, monkeypatch):
    monkeypatch.setattr(session, "SUSTAINED_BLOCK_SECONDS", 0.005)
    found = bench(pair, tmp_path, sustained_s=0.01)
    assert [one.sustained for one in found] == [True, True]
    assert [block.round for block in found[0].blocks] == list(range(6))
    assert load_measurements(tmp_path / LOG_NAME) == found
    order = sorted((block.started_s, one.path) for one in found for block in one.blocks)
    rounds = [{path for _, path in order[at : at + 2]} for at in range(0, 12, 2)]
    assert rounds == [{"base.onnx", "cut.onnx"}] * 6


def test_a_file_can_be_measured_against_itself(tmp_path):
    one = an_artifact(tmp_path, "base.onnx")
    first, second = bench([one, one], tmp_path)
    assert (first.artifact, len(first.blocks)) == (second.artifact, len(second.blocks))
    assert first.blocks != second.blocks


@pytest.mark.data
@pytest.mark.skipif(not DATA.is_dir(), reason="EDGEPRUNE_DATA is not there")
def test_a_published_tflite_file_runs_in_litert(tmp_path):
    pytest.importorskip("ai_edge_litert", reason="the tflite extra is not installed")
    source = DATA / "tf2_mobilenet_v2_1.0_224_ptq.tflite"
    (tmp_path / source.name).symlink_to(source.resolve())
    one = Artifact(source.name, sha256_of(source), 1, "baseline", "tflite", "int8", (3, 224, 224), "NHWC", 1, 1)
    images = np.random.default_rng(0).uniform(-1, 1, (2, 3, 224, 224)).astype(np.float32)
    with Local() as device:
        (found,) = measure([one], tmp_path, images, (1,), transport=device, rounds=1, repeats=0, block_seconds=0.01)
    assert found.runtime == "litert"
    assert len(found.samples_ns) >= 3
