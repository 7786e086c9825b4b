from __future__ import annotations

import json
import logging
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
from export_nets import COST, SHAPE, Classifier, Several, Tiny, Viewed, images_of, model_of, outputs_of
from torch import Tensor, nn

from edgeprune.artifact import Artifact
from edgeprune.errors import ExportError, MissingExtraError, UsageError
from edgeprune.export import parity
from edgeprune.export.tflite import export_tflite, inspect
from edgeprune.target import load_target

TARGET = load_target("rpi4")
litert = pytest.mark.slow  # importing the converter alone takes seconds

PLAIN_SCRIPT = """
import sys
import numpy as np
from ai_edge_litert.interpreter import Interpreter
interpreter = Interpreter(sys.argv[1])
interpreter.allocate_tensors()
(given,), (result,) = interpreter.get_input_details(), interpreter.get_output_details()
rows = []
for image in np.load(sys.argv[2]).transpose(0, 2, 3, 1):
    interpreter.set_tensor(given["index"], np.ascontiguousarray(image[None]))
    interpreter.invoke()
    rows.append(interpreter.get_tensor(result["index"]))
np.save(sys.argv[3], np.concatenate(rows))
assert "edgeprune" not in sys.modules and "torch" not in sys.modules
"""


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> tuple[object, Artifact, Path]:
    pytest.importorskip("litert_torch", reason="needs the [tflite] extra", exc_type=ImportError)
    out = tmp_path_factory.mktemp("run") / "tiny.tflite"
    model = model_of(Tiny, plans=("plan",))
    return model, export_tflite(model, COST, TARGET, "fp32", out), out


@litert
def test_a_plain_litert_script_computes_what_torch_computes(exported, tmp_path):
    model, _, path = exported
    images = images_of()
    np.save(tmp_path / "in.npy", images)
    argv = [sys.executable, "-I", "-c", PLAIN_SCRIPT, str(path), str(tmp_path / "in.npy"), str(tmp_path / "out.npy")]
    subprocess.run(argv, check=True, cwd=tmp_path)
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), outputs_of(model, images), atol=1e-5)


@litert
def test_the_artifact_describes_the_file(exported):
    _, artifact, path = exported
    assert (artifact.path, artifact.bytes) == ("tiny.tflite", path.stat().st_size)
    assert (artifact.role, artifact.plan_fingerprint) == ("pruned", "plan")
    assert (artifact.format, artifact.layout, artifact.input_shape) == ("tflite", "NHWC", SHAPE)
    json.dumps(artifact.to_json())


@litert
def test_the_file_has_only_the_operators_of_the_network_and_no_transpose(exported):
    _, artifact, path = exported
    details = artifact.details
    assert details["operators"]["CONV_2D"] == 2
    assert details["operators"]["DEPTHWISE_CONV_2D"] == 1
    assert "TRANSPOSE" not in details["operators"]
    assert (details["transposes"], details["flex"], details["custom"], details["warnings"]) == (0, 0, [], [])
    assert details.items() >= inspect(path.read_bytes()).items()
    assert details["converter"] == [f"litert-torch {version('litert-torch')}"]


@litert
def test_the_file_passes_parity(exported):
    model, artifact, path = exported
    checked = parity.check(artifact, path.parent, model, images_of())
    assert checked.parity.passed
    assert checked.parity.max_rel < 1e-5


@litert
def test_a_second_implementation_of_the_format_agrees_and_is_told_of(exported):
    model, artifact, path = exported
    witness = parity.check(artifact, path.parent, model, images_of()).details["witness"]
    assert (witness["kernels"], witness["images"]) == ("reference", parity.WITNESSED)
    assert 0 < witness["max_rel"] < 1e-5
    assert witness["cosine"] == pytest.approx(1)


@litert
def test_a_second_implementation_that_does_not_agree_fails_parity(exported, monkeypatch):
    model, artifact, path = exported
    monkeypatch.setattr(parity, "witness_of", lambda *_: [outputs_of(model, images_of(parity.WITNESSED)) * 1.01])
    with pytest.raises(parity.ParityError, match="reference kernels are off by") as caught:
        parity.check(artifact, path.parent, model, images_of())
    assert caught.value.exit_code == 5


@litert
def test_the_file_holds_no_path_of_this_machine(exported):
    _, _, path = exported
    assert str(Path(__file__).parent).encode() not in path.read_bytes()
    assert str(Path(torch.__file__).parent).encode() not in path.read_bytes()


@litert
def test_the_same_model_gives_the_same_bytes_is_left_as_it_was_and_nothing_is_printed(exported, tmp_path, capfd):
    _, artifact, _ = exported
    model = model_of(Tiny, plans=("plan",))
    before = {name: value.clone() for name, value in model.module.state_dict().items()}
    assert export_tflite(model, COST, TARGET, "fp32", tmp_path / "größe 1.tflite").sha256 == artifact.sha256
    assert all(torch.equal(value, before[name]) for name, value in model.module.state_dict().items())
    assert capfd.readouterr() == ("", "")
    assert logging.root.manager.disable == logging.NOTSET


