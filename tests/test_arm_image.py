"""Arm64 images for real, on a Debian base made here: built, tested and run under QEMU, loaded by docker. No registry.

Some minutes. Whatever they make is in folders of the tests'.
"""

from __future__ import annotations

import json
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import replace

import pytest
from arm_board import missing
from container_engines import debian_image, docker_daemon, storage, without
from package_runs import a_run

from edgeprune.package.image import ImageOrder
from edgeprune.package.smoke import cpuinfo, run_words
from edgeprune.packaging import Packaged, PackageOrder, package

BASE = "localhost/edgeprune-test-base:arm64"
MOST_BYTES = {"onnx": 200_000_000, "tflite": 150_000_000}
"""Of an image, compressed."""
_WHY_NOT = missing() or without("buildah")
_NO_PODMAN, _NO_DOCKER = without("podman", "runc"), without("dockerd", "docker")

pytestmark = [pytest.mark.arm, pytest.mark.slow, pytest.mark.skipif(bool(_WHY_NOT), reason=_WHY_NOT or "-")]


@pytest.fixture(scope="module")
def order(tmp_path_factory) -> Iterator[PackageOrder]:
    pytest.importorskip("litert_torch", reason="needs the [tflite] extra", exc_type=ImportError)
    folder = tmp_path_factory.mktemp("image")
    with storage(tmp_path_factory.mktemp("store")):
        debian_image(BASE, "arm64")
        asked = ImageOrder("oci", "buildah", BASE, offline=True)
        run = a_run(folder / "run", tflite=True)
        wheels = package(PackageOrder(run, "rpi4", out=folder / "bundle")).place
        yield PackageOrder(run, "rpi4", output="oci", wheels=wheels, image=asked)


@pytest.fixture(scope="module")
def built(order) -> Packaged:
    return package(order)


def read(archive: tarfile.TarFile, digest: str) -> dict:
    return json.loads(archive.extractfile("blobs/" + digest.replace(":", "/")).read())


def check_told(made: Packaged) -> None:
    """What is told of an image: it works, how large it is, and no time of this machine's."""
    smoke = made.image["smoke"]
    assert (smoke["passed"], smoke["emulated"]) == (True, True)
    assert smoke["max_rel"] < 1e-5
    assert smoke["said"] == "functional under emulation, not timed"
    assert "_ms" not in json.dumps(made.to_json())
    layers = made.image["layers"]
    assert all(layer["compressed"] for layer in layers)
    total = sum(layer["bytes"] for layer in layers)
    print(f"{made.artifact}: layers of {[layer['bytes'] for layer in layers]} bytes, {total} in all, compressed")
    assert total < MOST_BYTES[made.artifact.rpartition(".")[2]]


def test_the_image_computes_what_the_host_computes_and_no_time_is_told(built):
    check_told(built)


def test_the_image_is_as_the_board_wants_it(built):
    with tarfile.open(built.place) as archive:
        manifest = read(archive, built.image["digest"])
        document = read(archive, manifest["config"]["digest"])
    config = document["config"]
    assert (document["architecture"], document["variant"], document["os"]) == ("arm64", "v8", "linux")
    assert (config["User"], config["StopSignal"], config["Cmd"]) == ("65532:65532", "SIGTERM", ["report"])
    assert config["Entrypoint"] == ["python3", "/opt/edgeprune/edgeprune.pyz"]
    assert built.image["reference"].endswith(":" + config["Labels"]["edgeprune.artifact.sha256"][:12])
    assert config["Labels"]["edgeprune.target"] == "rpi4"
    assert not any(entry.startswith("QEMU") for entry in config["Env"])
    assert not any("RUN" in entry["created_by"] for entry in document["history"])


@pytest.mark.skipif(bool(_NO_PODMAN), reason=_NO_PODMAN or "-")
def test_podman_runs_litert_as_its_own_user_without_network_or_writable_root(order, tmp_path):
    """LiteRT's wheel is not in the bundle of ONNX Runtime, so it comes from the index."""
    asked = replace(order.image, engine="podman", offline=False)
    changed = {"artifact": "pruned-fp32.tflite", "out": tmp_path / "image.tar", "wheels": None, "image": asked}
    check_told(package(replace(order, **changed)))


@pytest.mark.skipif(bool(_NO_DOCKER), reason=_NO_DOCKER or "-")
def test_docker_loads_the_file_that_buildah_made_and_runs_it(order, tmp_path, tmp_path_factory):
    asked = replace(order.image, kind="docker-archive", smoke=False)
    made = package(replace(order, output="docker-archive", out=tmp_path / "image.tar", image=asked))
    with tarfile.open(made.place) as archive:
        (listed,) = json.loads(archive.extractfile("manifest.json").read())
        config = json.loads(archive.extractfile(listed["Config"]).read())["config"]
    assert config["Healthcheck"]["Test"] == ["CMD", "python3", "/opt/edgeprune/edgeprune.pyz", "check"]
    seen = tmp_path / "cpuinfo"
    seen.write_text(cpuinfo())
    with docker_daemon(tmp_path_factory.mktemp("docker")):
        loaded = subprocess.run(["docker", "load", "--input", made.place], check=True, capture_output=True, text=True)
        assert made.image["reference"] in loaded.stdout
        words = run_words("docker", made.image["reference"], "linux/arm64/v8", "edgeprune-test", seen)
        ran = subprocess.run(["timeout", "-k5", "200", *words], check=False, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)["passed"] is True
