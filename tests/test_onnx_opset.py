"""Files that a board's runtimes can read: opset, file format version, batch and size; and what is told where not."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from export_nets import COST, SHAPE, Classifier, Several, Tiny, images_of, model_of, outputs_of
from onnx import TensorProto, helper
from torch import Tensor, nn

from edgeprune.errors import ExportError, UsageError
from edgeprune.export.calibration import calibration_of
from edgeprune.export.onnx import export_onnx
from edgeprune.export.onnx_run import session_of
from edgeprune.target import load_target
from edgeprune.worker.litert import load_litert
from edgeprune.worker.loaded import UnfitError
from edgeprune.worker.onnx_session import load_onnxruntime

NANO, HOST = load_target("jetson-nano"), load_target("host")


class Newer(nn.Module):
    """Operators whose form has changed since opset 13."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.up = nn.Conv2d(3, 8, 3), nn.Upsample(scale_factor=2, mode="bilinear")
        self.head = nn.Linear(8, 5)

    def forward(self, images: Tensor) -> Tensor:
        first, second = nn.functional.hardswish(self.conv(nn.functional.pad(images, (0, 1, 0, 1)))).chunk(2, 1)
        x = self.up(torch.cat([second, first], 1))
        x = x * torch.sigmoid(x.amax((2, 3), keepdim=True))
        return self.head(x.mean((2, 3)).reshape(-1, 8))


def opened(path: Path) -> onnxruntime.InferenceSession:
    return session_of(path.read_bytes())


@pytest.mark.parametrize("network", [Tiny, Classifier, Newer])
def test_a_board_of_an_older_opset_gets_a_file_in_it_that_computes_the_same(network, tmp_path):
    model, images = model_of(network), images_of(3)
    artifact = export_onnx(model, COST, NANO, "fp32", tmp_path / "x.onnx")
    proto = onnx.load(tmp_path / "x.onnx")
    assert (proto.opset_import[0].version, proto.ir_version, artifact.details["opset"]) == (13, 7, 13)
    assert (artifact.details["batch"], artifact.details["warnings"]) == ("N", [])
    np.testing.assert_allclose(
        opened(tmp_path / "x.onnx").run(None, {"input": images})[0], outputs_of(model, images), atol=1e-4
    )


@pytest.mark.parametrize(("precision", "allowed"), [("fp16", 5e-3), ("int8", 1e-1)])
def test_every_precision_can_be_had_in_it(precision, allowed, tmp_path):
    model, images = model_of(Tiny), images_of(24)
    shown = calibration_of(images) if precision == "int8" else None
    export_onnx(model, COST, NANO, precision, tmp_path / "x.onnx", shown)
    assert onnx.load(tmp_path / "x.onnx").opset_import[0].version == 13
    (found,) = opened(tmp_path / "x.onnx").run(None, {"input": images})
    wanted = outputs_of(model, images)
    np.testing.assert_allclose(found, wanted, atol=allowed * np.abs(wanted).max())


def test_names_of_several_outputs_stay_and_the_file_repeats_to_the_byte(tmp_path):
    made = [export_onnx(model_of(Several), COST, NANO, "fp32", tmp_path / f"{at}.onnx") for at in range(2)]
    assert made[0].sha256 == made[1].sha256
    names = [output.name for output in opened(tmp_path / "0.onnx").get_outputs()]
    assert names == ["output_0", "output_1", "output_2"]
    assert str(Path(__file__).parent).encode() not in (tmp_path / "0.onnx").read_bytes()


def test_a_board_of_a_later_opset_gets_that(tmp_path):
    export_onnx(model_of(Tiny), COST, dataclasses.replace(HOST, onnx_opset=20), "fp32", tmp_path / "x.onnx")
    proto = onnx.load(tmp_path / "x.onnx")
    assert (proto.opset_import[0].version, proto.ir_version) == (20, 9)


class Sampled(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        places = torch.linspace(-1, 1, 8).reshape(1, 2, 2, 2).expand(len(images), 2, 2, 2)
        return nn.functional.grid_sample(images, places, align_corners=False).mean((2, 3))


def test_an_operator_that_came_later_is_told_with_the_opset(tmp_path):
    with pytest.raises(ExportError, match="cannot be written as ONNX, opset 13") as caught:
        export_onnx(model_of(Sampled), COST, NANO, "fp32", tmp_path / "x.onnx")
    assert "grid_sampler" in caught.value.where
    assert list(tmp_path.iterdir()) == []


def test_a_file_may_be_of_one_image(tmp_path):
    artifact = export_onnx(model_of(Tiny), COST, HOST, "fp32", tmp_path / "x.onnx", batch="1")
    assert (artifact.details["batch"], artifact.details["warnings"]) == (1, [])
    session = opened(tmp_path / "x.onnx")
    assert (session.get_inputs()[0].shape, session.get_outputs()[0].shape) == ([1, *SHAPE], [1, 5])
    with pytest.raises(UsageError, match="onnx-batch"):
        export_onnx(model_of(Tiny), COST, HOST, "fp32", tmp_path / "y.onnx", batch="8")


@pytest.mark.parametrize(
    ("opset", "version", "told"),
    [
        (99, 8, r"urrent official support for domain ai\.onnx is till opset \d+"),
        (18, 99, r"max supported IR version: \d+"),
    ],
)
def test_a_runtime_that_is_too_old_for_an_onnx_file_says_what_it_reads_and_what_to_do(tmp_path, opset, version, told):
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", ends[:1], ends[1:])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    proto.ir_version = version
    (tmp_path / "x.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises(UnfitError, match=rf"onnxruntime \S+ is too old for the file: .*{told}") as caught:
        load_onnxruntime(str(tmp_path / "x.onnx"), 1)
    assert "onnx_opset in the board's file" in caught.value.fix


def test_a_runtime_that_is_too_old_for_a_tflite_file_says_so(tmp_path):
    schema = pytest.importorskip("ai_edge_litert.schema_py_generated", exc_type=ImportError)
    import flatbuffers

    code, operator, graph, model = (schema.OperatorCodeT(), schema.OperatorT(), schema.SubGraphT(), schema.ModelT())
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.RELU
    code.version = 99
    operator.inputs, operator.outputs = np.array([0], np.int32), np.array([1], np.int32)
    graph.tensors = [schema.TensorT(), schema.TensorT()]
    for tensor in graph.tensors:
        tensor.shape, tensor.name = np.array([1, 3], np.int32), b"t"
    graph.inputs, graph.outputs, graph.operators = operator.inputs, operator.outputs, [operator]
    model.version, model.operatorCodes, model.subgraphs, model.buffers = 3, [code], [graph], [schema.BufferT()]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    (tmp_path / "x.tflite").write_bytes(bytes(builder.Output()))
    with pytest.raises(
        UnfitError, match=r"LiteRT \S+ is too old for the file: it has no 'RELU' version '99'"
    ) as caught:
        load_litert(str(tmp_path / "x.tflite"), 1)
    assert caught.value.fix == "Update ai-edge-litert there."
