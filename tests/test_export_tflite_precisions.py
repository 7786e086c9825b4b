from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from export_nets import COST, SHAPE, Classifier, Tiny, images_of, model_of, outputs_of

from edgeprune.errors import ExportError, MissingExtraError, UsageError
from edgeprune.export import tflite_converters
from edgeprune.export.calibration import calibration_of
from edgeprune.export.child import RefusedError, apart, end_child
from edgeprune.export.litert import litert_file
from edgeprune.export.parity import check
from edgeprune.export.tflite import export_tflite, inspect
from edgeprune.export.tflite_quantise import quantised
from edgeprune.target import load_target

# The converter and the quantizer alone take seconds to import.
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("tflite_extra")]


@pytest.fixture(scope="module")
def files():
    """A float file of each network."""
    return {network: litert_file(model_of(network)) for network in (Tiny, Classifier)}


def opened(content: bytes):
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=content, num_threads=1)
    interpreter.allocate_tensors()
    (entry,), (result,) = interpreter.get_input_details(), interpreter.get_output_details()
    return interpreter, entry, result


def run(content: bytes, images: np.ndarray) -> np.ndarray:
    """Float outputs for NCHW images, whatever the file's ends are."""
    interpreter, entry, result = opened(content)
    rows = []
    for image in images.transpose(0, 2, 3, 1):
        if entry["dtype"] is np.int8:
            scale, zero = entry["quantization"]
            image = np.clip(np.round(image / scale + zero), -128, 127).astype(np.int8)
        interpreter.set_tensor(entry["index"], np.ascontiguousarray(image[None]))
        interpreter.invoke()
        rows.append(interpreter.get_tensor(result["index"]))
    values = np.concatenate(rows)
    if result["dtype"] is np.int8:
        scale, zero = result["quantization"]
        values = (values.astype(np.float32) - zero) * scale
    return values


