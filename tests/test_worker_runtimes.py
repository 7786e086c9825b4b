"""A runtime counts only if it says itself that it executed the file where it was asked to."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import onnxruntime
import onnxruntime.datasets
import pytest
from program_runs import run_here
from test_bench_session import IMAGES, an_artifact, bench

from edgeprune.artifact import RUNTIME_OF_FORMAT
from edgeprune.bench.entries import entries, runtimes_of
from edgeprune.bench.session import LOG_NAME
from edgeprune.benching import Order
from edgeprune.errors import DeviceError, UsageError
from edgeprune.measurement import load_measurements
from edgeprune.worker import litert
from edgeprune.worker.loaded import UnfitError
from edgeprune.worker.onnx_session import CPU, load_onnxruntime, node_events, placed
from edgeprune.worker.runtimes import RUNTIMES

SWIFTSHADER = Path("/usr/lib/chromium/vk_swiftshader_icd.json")
"""A Vulkan driver that computes on the CPU; comes with Chromium."""
PROVIDERS = {
    "onnxruntime-xnnpack": "XnnpackExecutionProvider",
    "onnxruntime-cuda": "CUDAExecutionProvider",
    "onnxruntime-tensorrt": "TensorrtExecutionProvider",
}


def test_the_default_of_each_format_is_its_first_runtime():
    firsts = {runtime.format: name for name, runtime in reversed(RUNTIMES.items())}
    assert firsts == RUNTIME_OF_FORMAT


def test_a_file_is_measured_in_every_named_runtime_that_reads_it(tmp_path):
    one = an_artifact(tmp_path, "a.onnx")
    assert runtimes_of(one, ()) == ("onnxruntime",)
    assert runtimes_of(one, ("litert", "onnxruntime-cuda", "onnxruntime")) == ("onnxruntime-cuda", "onnxruntime")
    assert runtimes_of(one, ("litert",)) == ()


def test_threads_are_varied_only_where_they_change_something(tmp_path):
    found = entries([an_artifact(tmp_path, "a.onnx")], ("onnxruntime", "onnxruntime-cuda"), (1, 4))
    assert [(one.runtime, one.threads) for one in found] == [
        ("onnxruntime", 1),
        ("onnxruntime-cuda", 1),
        ("onnxruntime", 4),
    ]
    assert len({one.id for one in found}) == 3


def test_a_runtime_nobody_knows_is_refused_with_the_nearest():
    with pytest.raises(UsageError, match="onnxruntime-cuda"):
        Order((Path("a.onnx"),), runtimes=("onnxruntime-cudda",)).check()


@pytest.mark.parametrize("runtime", PROVIDERS)
def test_a_provider_executes_operators_or_is_refused_by_name(tmp_path, runtime):
    provider = PROVIDERS[runtime]
    one = an_artifact(tmp_path, "a.onnx")
    if provider in held(provider):
        (found,) = bench([one], tmp_path, runtimes=(runtime,))
        assert found.placement[provider] > 0
        return
    with pytest.raises(DeviceError) as caught:
        bench([one], tmp_path, runtimes=(runtime,))
    for said in (runtime, provider, CPU):
        assert said in caught.value.what
    assert "It takes" in caught.value.fix
    assert not load_measurements(tmp_path / LOG_NAME)


def held(provider: str) -> list[str]:
    """What a session really has, on this machine, when it is asked for a provider."""
    if provider not in onnxruntime.get_available_providers():
        return []
    return onnxruntime.InferenceSession(
        onnxruntime.datasets.get_example("mul_1.onnx"), providers=[provider, CPU]
    ).get_providers()


def test_where_operators_were_executed_is_kept_with_the_measurement(tmp_path):
    bench([an_artifact(tmp_path, "a.onnx")], tmp_path)
    (found,) = load_measurements(tmp_path / LOG_NAME)
    assert found.placement == {CPU: 1.0}


def real_profile(folder: Path) -> list[dict]:
    """What onnxruntime says of two calls of three convolutions."""
    options = onnxruntime.SessionOptions()
    options.enable_profiling = True
    options.profile_file_prefix = str(folder / "profile")
    session = onnxruntime.InferenceSession(a_file(folder), options, providers=[CPU])
    for _ in range(2):
        session.run(None, {"t0": IMAGES[:1]})
    return node_events(Path(session.end_profiling()))


def a_file(folder: Path) -> str:
    an_artifact(folder, "a.onnx")
    return str(folder / "a.onnx")


def test_the_placement_is_read_from_what_onnxruntime_itself_wrote(tmp_path):
    events = real_profile(tmp_path)
    assert placed(events, CPU) == {CPU: 1.0}
    with pytest.raises(UnfitError, match=f"CUDAExecutionProvider executed none .*: {len(events)} by {CPU}"):
        placed(events, "CUDAExecutionProvider")


def test_a_share_of_the_operators_is_enough_and_is_said(tmp_path):
    events = real_profile(tmp_path)
    for event in events[: len(events) // 4]:
        event["args"]["provider"] = "CUDAExecutionProvider"
    share = len(events) // 4 / len(events)
    assert placed(events, "CUDAExecutionProvider")["CUDAExecutionProvider"] == pytest.approx(share)


def test_the_profile_leaves_no_file_behind(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    model = load_onnxruntime(a_file(tmp_path), 1)
    model.run(model.prepare(IMAGES[:1]))
    assert model.placement() == {CPU: 1.0}
    assert [path.name for path in tmp_path.iterdir()] == ["a.onnx"]


def test_without_a_gpu_litert_gpu_is_refused(monkeypatch):
    pytest.importorskip("ai_edge_litert")
    monkeypatch.setattr(litert, "GPU_DEVICES", ("no-such-device",))
    with pytest.raises(UnfitError, match="no GPU device") as caught:
        litert.load_litert_gpu("a.tflite", 1)
    assert "litert-gpu" in caught.value.fix


ON_SWIFTSHADER = """
import sys
import numpy as np
from edgeprune.worker import litert
litert.GPU_DEVICES = ("null",)
image = np.random.default_rng(0).random((1, 8, 8, 1), dtype=np.float32)
outputs = []
for load in (litert.load_litert, litert.load_litert_gpu):
    model = load(sys.argv[1], 1)
    outputs.append(model.run(model.prepare(image)))
    print(dict(model.placement()))
print(np.abs(outputs[0] - outputs[1]).max() / np.abs(outputs[0]).max())
"""


@pytest.mark.slow
@pytest.mark.skipif(not SWIFTSHADER.exists(), reason="needs the Vulkan driver that comes with Chromium")
def test_litert_gpu_computes_the_same_through_vulkan(tmp_path):
    pytest.importorskip("litert_torch")
    assert run_here("compress", "digits", "--formats", "tflite", "--no-bench", "--out", str(tmp_path / "run")).code == 0
    variables = {"VK_ICD_FILENAMES": str(SWIFTSHADER), "VK_DRIVER_FILES": str(SWIFTSHADER)}
    done = subprocess.run(
        [sys.executable, "-c", ON_SWIFTSHADER, str(tmp_path / "run" / "pruned-fp32.tflite")],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if "libvulkan.so.1: cannot open" in done.stderr:
        pytest.skip("needs the Vulkan loader")
    *said, difference = done.stdout.splitlines()  # LiteRT says things of its own, too
    assert [line for line in said if line.startswith("{")] == ["{'CPU': 1.0}", "{'GPU': 1.0}"]
    assert float(difference) < 1e-2
