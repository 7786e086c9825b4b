from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from export_nets import COST, SHAPE, Several, Shared, Tiny, images_of, model_of, outputs_of
from torch import Tensor, nn

from edgeprune.errors import ExportError, OutputError, UsageError
from edgeprune.export import EXPORTERS, available_formats
from edgeprune.export.onnx import export_onnx
from edgeprune.export.quiet import quiet
from edgeprune.target import load_target

TARGET = load_target("rpi4")

PLAIN_SCRIPT = """
import sys
import numpy as np
import onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
np.save(sys.argv[3], session.run(["output"], {"input": np.load(sys.argv[2])})[0])
assert "edgeprune" not in sys.modules and "torch" not in sys.modules
"""


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "tiny.onnx"
    model = model_of(Tiny)
    return model, export_onnx(model, COST, TARGET, "fp32", out), out


def test_a_plain_onnxruntime_script_computes_what_torch_computes(exported, tmp_path):
    model, _, path = exported
    images = images_of()
    np.save(tmp_path / "in.npy", images)
    argv = [sys.executable, "-I", "-c", PLAIN_SCRIPT, str(path), str(tmp_path / "in.npy"), str(tmp_path / "out.npy")]
    subprocess.run(argv, check=True, cwd=tmp_path)
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), outputs_of(model, images), atol=1e-5)


@pytest.mark.parametrize("count", [1, 3, 7])
def test_any_number_of_images_can_be_fed(exported, count):
    model, artifact, path = exported
    assert artifact.details["batch"] == "N"
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape == ["N", *SHAPE]
    images = images_of(count)
    np.testing.assert_allclose(session.run(None, {"input": images})[0], outputs_of(model, images), atol=1e-5)


def test_the_artifact_describes_the_file(exported):
    _, artifact, path = exported
    assert (artifact.path, artifact.bytes) == ("tiny.onnx", path.stat().st_size)
    assert (artifact.role, artifact.plan_fingerprint) == ("baseline", None)
    assert (artifact.format, artifact.precision, artifact.layout, artifact.input_shape) == (
        "onnx",
        "fp32",
        "NCHW",
        SHAPE,
    )
    assert (artifact.macs, artifact.parameters) == (COST.macs, COST.parameters)
    assert artifact.details["warnings"] == []
    json.dumps(artifact.to_json())


def test_the_file_says_how_it_is_to_be_fed(exported):
    model, artifact, path = exported
    proto = onnx.load(path)
    facts = {entry.key: entry.value for entry in proto.metadata_props}
    assert json.loads(facts["input_mean"]) == list(model.input.mean)
    assert json.loads(facts["input_std"]) == list(model.input.std)
    assert proto.producer_name == "edgeprune"
    assert (proto.ir_version, proto.opset_import[0].version) == (8, 18)
    assert artifact.details["nodes"] == len(proto.graph.node)


def test_batch_norms_are_folded_away(exported):
    _, _, path = exported
    kinds = [node.op_type for node in onnx.load(path).graph.node]
    assert kinds.count("Conv") == 3
    assert "BatchNormalization" not in kinds


def test_the_file_holds_no_path_of_this_machine(exported):
    _, _, path = exported
    content = path.read_bytes()
    for trace in (__file__, Path(__file__).parent, Path(torch.__file__).parent, ".py"):
        assert str(trace).encode() not in content


def test_the_same_model_gives_the_same_bytes(exported, tmp_path):
    _, artifact, _ = exported
    assert export_onnx(model_of(Tiny), COST, TARGET, "fp32", tmp_path / "again.onnx").sha256 == artifact.sha256


def test_the_model_is_left_as_it_was(tmp_path):
    model = model_of(Tiny)
    before = {name: value.clone() for name, value in model.module.state_dict().items()}
    export_onnx(model, COST, TARGET, "fp32", tmp_path / "x.onnx")
    after = model.module.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert all(parameter.requires_grad for parameter in model.module.parameters())


def test_a_cut_model_carries_the_fingerprint_of_its_last_plan(tmp_path):
    model = model_of(Tiny, plans=("first", "second"))
    artifact = export_onnx(model, COST, TARGET, "fp32", tmp_path / "x.onnx")
    assert (artifact.role, artifact.plan_fingerprint) == ("pruned", "second")
    facts = {entry.key: entry.value for entry in onnx.load(tmp_path / "x.onnx").metadata_props}
    assert facts["plan_fingerprint"] == "second"


