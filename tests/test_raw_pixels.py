"""--fold-preprocessing: files that take the pixels of a camera compute what those of normalised images compute."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from export_nets import COST, SHAPE, Tiny, model_of
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from onnx import numpy_helper
from program_runs import fault, run_forked, run_here, tiny_project

from edgeprune.artifact import Artifact
from edgeprune.bench.reference import host_outputs
from edgeprune.data import InputSpec
from edgeprune.export.calibration import calibration_of
from edgeprune.export.child import end_child
from edgeprune.export.divergence import divergence_of
from edgeprune.export.execute import classes_of, outputs_of
from edgeprune.export.onnx import export_onnx
from edgeprune.export.onnx_run import session_of
from edgeprune.export.parity import check
from edgeprune.target import load_target
from edgeprune.worker import serve, trtexec
from edgeprune.worker.infer import PIXEL, stored
from edgeprune.worker.loaded import arranged
from edgeprune.worker.onnx_header import read_header

MODEL, TARGET = model_of(Tiny), load_target("rpi4")
PIXELS = np.random.default_rng(5).integers(0, 256, (16, *SHAPE[1:], 3), np.uint8)
IMAGES = MODEL.input.normalise(PIXELS)
ONNX = [("onnx", precision, {}) for precision in ("fp32", "fp16", "int8")]
TFLITE = [
    *(("tflite", precision, {}) for precision in ("fp32", "fp16", "int8")),
    ("tflite", "int8", {"int8": "integer"}),
    ("tflite", "int8", {"int8": "dynamic"}),
]
KINDS = [*ONNX, *(pytest.param(*kind, marks=pytest.mark.slow) for kind in TFLITE)]


@pytest.fixture(scope="module", autouse=True)
def _ended():
    yield
    end_child()


def written(folder: Path, suffix: str, precision: str, settings: dict[str, str], *, fold: bool) -> Artifact:
    export: Callable[..., Artifact] = export_onnx
    if suffix == "tflite":
        pytest.importorskip("litert_torch", reason="needs the [tflite] extra", exc_type=ImportError)
        from edgeprune.export.tflite import export_tflite as export
    shown = calibration_of(IMAGES) if precision == "int8" else None
    out = folder / f"{'folded' if fold else 'plain'}.{suffix}"
    return export(MODEL, COST, TARGET, precision, out, shown, fold_preprocessing=fold, **settings)


def fed(path: Path, pixels: np.ndarray) -> np.ndarray:
    """What a program gets that knows nothing but the file: uint8 NHWC in, steps or floats out."""
    if path.suffix == ".onnx":
        session = session_of(path.read_bytes())
        return np.asarray(session.run(None, {"input": pixels})[0])
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path), num_threads=1)
    interpreter.allocate_tensors()
    (entry,), (result,) = interpreter.get_input_details(), interpreter.get_output_details()
    rows = []
    for image in pixels:
        interpreter.set_tensor(entry["index"], image[None])
        interpreter.invoke()
        rows.append(interpreter.get_tensor(result["index"]))
    scale, zero_point = result["quantization"]
    values = np.concatenate(rows)
    return (values.astype(np.float32) - zero_point) * scale if scale else values


@pytest.mark.parametrize(("suffix", "precision", "settings"), KINDS)
def test_pixels_give_what_the_normalised_image_gives(tmp_path, suffix, precision, settings):
    plain, folded = (written(tmp_path, suffix, precision, settings, fold=fold) for fold in (False, True))
    wanted = outputs_of(plain, tmp_path, IMAGES)[0]
    allowed = {"fp32": 1e-5, "fp16": 1e-3, "int8": 2e-2}[precision] * np.abs(
        wanted
    ).max()  # a step of int8 more or less
    np.testing.assert_allclose(fed(tmp_path / folded.path, PIXELS), wanted, atol=allowed)
    np.testing.assert_allclose(outputs_of(folded, tmp_path, IMAGES)[0], wanted, atol=allowed)


@pytest.mark.parametrize(("suffix", "precision", "settings"), KINDS)
def test_parity_compares_the_very_same_pixels(tmp_path, suffix, precision, settings):
    checked = check(written(tmp_path, suffix, precision, settings, fold=True), tmp_path, MODEL, IMAGES)
    assert checked.parity is not None
    assert checked.parity.passed
    assert checked.parity.max_rel < {"fp32": 1e-6, "fp16": 1e-3, "int8": 5e-2}[precision]
    (found,) = classes_of(checked, tmp_path, [IMAGES])
    assert (found == outputs_of(checked, tmp_path, IMAGES)[0].argmax(axis=1)).all()


@pytest.mark.parametrize(("suffix", "precision", "settings"), KINDS)
def test_its_layers_are_looked_at_with_pixels_too(tmp_path, suffix, precision, settings):
    artifact = written(tmp_path, suffix, precision, settings, fold=True)
    found = divergence_of(artifact, tmp_path, MODEL, IMAGES[:4], outputs_of(artifact, tmp_path, IMAGES[:4]))
    assert not found.found
    assert found.compared == 4


def test_a_wrong_layer_behind_folded_preprocessing_is_named(tmp_path):
    artifact = written(tmp_path, "onnx", "fp32", {}, fold=True)
    proto = onnx.load(tmp_path / artifact.path)
    (weight,) = (one for one in proto.graph.initializer if one.name == "down.weight")
    weight.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(weight), weight.name))
    onnx.save(proto, tmp_path / artifact.path)
    found = divergence_of(artifact, tmp_path, MODEL, IMAGES[:4], outputs_of(artifact, tmp_path, IMAGES[:4]))
    assert (found.found, found.layer) == (True, "down")


@pytest.mark.parametrize(("suffix", "precision", "settings"), [KINDS[0], KINDS[2], *KINDS[3:]])
def test_the_manifest_says_that_pixels_go_in_as_they_are(tmp_path, suffix, precision, settings):
    artifact = written(tmp_path, suffix, precision, settings, fold=True)
    told = artifact.details["input"]
    assert (artifact.layout, told["layout"], told["dtype"], told["shape"]) == ("NHWC", "NHWC", "uint8", [1, 12, 10, 3])
    assert (told["mean"], told["std"], told["zero_point"]) == ([0.0] * 3, [1.0] * 3, 0)
    assert told["scale"] == pytest.approx(1 / 255, rel=1e-6)
    assert told["folded"] == {"mean": list(MODEL.input.mean), "std": list(MODEL.input.std)} == artifact.folded
    # Who goes by the manifest, as by that of an int8 input, feeds the pixels.
    real = (PIXELS / 255 - np.array(told["mean"])) / np.array(told["std"])
    assert (np.round(real / told["scale"] + told["zero_point"]) == PIXELS).all()


def test_an_onnx_file_says_the_same_of_itself_takes_any_batch_and_repeats_to_the_byte(tmp_path):
    artifact = written(tmp_path, "onnx", "fp32", {}, fold=True)
    facts = {entry.key: entry.value for entry in onnx.load(tmp_path / artifact.path).metadata_props}
    assert json.loads(facts["input"]) == artifact.details["input"]
    assert (facts["input_layout"], json.loads(facts["input_mean"])) == ("NHWC", [0.0] * 3)
    np.testing.assert_allclose(
        fed(tmp_path / artifact.path, PIXELS[:3]), fed(tmp_path / artifact.path, PIXELS)[:3], atol=1e-5
    )
    assert written(tmp_path, "onnx", "fp32", {}, fold=True).sha256 == artifact.sha256
    assert written(tmp_path, "onnx", "fp32", {}, fold=False).sha256 != artifact.sha256


@pytest.mark.slow
def test_a_tflite_file_has_no_transpose_and_keeps_its_signature(tmp_path):
    artifact = written(tmp_path, "tflite", "fp32", {}, fold=True)
    assert artifact.details["warnings"] == []
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(tmp_path / artifact.path))
    (runner,) = (interpreter.get_signature_runner(name) for name in interpreter.get_signature_list())
    (name,) = runner.get_input_details()
    (values,) = runner(**{name: PIXELS[:1]}).values()
    np.testing.assert_allclose(values, fed(tmp_path / artifact.path, PIXELS[:1]), atol=1e-6)


@settings(deadline=None)
@given(
    arrays.arrays(np.uint8, (2, 5, 3, 3)),
    st.lists(st.floats(-2, 2), min_size=3, max_size=3),
    st.lists(st.floats(1 / 255, 10), min_size=3, max_size=3),
)
def test_no_pixel_is_lost_on_the_way_through_normalised_images(pixels, mean, std):
    spec = InputSpec((3, 5, 3), tuple(mean), tuple(std))
    images = arranged(spec.normalise(pixels), "NHWC", {"mean": mean, "std": std})
    np.testing.assert_array_equal(stored(images, np.uint8, PIXEL, 0), pixels)


def test_the_process_that_is_timed_and_the_hosts_reference_feed_pixels(tmp_path):
    artifact = written(tmp_path, "onnx", "fp32", {}, fold=True)
    np.save(tmp_path / "inputs.npy", IMAGES)
    asked = (str(tmp_path / artifact.path), "onnxruntime", 1, str(tmp_path / "inputs.npy"), artifact.layout)
    wanted = fed(tmp_path / artifact.path, PIXELS[:1]).ravel()
    assert serve.ServedModel().load(*asked, folded=artifact.folded)["output"] == pytest.approx(wanted, abs=1e-6)
    assert serve.profile(*asked, 2, folded=artifact.folded)["operators"]
    (reference,) = host_outputs([artifact], tmp_path, IMAGES).values()
    assert reference == pytest.approx(wanted, abs=1e-6)


def test_tensorrt_is_fed_bytes(tmp_path, monkeypatch):
    """By the stand-in for trtexec; TensorRT itself was not run on such a file."""
    artifact = written(tmp_path, "onnx", "fp32", {}, fold=True)
    path = tmp_path / artifact.path
    assert (read_header(str(path)).uint8, read_header(str(path)).shape) == (True, (1, 12, 10, 3))
    program = tmp_path / "trtexec"
    stand_in = shutil.copy(Path(__file__).with_name("stand_in_trtexec.py"), tmp_path)
    program.write_text(f'#!/bin/sh\nexec {sys.executable} {stand_in} 100300 "$@"\n')
    program.chmod(0o755)
    monkeypatch.setattr(trtexec, "find_trtexec", lambda: str(program))
    monkeypatch.setattr(trtexec, "ENGINES", str(tmp_path / "engines"))
    loaded = trtexec.load_trtexec(str(path), 1)
    output = loaded.run(loaded.prepare(arranged(IMAGES[:1], artifact.layout, artifact.folded)))
    np.testing.assert_allclose(output, fed(path, PIXELS[:1]), atol=1e-5)
    loaded.run.__self__.scratch.cleanup()  # else as long as the process


def test_a_format_of_a_third_party_is_refused_before_any_work(tmp_path, monkeypatch):
    project = tiny_project(tmp_path)
    monkeypatch.setattr("edgeprune.inputs.available_formats", lambda: {"onnx": None, "own": None})
    fault(
        run_here(*project.compress("--formats", "onnx,own", "--fold-preprocessing")), 2, "own files cannot be written"
    )


@pytest.mark.slow
def test_a_whole_run_of_such_files(tmp_path):
    project = tiny_project(tmp_path)
    out = tmp_path / "run"
    words = ("--formats", "onnx", "--fold-preprocessing", "--out", str(out), "--recover", "bn", "--target", "host")
    ran = run_forked(*project.compress(*words))
    assert ran.code == 0, ran.err
    report = json.loads((out / "report.json").read_text())
    assert {one["details"]["input"]["dtype"] for one in report["artifacts"]} == {"uint8"}
    assert all(one["parity"]["passed"] for one in report["artifacts"])
    assert report["measurements"]
