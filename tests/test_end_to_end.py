"""The main job, whole: `edgeprune compress --target rpi4` as a user runs it, and everything it leaves behind."""

from __future__ import annotations

import io
import json
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import onnxruntime
import pytest
import torch
from conftest import DATA
from PIL import Image
from program_runs import REPOSITORY, Ran, Tiny, run_forked, run_program, run_python

import edgeprune
from edgeprune.artifact import Artifact
from edgeprune.files import sha256_of
from edgeprune.imports import load_object
from edgeprune.measurement import load_measurements
from edgeprune.plan import PruningPlan
from edgeprune.report.document import SCHEMA_FILE

FILES = ("baseline-fp32.onnx", "pruned-fp32.onnx", "baseline-fp32.tflite", "pruned-fp32.tflite")


@dataclass(frozen=True)
class Run:
    """A finished run."""

    folder: Path
    report: dict[str, Any]
    ran: Ran


def finished(folder: Path, ran: Ran) -> Run:
    assert ran.code == 0, ran.err
    return Run(folder, json.loads((folder / "report.json").read_text()), ran)


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The demo, run once as `make demo` runs it, from a folder of its own."""
    place = tmp_path_factory.mktemp("demo")
    return finished(place / "runs" / "digits-rpi4", run_program("compress", "--target", "rpi4", cwd=place))


@pytest.fixture(scope="session")
def test_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's images to score with, for scripts that know nothing of edgeprune."""
    images, labels = load_object(f"{REPOSITORY / 'models' / 'digits.py'}:test", "data function")()
    path: Path = tmp_path_factory.mktemp("images") / "test.npz"
    np.savez(path, images=images.reshape(len(images), 8, 8, 1), labels=labels)
    return path


def test_the_run_folder_holds_everything_and_nothing_half_written(demo: Run) -> None:
    manifests = {f"{name}.json" for name in FILES}
    rest = {"plan.json", "infer.py", "measurements.jsonl", "inputs.npy", "pruned.safetensors", "pruned.json"}
    reports = {"report.json", "report.md", "report.html"}
    slow = any(one["verdict"] != "faster" for one in demo.report["comparisons"])
    asked_why = {"profiles.jsonl"} if slow else set()
    assert {path.name for path in demo.folder.iterdir()} == {*FILES, *manifests, *rest, *reports, *asked_why}
    assert [path.name for path in demo.folder.parent.iterdir()] == [demo.folder.name]