def test_weights_that_serve_twice_are_not_folded_into_either_use(tmp_path):
    model, images = model_of(Shared), images_of()
    export_onnx(model, COST, TARGET, "fp32", tmp_path / "x.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "x.onnx", providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(None, {"input": images})[0], outputs_of(model, images), atol=1e-4)


def test_every_output_is_kept_in_the_models_order(tmp_path):
    model, images = model_of(Several), images_of()
    export_onnx(model, COST, TARGET, "fp32", tmp_path / "x.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "x.onnx", providers=["CPUExecutionProvider"])
    assert [output.name for output in session.get_outputs()] == ["output_0", "output_1", "output_2"]
    with torch.no_grad():
        expected = list(model.module(torch.from_numpy(images)).values())
    for got, want in zip(session.run(None, {"input": images}), expected, strict=True):
        np.testing.assert_allclose(got, want.numpy(), atol=1e-5)


class FixedBatch(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.reshape(1, 3 * 12 * 10)[:, :5]


def test_a_model_that_fixes_its_batch_is_written_for_one_image_and_says_so(tmp_path):
    artifact = export_onnx(model_of(FixedBatch), COST, TARGET, "fp32", tmp_path / "x.onnx")
    assert artifact.details["batch"] == 1
    assert "one image at a time" in artifact.details["warnings"][-1]


class NoSuchOperator(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return torch.special.bessel_j0(images).mean((2, 3))


class DependsOnValues(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.mean((2, 3)) if images.sum() > 0 else images.amax((2, 3))


@pytest.mark.parametrize(("network", "told"), [(NoSuchOperator, "bessel_j0"), (DependsOnValues, "data-dependent")])
def test_what_onnx_cannot_express_is_named_with_its_line(network, told, tmp_path, capfd):
    with pytest.raises(ExportError, match=told) as caught:
        export_onnx(model_of(network), COST, TARGET, "fp32", tmp_path / "x.onnx")
    assert Path(__file__).name in caught.value.where
    assert caught.value.exit_code == 2
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")


def test_nothing_is_printed_and_logging_is_as_before(tmp_path, capfd):
    export_onnx(model_of(Tiny), COST, TARGET, "fp32", tmp_path / "x.onnx")
    assert capfd.readouterr() == ("", "")
    assert logging.root.manager.disable == logging.NOTSET


def test_another_precision_is_refused_and_the_available_one_named(tmp_path):
    with pytest.raises(UsageError, match="int4") as caught:
        export_onnx(model_of(Tiny), COST, TARGET, "int4", tmp_path / "x.onnx")
    assert "fp32" in caught.value.fix


def test_a_folder_that_cannot_be_written_is_an_output_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        export_onnx(model_of(Tiny), COST, TARGET, "fp32", tmp_path / "file" / "x.onnx")


def test_a_path_with_spaces_and_umlauts_works(tmp_path):
    out = tmp_path / "ein Ordner für Netze" / "größe 1.onnx"
    assert export_onnx(model_of(Tiny), COST, TARGET, "fp32", out).path == out.name
    assert out.is_file()


def test_the_table_of_formats_loads_its_exporters():
    assert EXPORTERS.load("onnx") is export_onnx
    assert available_formats()["onnx"] is None
    with pytest.raises(UsageError, match="onx") as caught:
        EXPORTERS.load("onx")
    assert "onnx" in caught.value.fix


def test_a_format_whose_toolchain_is_missing_says_how_to_get_it(monkeypatch):
    for module in ("litert_torch", "tensorflow"):
        monkeypatch.setitem(sys.modules, module, None)
    assert "pip install 'edgeprune[tflite]'" in available_formats()["tflite"]


def test_asking_for_the_formats_imports_none_of_their_toolchains():
    code = (
        "import sys; from edgeprune.export import available_formats; available_formats();"
        "print(sorted({'torch', 'onnx', 'onnxruntime', 'onnxsim', 'litert_torch'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "[]\n"


def test_quiet_swallows_what_is_written_to_the_descriptors_and_remembers_it(capfd):
    with quiet() as said:
        subprocess.run([sys.executable, "-c", "print('from elsewhere')"], check=True)
        logging.getLogger("converter").error("a log line")
        assert "from elsewhere" in said.text()
    print("after")
    assert capfd.readouterr() == ("after\n", "")
