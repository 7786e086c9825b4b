"""The choice between litert-torch and TensorFlow."""

from __future__ import annotations

import subprocess
import sys

import pytest
from export_nets import COST, Classifier, Several, Shared, Tiny, images_of, model_of

from edgeprune.errors import ExportError, MissingExtraError, UsageError
from edgeprune.export import tflite_converters
from edgeprune.export.calibration import calibration_of
from edgeprune.export.child import end_child
from edgeprune.export.onnx import one_image_onnx
from edgeprune.export.parity import check
from edgeprune.export.tensorflow_graph import tensorflow_file
from edgeprune.export.tflite import export_tflite
from edgeprune.export.tflite_converters import Converted, Numbers, converted
from edgeprune.target import load_target

TARGET = load_target("rpi4")


@pytest.fixture(scope="module")
def _tensorflow():
    pytest.importorskip("tensorflow", reason="needs the [tensorflow] extra", exc_type=ImportError)
    yield
    end_child()


def exported(network, precision, folder, **settings):
    """A file by TensorFlow, compared with its model."""
    calibration = calibration_of(images_of(16)) if precision == "int8" else None
    out, model = folder / "x.tflite", model_of(network)
    artifact = export_tflite(model, COST, TARGET, precision, out, calibration, converter="tensorflow", **settings)
    return check(artifact, folder, model, images_of(24)[16:])


@pytest.mark.slow
@pytest.mark.usefixtures("_tensorflow")
@pytest.mark.parametrize("network", [Tiny, Classifier, Shared, Several])
@pytest.mark.parametrize(("precision", "bound"), [("fp32", 1e-5), ("fp16", 5e-3), ("int8", 0.15)])
def test_tensorflow_writes_what_the_model_computes_without_a_transpose(network, precision, bound, tmp_path):
    artifact = exported(network, precision, tmp_path)
    assert artifact.parity.max_rel < bound
    assert artifact.details["converter"][0].startswith("tensorflow")
    assert (artifact.details["transposes"], artifact.details["custom"], artifact.details["warnings"]) == (0, [], [])


@pytest.mark.slow
@pytest.mark.usefixtures("_tensorflow")
@pytest.mark.parametrize("int8", ["static", "integer", "dynamic"])
def test_tensorflow_writes_every_kind_of_int8(int8, tmp_path):
    artifact = exported(Tiny, "int8", tmp_path, int8=int8)
    assert artifact.parity.max_rel < 0.1
    ends = 1 if int8 == "static" else 0
    assert (
        artifact.details["operators"].get("QUANTIZE", 0) == artifact.details["operators"].get("DEQUANTIZE", 0) == ends
    )


@pytest.mark.slow
@pytest.mark.usefixtures("_tensorflow")
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_tensorflow_gives_the_same_bytes_in_another_process_prints_nothing_and_keeps_no_path(precision, capfd):
    content = one_image_onnx(model_of(Tiny))
    first = tensorflow_file(content, precision, images_of(8))
    end_child()
    assert tensorflow_file(content, precision, images_of(8)) == first
    assert capfd.readouterr() == ("", "")
    assert sys.prefix.encode() not in first
    assert b"READ_VARIABLE" not in first
    assert len(first) > 4000  # a graph that was not frozen becomes a file of next to nothing


@pytest.mark.slow
def test_edgeprune_does_not_import_tensorflow():
    code = "import sys, edgeprune.export.tflite; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.fixture
def routes(monkeypatch):
    """Both converters replaced; the test says what is installed and what fails."""
    ways = {"litert_torch": True, "tensorflow": True}
    monkeypatch.setattr(tflite_converters, "_installed", lambda module: ways[module])
    for name in ("litert", "tensorflow"):
        monkeypatch.setattr(tflite_converters, f"_by_{name}", lambda *_, by=name: answer(ways, by))
    return ways


def answer(ways, by):
    if isinstance(ways.get(by), Exception):
        raise ways[by]
    return Converted(b"file", [by])


def by(converter: str) -> Converted:
    return converted(model_of(Tiny), Numbers(), converter)


def test_auto_takes_litert_where_it_is_installed_and_tensorflow_elsewhere(routes):
    assert by("auto").by == ["litert"]
    routes["litert_torch"] = False
    assert by("auto").by == ["tensorflow"]
    assert by("tensorflow").by == ["tensorflow"]


def test_what_litert_cannot_convert_tensorflow_does_and_it_is_told(routes):
    routes["litert"] = ExportError("no", where="operator aten.bessel_j0\nmore")
    made = by("auto")
    assert made.by == ["tensorflow"]
    assert made.warnings == ("litert-torch could not convert the model (operator aten.bessel_j0); TensorFlow did",)


@pytest.mark.parametrize("converter", ["auto", "litert"])
def test_the_reason_of_the_converter_asked_for_is_told_where_no_other_helps(routes, converter):
    routes["litert"] = ExportError("the first reason")
    routes["tensorflow"] = ExportError("the second reason") if converter == "auto" else True
    with pytest.raises(ExportError, match="the first reason"):
        by(converter)
    routes["tensorflow"] = False
    with pytest.raises(ExportError, match="the first reason"):
        by(converter)


def test_a_missing_or_unknown_converter_is_named(monkeypatch):
    monkeypatch.setattr(tflite_converters, "_installed", lambda module: False)
    with pytest.raises(MissingExtraError, match=r"edgeprune\[tensorflow\]"):
        by("tensorflow")
    with pytest.raises(UsageError, match="tensorflow") as caught:
        by("tensorflou")
    assert "Did you mean 'tensorflow'" in caught.value.fix
