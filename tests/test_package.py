"""A bundle: what is in it, what it says of itself, and what is refused. Wheels are made here; no network."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from jsonschema import Draft7Validator, ValidationError
from package_runs import PLAIN, a_run, plain_wheels, report_of, write_wheel
from program_runs import run_here
from referencing import Registry, Resource

from edgeprune.errors import DataError, DeviceError, OutputError, ParityError, UsageError
from edgeprune.package.choice import Choice, choose
from edgeprune.package.inventory import components, licences
from edgeprune.packaging import Packaged, PackageOrder, package
from edgeprune.target import load_target

RPI4 = load_target("rpi4")


@pytest.fixture(scope="module")
def pristine(tmp_path_factory) -> Path:
    return a_run(tmp_path_factory.mktemp("package") / "run")


@pytest.fixture(scope="module")
def wheels(tmp_path_factory) -> Path:
    return plain_wheels(tmp_path_factory.mktemp("package") / "wheels")


@pytest.fixture(scope="module")
def packaged(pristine, wheels, tmp_path_factory) -> Packaged:
    out = tmp_path_factory.mktemp("package") / "bundle"
    return package(PackageOrder(pristine, "rpi4", out=out, wheels=wheels))


@pytest.fixture
def run(pristine, tmp_path) -> Path:
    """A run that may be spoilt."""
    return shutil.copytree(pristine, tmp_path / "run")


def chosen(run: Path, *words, **settings) -> Choice:
    return choose(run, report_of(run), *words, **settings)


def tree(folder: Path) -> dict[str, tuple]:
    """All that there is of a folder: names, bytes, modes, times."""
    return {
        path.relative_to(folder).as_posix(): (
            path.read_bytes() if path.is_file() else b"",
            path.stat().st_mode,
            path.stat().st_mtime,
        )
        for path in folder.rglob("*")
    }


def test_the_file_is_the_pruned_one_in_the_format_that_the_board_prefers(pristine):
    assert chosen(pristine, RPI4).artifact.path == "pruned-fp32.onnx"
    assert chosen(pristine, RPI4, "baseline-fp32.onnx").artifact.role == "baseline"


def test_a_file_that_the_run_does_not_have_is_told_with_the_nearest(pristine):
    with pytest.raises(UsageError, match=r"Did you mean 'pruned-fp32\.onnx'"):
        chosen(pristine, RPI4, "pruned-int8.onnx")
    with pytest.raises(UsageError, match="no pruned file that rpi4 runs"):
        chosen(pristine, replace(RPI4, formats=("tflite",)))


def test_a_file_that_is_not_the_one_of_its_manifest_is_refused(run):
    with (run / "pruned-fp32.onnx").open("ab") as file:
        file.write(b"more")
    with pytest.raises(UsageError, match="is of another one"):
        chosen(run, RPI4)


def test_a_manifest_that_is_not_the_one_of_the_report_is_refused(run):
    shutil.copy(run / "baseline-fp32.onnx.json", run / "pruned-fp32.onnx.json")
    with pytest.raises(UsageError, match="is of another one"):
        chosen(run, RPI4)


def test_a_file_without_parity_is_not_packaged(run):
    report = report_of(run)
    replace(report, artifacts=tuple(replace(one, parity=None) for one in report.artifacts)).save(run)
    with pytest.raises(ParityError, match="did not pass parity"):
        chosen(run, RPI4)


def test_a_run_without_its_images_is_told(run):
    (run / "inputs.npy").unlink()
    with pytest.raises(DataError, match="not the images of a run"):
        chosen(run, RPI4)


def test_a_runtime_that_comes_with_the_board_brings_no_package(run, wheels, tmp_path):
    made = package(PackageOrder(run, "jetson-orin-nano", runtime="tensorrt", out=tmp_path / "bundle", wheels=wheels))
    assert made.packages == ("numpy==1.0", "pillow==1.0", "pip==1.0")
    facts = json.loads((made.place / "bundle.json").read_text())
    assert facts["runtime"] == "tensorrt"
    assert facts["tolerance"] > json.loads((package_of(run, wheels, tmp_path) / "bundle.json").read_text())["tolerance"]


def package_of(run: Path, wheels: Path, folder: Path) -> Path:
    return package(PackageOrder(run, "rpi4", out=folder / "plain", wheels=wheels)).place


def test_a_runtime_that_does_not_read_the_file_is_told(pristine):
    with pytest.raises(UsageError, match="litert reads no onnx files"):
        chosen(pristine, RPI4, runtime="litert")
    with pytest.raises(UsageError, match="unknown runtime 'tensorflow'"):
        chosen(pristine, RPI4, runtime="tensorflow")


def test_a_python_that_no_system_has_is_told(pristine, tmp_path):
    with pytest.raises(UsageError, match=r"3\.13 \(Debian 13, Raspberry Pi OS Trixie\)"):
        package(PackageOrder(pristine, python="3.8", out=tmp_path / "bundle"))


def test_a_bundle_holds_all_it_takes_and_nothing_else(packaged):
    inside = {path.name for path in packaged.place.iterdir()}
    model = {"pruned-fp32.onnx", "pruned-fp32.onnx.json", "inputs.npy", "expected.npy", "bundle.json"}
    papers = {"LICENSE", "LICENCES.txt", "sbom.cdx.json", "SHA256SUMS", "requirements.txt"}
    assert inside == {"run.sh", "edgeprune.pyz", "wheels"} | model | papers
    assert packaged.packages == tuple(f"{name}==1.0" for name in PLAIN)
    assert packaged.to_json()["bytes"] == sum(len(content) for content, *_ in tree(packaged.place).values())


def test_every_file_of_a_bundle_has_its_hash(packaged):
    rows = [line.split("  ") for line in (packaged.place / "SHA256SUMS").read_text().splitlines()]
    assert {name for _, name in rows} == {name for name in tree(packaged.place) if name not in ("SHA256SUMS", "wheels")}
    assert all(hashlib.sha256((packaged.place / name).read_bytes()).hexdigest() == digest for digest, name in rows)


def test_pip_is_given_one_version_and_one_hash_of_each_package_but_itself(packaged):
    wheel = packaged.place / "wheels" / "numpy-1.0-py3-none-any.whl"
    first, *others = (packaged.place / "requirements.txt").read_text().splitlines()
    assert first == f"numpy==1.0 --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}"
    assert [line.partition("==")[0] for line in others] == ["onnxruntime", "pillow"]


def test_the_same_run_gives_the_same_bundle(packaged, pristine, wheels, tmp_path):
    package(PackageOrder(pristine, "rpi4", out=tmp_path / "again", wheels=wheels))
    assert tree(tmp_path / "again") == tree(packaged.place)


def test_the_time_of_the_files_can_be_set(pristine, wheels, tmp_path, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    package(PackageOrder(pristine, out=tmp_path / "bundle", wheels=wheels))
    assert {time for *_, time in tree(tmp_path / "bundle").values()} == {1_700_000_000}
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "yesterday")
    with pytest.raises(UsageError, match="SOURCE_DATE_EPOCH is 'yesterday'"):
        package(PackageOrder(pristine, out=tmp_path / "other", wheels=wheels))


def test_the_bill_of_materials_names_the_model_the_worker_and_every_package(packaged):
    bill = json.loads((packaged.place / "sbom.cdx.json").read_text())
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    assert [one["name"] for one in bill["components"]] == ["pruned-fp32.onnx", "edgeprune", *PLAIN]
    numpy = bill["components"][2]
    assert numpy["purl"] == "pkg:pypi/numpy@1.0"
    assert numpy["licenses"] == [{"expression": "MIT"}]
    (depends,) = bill["dependencies"]
    assert depends["dependsOn"] == [one["bom-ref"] for one in bill["components"]]


def test_the_bill_of_materials_is_valid_by_the_official_schema(packaged):
    cyclonedx = pytest.importorskip("cyclonedx", reason="cyclonedx-python-lib is not installed ([dev] extra)")
    folder = Path(cyclonedx.__file__).parent / "schema" / "_res"
    schemas = {path.name: json.loads(path.read_text()) for path in folder.glob("*.SNAPSHOT.schema.json")}
    # They refer to each other by these names, beside their own address.
    addresses = [(f"http://cyclonedx.org/schema/{name}", Resource.from_contents(one)) for name, one in schemas.items()]
    known, schema = Registry().with_resources(addresses), schemas["bom-1.6.SNAPSHOT.schema.json"]
    bill = json.loads((packaged.place / "sbom.cdx.json").read_text())
    Draft7Validator(schema, registry=known).validate(bill)
    bill["components"][0]["type"] = "spaceship"
    with pytest.raises(ValidationError):
        Draft7Validator(schema, registry=known).validate(bill)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ("License-Expression: MIT OR Apache-2.0", "MIT OR Apache-2.0"),
        ("License: ignored\nClassifier: License :: OSI Approved :: BSD License", "BSD License"),
        ("License: MIT License\n        and a long text", "MIT License"),
        ("", "not stated"),
    ],
)
def test_a_licence_is_what_the_wheel_says(tmp_path, pristine, fields, said):
    (found,) = components([write_wheel(tmp_path, "thing", licence=fields)])
    assert found.licence == said
    assert f"thing               1.0               {said}" in licences([found], chosen(pristine, RPI4))


def test_a_package_without_a_wheel_is_named_and_nothing_is_left(pristine, wheels, tmp_path):
    shutil.copytree(wheels, tmp_path / "wheels")
    (tmp_path / "wheels" / "pillow-1.0-py3-none-any.whl").unlink()
    with pytest.raises(DeviceError, match=r"for aarch64, Python 3\.11") as told:
        package(PackageOrder(pristine, out=tmp_path / "bundle", wheels=tmp_path / "wheels"))
    assert "No matching distribution found for pillow" in told.value.where
    assert [path.name for path in tmp_path.iterdir()] == ["wheels"]


def test_a_bundle_is_replaced_only_when_asked_and_nothing_else_ever_is(pristine, wheels, tmp_path):
    order = PackageOrder(pristine, out=tmp_path / "bundle", wheels=wheels)
    package(order)
    with pytest.raises(OutputError, match="the output folder exists"):
        package(order)
    assert package(replace(order, overwrite=True)).place.is_dir()
    (tmp_path / "bundle" / "bundle.json").unlink()
    with pytest.raises(OutputError, match="not a bundle of edgeprune; it is not replaced"):
        package(replace(order, overwrite=True))


def test_the_command_prints_one_document(run, wheels):
    ran = run_here("package", str(run), "--wheels", str(wheels), "--json")
    assert ran.code == 0, ran.err
    assert json.loads(ran.out)["place"] == str(run / "bundle")
    assert json.loads(ran.out)["target"] == "rpi4"


def on_board(folder: Path, *words: str) -> subprocess.CompletedProcess:
    return subprocess.run([folder / "run.sh", *words], capture_output=True, text=True, check=False)


def test_another_machine_than_the_bundles_is_told(packaged):
    ran = on_board(packaged.place)
    assert ran.returncode == 2
    assert "this bundle is for aarch64, this machine is" in ran.stderr
    assert not (packaged.place / ".venv").exists()


def test_a_damaged_bundle_and_another_python_are_told(pristine, wheels, tmp_path):
    out = tmp_path / "bundle"
    package(PackageOrder(pristine, "host", python="3.9", out=out, wheels=wheels))
    script = (out / "run.sh").read_text()
    (out / "run.sh").write_text(script + "\n")
    ran = on_board(out)
    assert (ran.returncode, "run.sh: FAILED" in ran.stdout + ran.stderr) == (2, True)
    assert "the bundle is damaged" in ran.stderr
    (out / "run.sh").write_text(script)
    ran = subprocess.run(
        [out / "run.sh"],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": "/usr/bin:/bin", "PYTHON": "python3"},
    )
    assert ran.returncode == 2
    assert "this bundle is for Python 3.9, this is 3." in ran.stderr
