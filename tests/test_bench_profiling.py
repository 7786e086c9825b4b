"""What each operator takes: real profiles, and which layer of the model each operator is."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from program_runs import run_here, run_python
from test_bench_session import IMAGES, an_artifact

from edgeprune.artifact import Artifact
from edgeprune.bench.profiling import PROFILES_NAME, attributed, profile
from edgeprune.bench.transport import Local
from edgeprune.bench.work import LayerWork, layers_of, renamed
from edgeprune.benched import JSON_SCHEMA_FILE
from edgeprune.errors import EdgepruneError
from edgeprune.profile import OperatorTime, Profile, append_profiles, load_profiles
from edgeprune.worker import serve
from edgeprune.worker.loaded import UnfitError
from edgeprune.worker.onnx_profile import between_ns
from edgeprune.worker.trtexec import read_profile

GOLDEN = Path(__file__).parent / "golden"


def a_layer(name: str, channels: int, macs: int = 1, kernel: tuple[int, int] = (3, 3)) -> LayerWork:
    return LayerWork(name, macs, 1, (3, channels), (1, channels, 8, 8), (channels, 3, *kernel))


def told(kind: str, ns: float, *shape: int) -> dict:
    return {"name": "fused", "kind": kind, "ns": ns, "place": "CPU", **({"shape": list(shape)} if shape else {})}


def test_a_real_profile_knows_the_layers_their_work_and_their_shares(tmp_path):
    one = an_artifact(tmp_path, "a.onnx", channels=16)
    with Local() as device:
        (found,), refused = profile([one], tmp_path, IMAGES, 1, transport=device, calls=5)
    assert refused == ()
    assert (found.artifact, found.runtime, found.threads, found.calls) == (one.sha256, "onnxruntime", 1, 5)
    layers = [operator for operator in found.operators if operator.layer]
    assert [layer.layer for layer in layers] == ["w0", "w1", "w2"]
    assert [layer.macs for layer in layers] == [32 * 32 * 9 * a * 16 for a in (3, 16, 16)]
    assert layers[1].bytes == 4 * (2 * 16 * 32 * 32 + 9 * 16 * 16)
    assert layers[1].channels == (16, 16)
    assert sum(operator.share for operator in found.operators) == pytest.approx(1)
    assert all(operator.ms > 0 and operator.gflops > 0 for operator in layers)
    assert {operator.place for operator in found.operators} == {"CPUExecutionProvider"}
    assert found.call_ms >= max(operator.ms for operator in found.operators)


def test_profiles_are_kept_line_by_line_and_read_again(tmp_path):
    operator = OperatorTime("fused", "Conv", 0.5, 1.0, "CPU", "w0", 1000, 64, (3, 8), 16)
    one = Profile(
        "a" * 64, "a.onnx", "pruned", "onnx", "fp32", "onnxruntime", "1", 1, 5, 0.6, (operator,), {"cores": 4}
    )
    for _ in range(2):
        append_profiles(tmp_path / PROFILES_NAME, [one])
    with (tmp_path / PROFILES_NAME).open("a") as stream:
        stream.write('{"schema": 1, "torn')
    assert load_profiles(tmp_path / PROFILES_NAME) == (one, one)
    assert one.overhead_ms == pytest.approx(0.1)
    assert operator.gflops == pytest.approx(2 * 1000 / 0.5e6)


@pytest.mark.parametrize("line", ["[]", "{}", '{"schema": 9}', '{"schema": 1}', "junk"])
def test_a_line_that_is_no_profile_is_named(tmp_path, line):
    (tmp_path / PROFILES_NAME).write_text(line + "\n")
    with pytest.raises(EdgepruneError) as caught:
        load_profiles(tmp_path / PROFILES_NAME)
    assert str(caught.value.where).endswith("profiles.jsonl:1")


def test_operators_are_the_layers_of_their_output_shape_in_order_padding_allowed():
    operators = [told("Conv", 2, 1, 16, 8, 8), told("ReorderOutput", 1, 1, 16, 8, 8), told("FusedConv", 5, 1, 48, 8, 8)]
    found = attributed(operators, [a_layer("narrow", 16), a_layer("wide", 40)])
    assert [(one.layer, one.share, one.widths) for one in found] == [
        ("narrow", 0.25, 16),
        ("", 0.125, 0),
        ("wide", 0.625, 48),
    ]


def test_branches_that_run_in_another_order_than_they_are_written_are_told_apart_by_shape():
    operators = [told("Conv", 1, 1, 32, 8, 8), told("Conv", 1, 1, 8, 8, 8)]
    assert [one.layer for one in attributed(operators, [a_layer("a", 8), a_layer("b", 32)])] == ["b", "a"]


def test_branches_that_put_out_the_same_shape_are_told_apart_by_their_kernels():
    """A residual block with a shortcut of its own: the runtime computes that one first."""
    layers = [a_layer("conv2", 8), a_layer("shortcut", 8, kernel=(1, 1)), a_layer("next", 8)]
    shortcut, conv2, after = (told("Conv", ms, 1, 8, 8, 8) for ms in (1, 9, 9))
    shortcut["weights"], conv2["weights"] = [8, 3, 1, 1], [8, 16, 3, 3]  # channels in are padded to a vector's
    after["weights"] = [8]  # the weights were packed before: what it says is the bias
    found = attributed([shortcut, conv2, after], layers)
    assert [one.layer for one in found] == ["shortcut", "conv2", "next"]


def test_without_shapes_layers_are_told_by_their_order_or_not_at_all():
    operators = [
        told("Convolution (NHWC, F32) IGEMM", 1),
        told("Add (ND)", 1),
        told("Fully Connected (NC, F32) GEMM", 1),
    ]
    two = [a_layer("a", 8), a_layer("b", 8)]
    assert [one.layer for one in attributed(operators, two)] == ["a", "", "b"]
    assert [one.layer for one in attributed(operators, two[:1])] == ["", "", ""]


def test_a_file_of_the_other_format_lends_its_names_where_it_does_the_same_work():
    mine, theirs = [a_layer("conv_2d 0", 8, 5)], [a_layer("stem.conv", 8, 5)]
    assert [one.name for one in renamed(mine, theirs)] == ["stem.conv"]
    assert renamed(mine, [replace(theirs[0], macs=6)]) == tuple(mine)


def test_trtexec_says_what_each_layer_takes_with_or_without_a_median():
    text = json.dumps([{"count": 50}, {"name": "conv + relu", "timeMs": 5, "averageMs": 0.1, "medianMs": 0.09}])
    assert read_profile(text) == [{"name": "conv + relu", "kind": "", "ns": pytest.approx(9e4), "place": "TensorRT"}]
    assert read_profile('[{"count": 1}, {"name": "a", "averageMs": 0.1}]')[0]["ns"] == pytest.approx(1e5)


def test_a_runtime_without_a_profiler_says_so(tmp_path):
    with pytest.raises(UnfitError, match="litert-gpu's Python package offers no profile") as caught:
        serve.profile("a.tflite", "litert-gpu", 1, "inputs.npy", "NHWC", 5)
    assert "--profile" in caught.value.fix


@pytest.mark.slow
def test_the_command_prints_the_profile_beside_the_times(tmp_path):
    for name, channels in (("a.onnx", 16), ("b.onnx", 8)):
        an_artifact(tmp_path, name, channels=channels)
    files = [str(tmp_path / "a.onnx"), str(tmp_path / "b.onnx")]
    options = ("--profile", "--blocks", "6", "--threads", "1", "--out", str(tmp_path / "out"))
    ran = run_here("bench", *files, *options, "--json")
    document = json.loads(ran.out)
    jsonschema.validate(document, json.loads(JSON_SCHEMA_FILE.read_text()))
    (device,) = document["devices"]
    assert [Path(one["path"]).name for one in device["profiles"]] == ["a.onnx", "b.onnx"]
    assert len(load_profiles(tmp_path / "out" / PROFILES_NAME)) == 2
    assert len(json.loads((tmp_path / "out" / "bench.json").read_text())["explanations"]) == 1
    shown = run_here("bench", *files, *options).out
    assert "b.onnx beside a.onnx (onnxruntime, 1 thread), profiled" in shown
    assert "w1" in shown


def test_what_other_programs_take_from_an_operator_is_not_the_runtimes_own_work():
    """Every call is disturbed, each in another operator: 10 us between operators are still 10 us."""
    calls, operators = [], []
    for call in range(6):
        begin, disturbed = 10_000 * call, call % 3
        times = [100 + 5000 * (at == disturbed) for at in range(3)]
        calls.append({"ts": begin, "dur": sum(times) + 10})
        operators += [{"ts": begin + sum(times[:at]), "dur": took} for at, took in enumerate(times)]
    assert between_ns(calls, operators) == 10e3


def test_the_layers_of_a_quantised_file_are_found_in_what_onnxruntime_makes_of_it(tmp_path):
    """It fuses dequantise, convolve, quantise into one operator, in another layout and without telling the weights."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Photos(CalibrationDataReader):
        def __init__(self) -> None:
            self.feeds = iter([{"t0": image[None]} for image in IMAGES])

        def get_next(self):
            return next(self.feeds, None)

    one = an_artifact(tmp_path, "a.onnx", channels=16)
    formats = {"quant_format": QuantFormat.QDQ, "activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
    quantize_static(tmp_path / "a.onnx", tmp_path / "q.onnx", Photos(), per_channel=True, **formats)
    with Local() as device:
        (found,), _ = profile([replace(one, path="q.onnx")], tmp_path, IMAGES, 1, transport=device, calls=5)
    layers = [operator for operator in found.operators if operator.layer]
    assert {layer.kind for layer in layers} == {"QLinearConv"}
    assert [layer.layer for layer in layers] == ["w0", "w1", "w2"]
    assert [layer.macs for layer in layers] == [32 * 32 * 9 * a * 16 for a in (3, 16, 16)]
    assert layers[1].bytes == 2 * 16 * 32 * 32 + 9 * 16 * 16, "one byte a number"


ASK_THREADS = """
import os, sys
import numpy as np
from edgeprune.worker.litert_profile import profile_litert
image = np.zeros((1, 8, 8, 1), np.float32)
for threads in (1, 3):
    before = len(os.listdir("/proc/self/task"))
    profile_litert(sys.argv[1], threads, image, 2)
    print("started", len(os.listdir("/proc/self/task")) - before)
"""


@pytest.mark.slow
def test_the_demo_network_is_profiled_in_both_runtimes(tmp_path):
    pytest.importorskip("litert_torch")
    assert run_here("compress", "digits", "--formats", "onnx,tflite", "--no-bench", "--out", str(tmp_path)).code == 0
    files = [Artifact.load_manifest(path) for path in sorted(tmp_path.glob("*-fp32.*.json"))]
    images = np.load(tmp_path / "inputs.npy")
    with Local() as device:
        found, refused = profile(files, tmp_path, images, 1, transport=device, calls=20)
    assert (len(found), refused) == (4, ())
    layers = {(one.role, one.format): [op.layer for op in one.operators if op.layer] for one in found}
    assert len(set(map(tuple, layers.values()))) == 1, "the same layers, by the same names, in both formats and roles"
    assert "blocks.0.conv1" in layers["pruned", "tflite"]
    for one, artifact in zip(found, files, strict=True):
        assert sum(layer.macs for layer in layers_of(tmp_path / artifact.path)) == artifact.macs
        assert sum(op.macs for op in one.operators) == artifact.macs
    ran = run_python(["-c", ASK_THREADS, str(tmp_path / "pruned-fp32.tflite")])
    assert [line for line in ran.out.splitlines() if line.startswith("started")] == ["started 0", "started 2"]