@litert
def test_several_outputs_keep_their_order_and_images_out_are_channels_last(exported, tmp_path):
    from ai_edge_litert.interpreter import Interpreter

    model = model_of(Several)
    artifact = export_tflite(model, COST, TARGET, "fp32", tmp_path / "x.tflite")
    shapes = [output["shape"].tolist() for output in Interpreter(str(tmp_path / "x.tflite")).get_output_details()]
    assert shapes == [[1, 2], [1, 4], [1, 10, 8, 6]]
    assert parity.check(artifact, tmp_path, model, images_of()).parity.passed


class ChannelShuffle(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.last = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 2, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.last(self.conv(images).permute(0, 1, 3, 2)).mean((2, 3))


@litert
@pytest.mark.parametrize("network", [Viewed, Classifier])
def test_a_network_that_flattens_more_than_one_pixel_is_written(exported, tmp_path, network):
    model = model_of(network)
    artifact = export_tflite(model, COST, TARGET, "fp32", tmp_path / "x.tflite")
    assert parity.check(artifact, tmp_path, model, images_of()).parity.passed
    if network is Classifier:  # litert-torch gathers the unequal windows of the other's pooling one by one
        assert "TRANSPOSE" not in artifact.details["operators"]


@litert
def test_a_layout_that_cannot_be_resolved_is_counted_and_warned_of(exported, tmp_path):
    details = export_tflite(model_of(ChannelShuffle), COST, TARGET, "fp32", tmp_path / "x.tflite").details
    assert details["transposes"] >= 1
    assert "TRANSPOSE" in details["warnings"][0]


class Sliced(nn.Module):
    """Slices of two axes one after the other, of which some cannot be joined."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        x = self.conv(images)
        joined = x[:, :, ::2, 1::2].mean((2, 3)) + x[:, 2:5, 1:9, 3:].mean((1, 2, 3)).reshape(-1, 1)
        apart = x[:, :, 2:][:, :, ::3].mean((2, 3))  # one axis twice
        once = x[:, :, 1:]
        return joined + apart + once.amax((2, 3)) + once[:, :, :, 4:].mean((2, 3))  # what is read twice stays


@litert
def test_slices_in_steps_of_two_axes_are_one_operator_and_compute_the_same(exported, tmp_path):
    model = model_of(Sliced)
    artifact = export_tflite(model, COST, TARGET, "fp32", tmp_path / "x.tflite")
    assert parity.check(artifact, tmp_path, model, images_of()).parity.max_rel < 1e-5
    assert artifact.details["operators"]["STRIDED_SLICE"] == 2  # of three slices in steps


class NoSuchOperator(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return torch.special.bessel_j0(images).mean((2, 3))


@litert
def test_an_operator_without_a_lowering_is_named_with_its_line(exported, tmp_path, capfd):
    with pytest.raises(ExportError, match="bessel_j0") as caught:
        export_tflite(model_of(NoSuchOperator), COST, TARGET, "fp32", tmp_path / "x.tflite")
    assert Path(__file__).name in caught.value.where
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")


@litert
def test_a_file_with_changed_weights_fails_parity(exported, tmp_path):
    from ai_edge_litert import schema_py_generated as schema

    model, artifact, path = exported
    content = bytearray(path.read_bytes())
    holder = schema.Model.GetRootAs(content)
    largest = max(map(holder.Buffers, range(holder.BuffersLength())), key=lambda buffer: buffer.DataLength())
    largest.DataAsNumpy().view(np.float32)[:] *= -1  # a view into `content`
    (tmp_path / artifact.path).write_bytes(content)
    with pytest.raises(parity.ParityError, match="expected"):
        parity.check(artifact, tmp_path, model, images_of())


@litert
@pytest.mark.parametrize("content", [b"", b"not a model", slice(0, 1000)], ids=["empty", "other", "torn"])
def test_a_file_that_cannot_be_run_fails_parity(exported, tmp_path, content):
    model, artifact, path = exported
    broken = path.read_bytes()[content] if isinstance(content, slice) else content
    (tmp_path / artifact.path).write_bytes(broken)
    with pytest.raises(parity.ParityError, match="cannot run it"):
        parity.check(artifact, tmp_path, model, images_of())


def test_a_missing_converter_names_the_extra(tmp_path, monkeypatch):
    for module in ("litert_torch", "tensorflow"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=r"pip install 'edgeprune\[tflite\]'"):
        export_tflite(model_of(Tiny), COST, TARGET, "fp32", tmp_path / "x.tflite")


def test_another_precision_is_refused_and_the_available_one_named(tmp_path):
    with pytest.raises(UsageError, match="int4") as caught:
        export_tflite(model_of(Tiny), COST, TARGET, "int4", tmp_path / "x.tflite")
    assert "fp32" in caught.value.fix
    with pytest.raises(UsageError, match="images to calibrate"):
        export_tflite(model_of(Tiny), COST, TARGET, "int8", tmp_path / "x.tflite")
