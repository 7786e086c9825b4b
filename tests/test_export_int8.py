"""ONNX in int8: quantised per channel, calibrated by what suits best, of the board's own kind."""

from __future__ import annotations

import errno
import subprocess
import sys
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
from export_nets import COST, SHAPE, Several, Tiny, images_of, model_of, outputs_of
from onnx import TensorProto
from torch import Tensor, nn
from torch.nn import functional

from edgeprune.errors import ExportError, UsageError
from edgeprune.export import onnx_int8, parity
from edgeprune.export.calibration import calibration_of
from edgeprune.export.onnx import export_onnx
from edgeprune.export.onnx_int8 import METHODS, Activations, activations_for
from edgeprune.export.onnx_run import optimised, session_of
from edgeprune.target import load_target

ARM = load_target("rpi4")
CALIBRATION = calibration_of(images_of(32))


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "ein Ordner" / "größe 8.onnx"
    model = model_of(Tiny)
    return model, export_onnx(model, COST, ARM, "int8", out, CALIBRATION), out


def test_the_checker_takes_the_file_and_it_passes_parity(written):
    model, artifact, out = written
    onnx.checker.check_model(onnx.load(out), full_check=True)
    checked = parity.check(artifact, out.parent, model, images_of(64)[32:])
    assert checked.parity.cosine > 0.99
    assert checked.parity.tolerance is None
    assert artifact.precision == "int8"