def test_the_report_is_valid_by_its_published_schema(demo: Run) -> None:
    schema = json.loads(SCHEMA_FILE.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(demo.report, schema)


@pytest.mark.parametrize(
    ("part", "fields"),
    [
        ("", "schema edgeprune_version model target criterion cost accuracy layers protected artifacts measurements"),
        ("", "comparisons stages"),
        ("model", "name parameters input"),
        ("criterion", "name settings"),
        ("cost", "baseline pruned"),
        ("cost/baseline", "macs parameters"),
        ("cost/pruned", "macs parameters"),
        ("accuracy", "metric images baseline after_cut after_recovery"),
        ("layers/*", "name before after"),
        ("protected/*", "name reason"),
        ("artifacts/*", "path role format precision bytes sha256 parity"),
        ("artifacts/*/parity", "max_abs top1_agreement passed"),
        ("measurements/*", "artifact runtime runtime_version threads samples p50_ms p90_ms p99_ms device trust"),
        ("comparisons/*", "baseline candidate runtime threads ratio ci95 verdict"),
        ("stages/*", "name seconds"),
    ],
)
def test_the_report_has_every_field_of_the_issue(demo: Run, part: str, fields: str) -> None:
    found: list[Any] = [demo.report]
    for step in filter(None, part.split("/")):
        found = [item for each in found for item in (each if step == "*" else [each[step]])]
    assert found
    for each in found:
        assert set(fields.split()) <= each.keys()


def test_every_artifact_passed_parity_and_its_manifest_and_hash_are_right(demo: Run) -> None:
    assert tuple(one["path"] for one in demo.report["artifacts"]) == FILES
    for one in demo.report["artifacts"]:
        file = demo.folder / one["path"]
        assert one["parity"]["passed"] is True
        assert one["parity"]["top1_agreement"] == 1.0
        assert (one["sha256"], one["bytes"]) == (sha256_of(file), file.stat().st_size)
        assert Artifact.load_manifest(demo.folder / f"{one['path']}.json").sha256 == one["sha256"]


def test_the_plan_and_the_layers_say_the_same(demo: Run) -> None:
    plan = PruningPlan.load(demo.folder / "plan.json")
    assert {row["name"]: (row["before"], row["after"]) for row in demo.report["layers"]} == {
        name: (size, plan.width(name)) for name, size in plan.sizes.items()
    }
    assert demo.report["budget"]["plan"] == plan.fingerprint
    pruned = [one for one in demo.report["artifacts"] if one["role"] == "pruned"]
    assert {one["plan_fingerprint"] for one in pruned} == {plan.fingerprint}
    assert demo.report["cost"]["pruned"]["macs"] / demo.report["cost"]["baseline"]["macs"] == pytest.approx(
        plan.macs_kept
    )
    assert all(width % plan.channel_multiple == 0 for width in map(plan.width, plan.keep))


def test_the_cut_layers_are_really_smaller_and_the_protected_ones_are_named(demo: Run) -> None:
    whole = {row["name"] for row in demo.report["protected"]}
    for row in demo.report["layers"]:
        assert (row["after"] == row["before"]) if row["name"] in whole else (row["after"] <= row["before"]), row
    assert sum(row["after"] < row["before"] for row in demo.report["layers"]) >= 2
    model = edgeprune.load(demo.folder)
    assert sum(p.numel() for p in model.module.parameters()) == demo.report["cost"]["pruned"]["parameters"]


def test_the_saved_model_computes_what_the_onnx_file_computes(demo: Run, test_images: Path) -> None:
    model = edgeprune.load(demo.folder)
    images = model.input.normalise(np.load(test_images)["images"][:64])
    with torch.no_grad():
        wanted = model.module(torch.from_numpy(images)).numpy()
    session = onnxruntime.InferenceSession(demo.folder / "pruned-fp32.onnx")
    np.testing.assert_allclose(session.run(None, {"input": images})[0], wanted, rtol=1e-4, atol=1e-4)
    assert model.plans == (demo.report["budget"]["plan"],)


PLAIN_ONNX = """
import json, sys
import numpy as np, onnxruntime
stored = np.load(sys.argv[2])
session = onnxruntime.InferenceSession(sys.argv[1])
facts = session.get_modelmeta().custom_metadata_map
mean, std = (np.array(json.loads(facts[key]), np.float32) for key in ("input_mean", "input_std"))
images = ((stored["images"].astype(np.float32) / 255 - mean) / std).transpose(0, 3, 1, 2)
found = session.run(None, {"input": images})[0].argmax(1)
assert "edgeprune" not in sys.modules and "torch" not in sys.modules
print((found == stored["labels"]).mean())
"""

PLAIN_TFLITE = """
import sys
import numpy as np
from ai_edge_litert.interpreter import Interpreter
stored = np.load(sys.argv[2])
images = (stored["images"].astype(np.float32) / 255 - np.float32(0.306)) / np.float32(0.377)
model = Interpreter(sys.argv[1])
model.allocate_tensors()
found = []
for image in images:
    model.set_tensor(model.get_input_details()[0]["index"], image[None])
    model.invoke()
    found.append(model.get_tensor(model.get_output_details()[0]["index"]).argmax())
assert "edgeprune" not in sys.modules and "torch" not in sys.modules
print((found == stored["labels"]).mean())
"""


@pytest.mark.parametrize("name", FILES)
def test_the_files_run_without_edgeprune_and_are_as_right_as_the_report_says(
    demo: Run, test_images: Path, name: str
) -> None:
    script = PLAIN_ONNX if name.endswith("onnx") else PLAIN_TFLITE
    ran = run_python(["-I", "-W", "ignore", "-c", script, str(demo.folder / name), str(test_images)])
    assert ran.code == 0, ran.err
    accuracy = demo.report["accuracy"]
    told = accuracy["baseline"] if name.startswith("baseline") else accuracy["after_recovery"]
    assert float(ran.out) == pytest.approx(told, abs=1.5 / accuracy["images"])


def test_recovery_makes_the_demo_good_again(demo: Run) -> None:
    accuracy = demo.report["accuracy"]
    assert accuracy["metric"] == "top1"
    assert accuracy["baseline"] > 0.98
    assert accuracy["after_recovery"] > accuracy["after_cut"] + 0.1
    assert accuracy["after_recovery"] > 0.95


def test_every_raw_sample_is_kept_and_counted(demo: Run) -> None:
    kept = load_measurements(demo.folder / "measurements.jsonl")
    told = {(one["artifact"], one["threads"]): one for one in demo.report["measurements"]}
    assert {(one.path, one.threads) for one in kept} == set(told)
    for one in kept:
        samples = one.samples_ns
        row = told[one.path, one.threads]
        assert row["samples"] == len(samples) > 0
        assert row["p50_ms"] == pytest.approx(float(np.median(samples)) / 1e6)
        assert row["p50_ms"] <= row["p90_ms"] <= row["p99_ms"]
        rounds = {block.round for block in one.blocks}
        assert rounds == set(range(len(rounds)))
        assert 16 <= len(rounds) <= 24  # rounds that something befell are repeated, half as many at most


def test_the_verdicts_agree_with_their_intervals(demo: Run) -> None:
    assert len(demo.report["comparisons"]) == len(demo.report["measurements"]) / 2
    for one in demo.report["comparisons"]:
        low, high = one["ci95"]
        assert low <= one["ratio"] <= high
        wanted = "faster" if low > 1 else "slower" if high < 1 else "no significant difference"
        assert one["verdict"] == wanted
        assert (one["baseline"].split("-")[0], one["candidate"].split("-")[0]) == ("baseline", "pruned")


def test_the_report_says_plainly_that_the_times_are_of_the_host(demo: Run) -> None:
    assert [machine["is_target"] for machine in demo.report["devices"]] == [False]
    for text in (demo.ran.out, (demo.folder / "report.md").read_text(), (demo.folder / "report.html").read_text()):
        assert "not on Raspberry Pi 4" in " ".join(text.split())


def test_every_stage_is_timed(demo: Run) -> None:
    names = [stage["name"] for stage in demo.report["stages"]]
    for name in ("load", "images", "trace", "score", "allocate", "cut", "recover", "accuracy", "parity", "bench"):
        assert name in names
    assert all(stage["seconds"] >= 0 for stage in demo.report["stages"])


# A model and images of the user's own


QUICK = ("--formats", "onnx", "--no-bench", "--out")


def photos(count: int) -> list[Image.Image]:
    chance = np.random.default_rng(1)
    return [Image.fromarray(chance.integers(0, 256, (12, 10), dtype=np.uint8)) for _ in range(count)]


@pytest.mark.slow
def test_a_users_model_with_a_folder_of_images(tiny: Tiny, tmp_path: Path) -> None:
    for number, image in enumerate(photos(40)):
        folder = tmp_path / "photos" / f"class{number % 4}"
        folder.mkdir(parents=True, exist_ok=True)
        image.save(folder / f"{number}.png")
    run = finished(
        tmp_path / "run",
        run_forked(*tiny.compress("--data", str(tmp_path / "photos"), *QUICK, str(tmp_path / "run"))),
    )
    assert run.report["accuracy"]["metric"] == "top1"
    assert run.report["accuracy"]["images"] == 20
    assert run.report["model"]["source"] == tiny.net
    assert edgeprune.load(run.folder).name == "net"


@pytest.mark.slow
def test_a_users_model_with_a_tar_of_images(tiny: Tiny, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "photos.tar", "w") as archive:
        lines = []
        for number, image in enumerate(photos(24)):
            stream = io.BytesIO()
            image.save(stream, "JPEG")
            _add(archive, f"some/{number}.jpg", stream.getvalue())
            lines.append(f"some/{number}.jpg {number % 4}")
        _add(archive, "labels.txt", "\n".join(lines).encode())
    run = finished(
        tmp_path / "run",
        run_forked(*tiny.compress("--data", str(tmp_path / "photos.tar"), *QUICK, str(tmp_path / "run"))),
    )
    assert (run.report["accuracy"]["metric"], run.report["accuracy"]["images"]) == ("top1", 12)


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


# Real networks and images; the whole commands of the README take minutes, these the same way with fewer images


@pytest.mark.slow
@pytest.mark.data
def test_resnet56_on_cifar(tmp_path: Path) -> None:
    source = REPOSITORY / "benchmarks" / "shared_data.py"
    ran = run_program(
        *("compress", "resnet56", "--weights", str(DATA.resolve() / "resnet56_cifar10_jpegft.safetensors")),
        *("--data", f"{source}:cifar10_test", "--calibration-data", f"{source}:cifar10_train"),
        *("--target", "rpi4", "--macs", "0.52", "--images", "500", "--out", str(tmp_path / "run")),
        env={"EDGEPRUNE_DATA": str(DATA.resolve())},
    )
    run = finished(tmp_path / "run", ran)
    accuracy = run.report["accuracy"]
    assert accuracy["baseline"] > 0.8  # 88.82 % on all 10,000
    assert accuracy["after_recovery"] > max(0.6, accuracy["after_cut"])
    assert 0.45 < run.report["budget"]["reached"]["macs"] <= 0.52
    assert all(one["parity"]["passed"] for one in run.report["artifacts"])


@pytest.mark.slow
@pytest.mark.data
def test_mobilenet_v2_on_imagenet(tmp_path: Path) -> None:
    ran = run_program(
        *(
            "compress",
            "mobilenet_v2_tf",
            "--weights",
            str(DATA.resolve() / "mobilenet_v2_1.0_224_imagenet.safetensors"),
        ),
        *("--data", str(DATA.resolve() / "imagenet_val1300_227.tar"), "--target", "rpi4", "--macs", "0.65"),
        *("--images", "100", "--calibration-images", "64", "--out", str(tmp_path / "run")),
    )
    run = finished(tmp_path / "run", ran)
    accuracy = run.report["accuracy"]
    assert accuracy["baseline"] > 0.68  # 78.0 % on all 1300
    assert accuracy["top5"]["baseline"] > accuracy["baseline"]
    assert accuracy["after_recovery"] >= accuracy["after_cut"]
    assert 0.6 < run.report["budget"]["reached"]["macs"] <= 0.65
    assert all(one["parity"]["passed"] for one in run.report["artifacts"])
