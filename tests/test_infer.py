"""infer.py beside the files: it needs no edgeprune, and gives what edgeprune's own runtime code gives."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bare_python import bare_python
from export_nets import COST, SHAPE, Tiny, images_of, model_of
from PIL import Image

from edgeprune.artifact import Artifact
from edgeprune.export.calibration import calibration_of
from edgeprune.export.child import end_child
from edgeprune.export.execute import outputs_of
from edgeprune.export.onnx import export_onnx
from edgeprune.exporting import SCRIPT, write_script
from edgeprune.package.bundle import write_files
from edgeprune.package.choice import Choice
from edgeprune.target import load_target
from edgeprune.worker import infer
from edgeprune.worker.onboard import Bundle, best, check

NAMES = ("ant", "bee", "cat", "dog", "elk")
MODEL = replace(model_of(Tiny), classes=NAMES)
ONNX = [(precision, {}) for precision in ("fp32", "fp16", "int8")]
TFLITE = [*ONNX, ("int8", {"int8": "integer"}), ("int8", {"int8": "dynamic"})]
FOLDED = {"fold_preprocessing": True}
tflite = [pytest.mark.slow]  # the converter and the quantizer alone take seconds to import


@pytest.fixture(scope="module", autouse=True)
def _ended():
    yield
    end_child()


@pytest.fixture(scope="module")
def python(tmp_path_factory) -> Path:
    packages = ("numpy", "PIL", "pillow", "onnxruntime", "ai_edge_litert", "flatbuffers")
    return bare_python(tmp_path_factory.mktemp("python") / "bare", *packages)


@pytest.fixture(scope="module")
def photo(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("photo") / "ein Bild.png"
    Image.fromarray(np.random.default_rng(3).integers(0, 256, (40, 31, 3), np.uint8)).save(path)
    return path


def written(folder: Path, suffix: str, precision: str, settings: dict[str, object]) -> Artifact:
    """A file of the tiny network with its manifest and the script beside it."""
    export: Callable[..., Artifact] = export_onnx
    if suffix == "tflite":
        pytest.importorskip("litert_torch", reason="needs the [tflite] extra", exc_type=ImportError)
        from edgeprune.export.tflite import export_tflite as export
    shown = calibration_of(images_of(24)) if precision == "int8" else None
    artifact = export(MODEL, COST, load_target("rpi4"), precision, folder / f"a.{suffix}", shown, **settings)
    artifact.save_manifest(folder)
    write_script(folder)
    return artifact


def ran(python: Path, folder: Path, *words: object) -> subprocess.CompletedProcess[str]:
    argv = [python, "-I", folder / SCRIPT, *words]
    return subprocess.run(list(map(str, argv)), capture_output=True, text=True, check=False, cwd="/")


def expected(artifact: Artifact, folder: Path, photo: Path) -> list[dict[str, object]]:
    """The highest classes by the code that verifies files."""
    pixels = infer.decode(photo.read_bytes(), SHAPE)
    values = outputs_of(artifact, folder, MODEL.input.normalise(pixels[None]))[0].ravel()
    order = np.argsort(-values, kind="stable")
    return [{"class": int(at), "name": NAMES[at], "value": float(values[at])} for at in order]


def same(found: list[dict[str, object]], wanted: list[dict[str, object]]) -> bool:
    assert [one["value"] for one in found] == pytest.approx([one["value"] for one in wanted], rel=1e-5, abs=1e-6)
    return [(one["class"], one["name"]) for one in found] == [(one["class"], one["name"]) for one in wanted]


@pytest.mark.parametrize(
    ("suffix", "precision", "settings"),
    [
        *(("onnx", *kind) for kind in (*ONNX, ("fp32", FOLDED), ("int8", FOLDED))),
        *(pytest.param("tflite", *kind, marks=tflite) for kind in (*TFLITE, ("fp32", FOLDED))),
        pytest.param("tflite", "int8", {"int8": "integer", **FOLDED}, marks=tflite),
    ],
)
def test_without_edgeprune_a_file_gives_what_it_was_verified_with(python, photo, tmp_path, suffix, precision, settings):
    folder = tmp_path / "größe 1"
    artifact = written(folder, suffix, precision, settings)
    done = ran(python, folder, folder / artifact.path, photo, "--json")
    assert done.returncode == 0, done.stderr
    assert same(json.loads(done.stdout)["best"], expected(artifact, folder, photo))


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("plain")
    written(folder, "onnx", "fp32", {})
    return folder


def test_it_prints_as_many_as_are_asked_for_by_name(python, photo, plain):
    wanted = expected(Artifact.load_manifest(plain / "a.onnx.json"), plain, photo)
    lines = ran(python, plain, plain / "a.onnx", photo, "--top", "2").stdout.splitlines()
    assert [line.partition(":")[0] for line in lines] == [one["name"] for one in wanted[:2]]
    assert len(ran(python, plain, plain / "a.onnx", photo).stdout.splitlines()) == 5


def test_without_names_classes_are_numbers(python, photo, plain, tmp_path):
    for name in ("a.onnx", SCRIPT):
        (tmp_path / name).write_bytes((plain / name).read_bytes())
    manifest = json.loads((plain / "a.onnx.json").read_text())
    del manifest["details"]["classes"]
    (tmp_path / "a.onnx.json").write_text(json.dumps(manifest))
    first = ran(python, tmp_path, tmp_path / "a.onnx", photo, "--top", "1").stdout
    wanted = expected(Artifact.load_manifest(plain / "a.onnx.json"), plain, photo)[0]
    assert first == f"class {wanted['class']}: {wanted['value']:.4g}\n"


def test_what_cannot_be_used_is_told_in_a_line(python, photo, plain, tmp_path):
    (tmp_path / "photo.png").write_bytes(b"junk")
    for name, manifest, content in (("alone.onnx", None, b"x"), ("other.onnx", "a.onnx.json", b"x")):
        (tmp_path / name).write_bytes(content)
        if manifest:
            (tmp_path / f"{name}.json").write_bytes((plain / manifest).read_bytes())
    for words, told in (
        ((plain / "a.onnx", tmp_path / "photo.png"), "photo.png as an image"),
        ((tmp_path / "alone.onnx", photo), "its manifest alone.onnx.json"),
        ((tmp_path / "other.onnx", photo), "is not the file that other.onnx.json tells of"),
    ):
        done = ran(python, plain, *words)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("error: ")
        assert told in done.stderr


def test_a_runtime_that_is_not_installed_is_told_with_how_to_get_it(photo, plain, tmp_path):
    done = ran(bare_python(tmp_path / "bare", "numpy", "PIL", "pillow"), plain, plain / "a.onnx", photo)
    assert (done.returncode, done.stderr) == (2, "error: onnxruntime is not installed: pip install onnxruntime\n")
    done = ran(bare_python(tmp_path / "barer", "numpy"), plain, plain / "a.onnx", photo)
    assert (done.returncode, done.stderr) == (2, "error: PIL is not installed\n")


@pytest.mark.parametrize("place", range(len(infer.TFLITE)))
def test_any_of_the_tflite_runtimes_will_do(place, tmp_path, monkeypatch):
    """The first that can be imported; stand-ins, for one environment hardly holds them all."""
    attribute = infer.TFLITE[place][1]
    for at, (module, _) in enumerate(infer.TFLITE):
        monkeypatch.setitem(infer.sys.modules, module, None if at != place else stand_in(attribute))
    assert infer._interpreter() == "found"


def stand_in(attribute: str) -> object:
    """An object that has "found" at the end of the dotted name."""
    found: object = "found"
    for name in reversed(attribute.split(".")):
        found = type("Module", (), {name: found})()
    return found


@pytest.mark.parametrize(
    ("suffix", "precision", "settings"),
    [
        ("onnx", "fp32", {}),
        ("onnx", "fp32", FOLDED),
        pytest.param("tflite", "int8", {}, marks=tflite),
        pytest.param("tflite", "int8", {"int8": "integer"}, marks=tflite),
        pytest.param("tflite", "int8", {"int8": "integer", **FOLDED}, marks=tflite),
    ],
)
def test_a_packaged_file_gives_the_same(photo, tmp_path, suffix, precision, settings):
    artifact = written(tmp_path / "run", suffix, precision, settings)
    choice = Choice(
        tmp_path / "run", artifact, MODEL.input, images_of(2), "2026-01-01T00:00:00+00:00", "tiny", artifact.runtime
    )
    (tmp_path / "bundle").mkdir()
    write_files(choice, load_target("rpi4"), [], tmp_path / "bundle")
    bundle = Bundle(tmp_path / "bundle")
    assert same(best(bundle, photo), expected(artifact, tmp_path / "run", photo))
    assert check(bundle)["passed"]