class Smooth(nn.Module):
    """Two GELUs: ONNX Runtime 1.31.1 does not load their int8 file with exact sums on x86 without VNNI, fused."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 16, 3)
        self.head = nn.Linear(16, 5)

    def forward(self, images: Tensor) -> Tensor:
        maps = functional.gelu(self.second(functional.gelu(self.first(images))))
        return self.head(maps.mean((2, 3)))


def test_what_the_runtime_cannot_fuse_for_exact_sums_is_run_unfused(tmp_path):
    model, out = model_of(Smooth), tmp_path / "gelus.onnx"
    artifact = export_onnx(model, COST, ARM, "int8", out, CALIBRATION)
    assert parity.check(artifact, tmp_path, model, images_of(64)[32:]).parity.cosine > 0.99


def test_images_and_outputs_stay_float32_for_any_number_of_images(written):
    model, _, out = written
    session = session_of(out.read_bytes())
    assert session.get_inputs()[0].shape == ["N", *SHAPE]
    images, expected = images_of(5), outputs_of(model, images_of(5))
    got = session.run(None, {"input": images})[0]
    assert got.dtype == np.float32
    assert np.abs(got - expected).max() < 0.1 * np.abs(expected).max()


def test_weights_are_symmetric_int8_with_a_scale_for_each_filter(written):
    graph = onnx.load(written[2]).graph
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    weights = [
        node for node in graph.node if node.op_type == "DequantizeLinear" and stored.get(node.input[0]) is not None
    ]
    kernels = [node for node in weights if stored[node.input[0]].ndim == 4]
    assert len(kernels) == 3
    for node in kernels:
        values, scales, zeros = (stored[name] for name in node.input)
        assert values.dtype == np.int8
        assert scales.shape == (values.shape[0],)
        assert not zeros.any()


@pytest.mark.parametrize(
    ("board", "kind"),
    [
        (replace(ARM, arch="x86_64"), Activations(signed=False, symmetric=False)),
        (ARM, Activations(signed=True, symmetric=False)),
        (replace(ARM, arch="armv7l"), Activations(signed=True, symmetric=False)),
        (load_target("jetson-orin-nano"), Activations(signed=True, symmetric=True)),
    ],
)
def test_the_board_decides_how_activations_are_stored(board, kind):
    assert activations_for(board) == kind


def test_on_arm_activations_are_int8_whose_steps_all_serve(written):
    _, artifact, out = written
    zeros = activation_zero_points(out)
    assert {tensor.data_type for tensor in zeros} == {TensorProto.INT8}
    assert -128 in {int(onnx.numpy_helper.to_array(tensor)) for tensor in zeros}  # what comes out of a ReLU
    assert artifact.details["quantisation"]["activations"] == "S8S8"


def test_for_tensorrt_zero_is_in_the_middle_of_activations_and_the_error_larger(written, tmp_path):
    jetson = load_target("jetson-orin-nano")
    artifact = export_onnx(model_of(Tiny), COST, jetson, "int8", tmp_path / "x.onnx", CALIBRATION)
    zeros = activation_zero_points(tmp_path / "x.onnx")
    assert {(tensor.data_type, int(onnx.numpy_helper.to_array(tensor))) for tensor in zeros} == {(TensorProto.INT8, 0)}
    symmetric, free = (one.details["quantisation"] for one in (artifact, written[1]))
    assert min(symmetric["errors"].values()) > min(free["errors"].values())


def test_on_x86_activations_are_uint8(tmp_path):
    artifact = export_onnx(model_of(Tiny), COST, replace(ARM, arch="x86_64"), "int8", tmp_path / "x.onnx", CALIBRATION)
    assert {tensor.data_type for tensor in activation_zero_points(tmp_path / "x.onnx")} == {TensorProto.UINT8}
    assert artifact.details["quantisation"]["activations"] == "U8S8"


def convolution():
    weights = np.random.default_rng(0).standard_normal((8, 3, 3, 3), dtype=np.float32)
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Conv", ["input", "weights"], ["output"])],
        "one",
        [onnx.helper.make_tensor_value_info("input", 1, ["N", *SHAPE])],
        [onnx.helper.make_tensor_value_info("output", 1, ["N", 8, SHAPE[1] - 2, SHAPE[2] - 2])],
        [onnx.numpy_helper.from_array(weights, "weights")],
    )
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=8)


@pytest.mark.parametrize(("narrow", "bits", "largest"), [(0.1, 7, 64), (0.3, 8, 127)])
def test_on_x86_weights_of_7_bits_are_taken_where_they_are_nearer(monkeypatch, narrow, bits, largest):
    errors = iter([0.3, 0.2, 0.4, narrow])
    monkeypatch.setattr(onnx_int8, "_error", lambda *_: next(errors))
    file, told = onnx_int8.quantised(convolution(), CALIBRATION, Activations(signed=False, symmetric=False))
    (weights,) = (onnx.numpy_helper.to_array(one) for one in file.graph.initializer if len(one.dims) == 4)
    assert (told["weight_bits"], told["error"]) == (bits, min(narrow, 0.2))
    assert np.abs(weights.astype(int)).max() == largest


def test_where_signed_bytes_are_multiplied_exactly_no_bit_of_the_weights_is_given_up(monkeypatch):
    errors = iter([0.3, 0.2, 0.4])
    monkeypatch.setattr(onnx_int8, "_error", lambda *_: next(errors))
    _, told = onnx_int8.quantised(convolution(), CALIBRATION, Activations(signed=True, symmetric=False))
    assert told["weight_bits"] == 8


def activation_zero_points(path):
    graph = onnx.load(path).graph
    stored = {tensor.name: tensor for tensor in graph.initializer}
    return [stored[node.input[2]] for node in graph.node if node.op_type == "QuantizeLinear"]


def test_the_way_to_calibrate_is_that_of_the_least_error_on_images_held_out(written):
    told = written[1].details["quantisation"]
    assert set(told["errors"]) == set(METHODS)
    assert told["errors"][told["calibration"]] == min(told["errors"].values())


def test_an_outlier_among_the_calibration_images_does_not_decide_the_range():
    images = np.random.default_rng(0).standard_normal((32, 3, 64, 64), dtype=np.float32)
    images[3, 0, 0, 0] = 1e3
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Mul", ["input", "w"], ["output"])],
        "scaled",
        [onnx.helper.make_tensor_value_info("input", 1, ["N", 3, 64, 64])],
        [onnx.helper.make_tensor_value_info("output", 1, ["N", 3, 64, 64])],
        [onnx.numpy_helper.from_array(np.array([1.5], np.float32), "w")],
    )
    proto = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=8)
    _, told = onnx_int8.quantised(proto, calibration_of(images), Activations(False, False))
    assert told["calibration"] != "minmax"
    assert told["errors"][told["calibration"]] < 0.2 * told["errors"]["minmax"]


def test_the_same_model_and_images_give_the_same_bytes(written, tmp_path):
    again = export_onnx(model_of(Tiny), COST, ARM, "int8", tmp_path / "again.onnx", CALIBRATION)
    assert again.sha256 == written[1].sha256


def test_the_file_holds_no_path_of_this_machine(written):
    assert b"/tmp" not in written[2].read_bytes()


def test_the_model_is_described_and_every_stage_of_the_graph_is_counted(written):
    _, artifact, out = written
    details = artifact.details
    assert details["nodes_exported"] >= details["nodes_simplified"] > 0
    assert details["nodes"] == len(onnx.load(out).graph.node) == sum(details["operators"].values())
    assert details["nodes_run"] == sum(details["operators_run"].values()) < details["nodes"]
    assert "QLinearConv" in details["operators_run"]


def test_what_the_runtime_cannot_load_is_not_counted():
    assert optimised(b"not a model") == {}


def test_several_outputs_are_kept(tmp_path):
    export_onnx(model_of(Several), COST, ARM, "int8", tmp_path / "x.onnx", CALIBRATION)
    session = onnxruntime.InferenceSession(tmp_path / "x.onnx", providers=["CPUExecutionProvider"])
    assert [output.name for output in session.get_outputs()] == ["output_0", "output_1", "output_2"]


def test_without_images_nothing_is_written(tmp_path):
    with pytest.raises(UsageError, match="images to calibrate with"):
        export_onnx(model_of(Tiny), COST, ARM, "int8", tmp_path / "x.onnx")
    assert list(tmp_path.iterdir()) == []


def test_what_the_quantizer_says_is_told_and_nothing_is_printed(tmp_path, monkeypatch, capfd):
    def fails(*_):
        print("the quantizer talks")
        raise RuntimeError("no scale for that")

    monkeypatch.setattr(onnx_int8, "_ranges", fails)
    with pytest.raises(ExportError, match="cannot be written in int8") as caught:
        export_onnx(model_of(Tiny), COST, ARM, "int8", tmp_path / "x.onnx", CALIBRATION)
    assert "no scale for that" in caught.value.where
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")


def test_a_full_disk_is_not_taken_for_a_fault_of_the_model(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(onnx_int8, "_ranges", full)
    with pytest.raises(OSError, match="No space left"):
        export_onnx(model_of(Tiny), COST, ARM, "int8", tmp_path / "x.onnx", CALIBRATION)


def test_the_quantizer_is_not_imported_before_it_is_needed():
    code = "import sys, edgeprune.export.onnx; print('onnxruntime' in sys.modules, 'onnx' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert told == "False False\n"