def relative_error(content: bytes, network) -> float:
    images = images_of(24)[16:]
    expected = outputs_of(model_of(network), images)
    return float(np.abs(run(content, images) - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("network", [Tiny, Classifier])
def test_fp16_stores_halves_keeps_float_ends_and_computes_nearly_the_same(files, network):
    content = quantised(files[network], "fp16")
    _, entry, result = opened(content)
    assert entry["dtype"] is result["dtype"] is np.float32
    assert len(content) < len(files[network])
    assert 1e-6 < relative_error(content, network) < 5e-3


@pytest.mark.parametrize("integer_ends", [False, True])
@pytest.mark.parametrize("network", [Tiny, Classifier])
def test_int8_computes_every_operator_in_int8_with_the_ends_asked_for(files, network, integer_ends):
    content = quantised(files[network], "int8", images_of(16), integer_ends=integer_ends)
    interpreter, entry, result = opened(content)
    assert entry["dtype"] is result["dtype"] is (np.int8 if integer_ends else np.float32)
    kinds = [detail["dtype"] for detail in interpreter.get_tensor_details() if "float" in str(detail["dtype"])]
    assert len(kinds) == (0 if integer_ends else 2)
    details = inspect(content)
    assert details["operators"].get("QUANTIZE", 0) == details["operators"].get("DEQUANTIZE", 0) == (not integer_ends)
    assert details["transposes"] == details["flex"] == 0
    assert relative_error(content, network) < 0.1


def test_the_ranges_are_those_of_all_images_not_an_average(files):
    images = images_of(16)
    images[3] *= 10  # one image reaches further than all others
    content = quantised(files[Tiny], "int8", images, integer_ends=True)
    _, entry, _ = opened(content)
    scale, _ = entry["quantization"]
    assert scale * 255 == pytest.approx(images.max() - images.min(), rel=0.02)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8", "int8-dynamic"])
def test_weights_are_aligned_names_are_short_and_the_ends_are_called_as_the_signature_says(files, precision):
    from ai_edge_litert import schema_py_generated as schema

    content = files[Tiny] if precision == "fp32" else quantised(files[Tiny], precision, images_of(16))
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    (graph,) = model.subgraphs
    inner = [one.name for at, one in enumerate(graph.tensors) if at not in (*graph.inputs, *graph.outputs)]
    assert max(map(len, inner)) <= 3
    assert len(set(inner)) == len(inner)
    assert [graph.tensors[at].name for at in graph.inputs] == [b"args_0"]
    assert [graph.tensors[at].name for at in graph.outputs] == [b"output_0"]
    (signature,) = model.signatureDefs
    assert [(end.name, end.tensorIndex) for end in signature.inputs] == [(b"args_0", graph.inputs[0])]
    packed = schema.Model.GetRootAs(content)
    weights = [one for one in map(packed.Buffers, range(packed.BuffersLength())) if one.DataLength()]
    starts = [one.DataAsNumpy().ctypes.data - np.frombuffer(content, np.uint8).ctypes.data for one in weights]
    assert len(starts) >= 8
    assert {start % 16 for start in starts} == {0}


def test_an_empty_file_of_a_converter_is_an_error():
    with pytest.raises(RefusedError, match="empty file"):
        apart("edgeprune.export.tflite_layout:laid_out", b"")


def test_dynamic_ranges_keep_float_activations(files):
    content = quantised(files[Tiny], "int8-dynamic")
    _, entry, result = opened(content)
    assert entry["dtype"] is result["dtype"] is np.float32
    assert "QUANTIZE" not in inspect(content)["operators"]
    assert len(content) < 0.7 * len(files[Tiny])
    assert relative_error(content, Tiny) < 0.1


@pytest.mark.parametrize("precision", ["fp16", "int8", "int8-dynamic"])
def test_the_same_file_and_images_give_the_same_bytes_in_another_process(files, precision):
    first = quantised(files[Tiny], precision, images_of(16))
    end_child()
    assert quantised(files[Tiny], precision, images_of(16)) == first


def test_the_exporter_converts_a_model_once_for_all_precisions_and_again_when_its_weights_change(tmp_path, monkeypatch):
    converted = []
    monkeypatch.setattr(tflite_converters, "litert_file", lambda model: converted.append(model) or litert_file(model))
    model, target, calibration = model_of(Tiny), load_target("rpi4"), calibration_of(images_of(16))
    for precision, bound in (("fp32", 1e-5), ("fp16", 5e-3), ("int8", 0.1)):
        given = calibration if precision == "int8" else None
        artifact = export_tflite(model, COST, target, precision, tmp_path / f"{precision}.tflite", given)
        assert (artifact.precision, artifact.layout, artifact.details["warnings"]) == (precision, "NHWC", [])
        parity = check(artifact, tmp_path, model, images_of(24)[16:]).parity
        assert parity.passed
        assert parity.max_rel < bound
    assert len(converted) == 1
    with torch.no_grad():
        model.module.head.weight.mul_(2)
    export_tflite(model, COST, target, "fp32", tmp_path / "again.tflite")
    assert len(converted) == 2


@pytest.mark.parametrize(("int8", "ends"), [("static", np.float32), ("integer", np.int8), ("dynamic", np.float32)])
def test_int8_files_of_each_kind_pass_parity(tmp_path, int8, ends):
    model, calibration = model_of(Tiny), calibration_of(images_of(16))
    out = tmp_path / "x.tflite"
    artifact = export_tflite(model, COST, load_target("rpi4"), "int8", out, calibration, int8=int8)
    _, entry, result = opened(out.read_bytes())
    assert entry["dtype"] is result["dtype"] is ends
    assert check(artifact, tmp_path, model, images_of(24)[16:]).parity.max_rel < 0.1
    assert ["depthwise" in warning for warning in artifact.details["warnings"]] == [True] * (int8 == "dynamic")


def test_an_unknown_kind_of_int8_is_refused(tmp_path):
    calibration = calibration_of(images_of(16))
    with pytest.raises(UsageError, match="--tflite-int8 'statik'") as caught:
        export_tflite(model_of(Tiny), COST, load_target("rpi4"), "int8", tmp_path / "x", calibration, int8="statik")
    assert "'static'" in caught.value.fix


def test_what_is_no_tflite_file_is_refused(capfd):
    with pytest.raises(ExportError, match="cannot be written as TFLite in int8"):
        quantised(b"no file at all" * 100, "int8", images_of(8))
    assert capfd.readouterr() == ("", "")


def test_a_missing_quantizer_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "ai_edge_quantizer", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'edgeprune\[tflite\]'"):
        quantised(b"", "fp16")


def test_shape_of_the_input_stays(files):
    channels, height, width = SHAPE
    _, entry, _ = opened(quantised(files[Tiny], "int8", images_of(16), integer_ends=True))
    assert entry["shape"].tolist() == [1, height, width, channels]


class Split(torch.nn.Module):
    """Split attention, as in ResNeSt: groups of maps weighed by a softmax between them, and added."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.weigh = torch.nn.Conv2d(3, 16, 3), torch.nn.Conv2d(8, 16, 1)
        self.head = torch.nn.Linear(8, 5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        maps = torch.relu(self.conv(images)).unflatten(1, (2, 8))
        weights = self.weigh(maps.sum(1).mean((2, 3), keepdim=True)).unflatten(1, (2, 8)).softmax(1)
        return self.head((maps * weights).sum(1).mean((2, 3)))


def test_sums_of_int8_that_the_reference_kernels_misread_are_not_held_against_the_file(tmp_path):
    model, target = model_of(Split), load_target("rpi4")
    for precision, calibration in (("fp32", None), ("int8", calibration_of(images_of(32)))):
        artifact = export_tflite(model, COST, target, precision, tmp_path / f"{precision}.tflite", calibration)
        assert artifact.details["operators"]["SUM"] >= 2
        checked = check(artifact, tmp_path, model, images_of(64)[32:])
        assert checked.parity.passed
        assert ("witness" in checked.details) == (precision == "fp32")
