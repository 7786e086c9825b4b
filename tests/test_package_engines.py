"""Images by real engines, of stand-in wheels on an empty base: what repeats, what a registry gets, what failures leave.

Nothing of the board runs here, so it is quick. Images that run are in test_arm_image.py.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.request import Request, urlopen

import pytest
from container_engines import buildah, docker_daemon, empty_image, registry, storage, without
from package_runs import a_run, plain_wheels, write_wheel
from ssh_server import write_script

from edgeprune.errors import DeviceError, OutputError
from edgeprune.package.image import ImageOrder
from edgeprune.packaging import Packaged, PackageOrder, package

_WHY_NOT = without("buildah", "podman")
pytestmark = [pytest.mark.engines, pytest.mark.slow, pytest.mark.skipif(bool(_WHY_NOT), reason=_WHY_NOT or "-")]

BASE = "localhost/edgeprune-test-empty:1"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
both = pytest.mark.parametrize("engine", ["buildah", "podman"])
needs_docker = pytest.mark.skipif(bool(without("dockerd", "docker")), reason=without("dockerd", "docker") or "-")
needs_registry = pytest.mark.skipif(bool(without("docker-registry")), reason=without("docker-registry") or "-")


@pytest.fixture(scope="module")
def order(tmp_path_factory) -> Iterator[PackageOrder]:
    folder = tmp_path_factory.mktemp("engines")
    with storage(tmp_path_factory.mktemp("store")):
        empty_image(BASE, "arm64")
        asked = ImageOrder("oci", "buildah", BASE, offline=True, smoke=False)
        run, wheels = a_run(folder / "run"), plain_wheels(folder / "wheels")
        yield PackageOrder(run, "rpi4", output="oci", wheels=wheels, image=asked)


@pytest.fixture
def docker(order, tmp_path_factory) -> Iterator[None]:
    """A docker that has the base."""
    archive = tmp_path_factory.mktemp("loaded") / "base.tar"
    buildah("push", BASE, f"docker-archive:{archive}:{BASE}")
    with docker_daemon(tmp_path_factory.mktemp("docker")):
        subprocess.run(["docker", "load", "--quiet", "--input", archive], check=True, capture_output=True)
        yield


def images() -> set[str]:
    """All that buildah and podman hold, working containers included."""
    return set(buildah("images", "--all", "--format={{.ID}} {{.Name}}:{{.Tag}}").splitlines()) | set(
        buildah("containers", "--format={{.ContainerName}}").splitlines()
    )


def twice(order: PackageOrder, folder: Path, engine: str, kind: str) -> list[Packaged]:
    """Made two times, a second apart, from nothing that the first has left."""
    found = []
    for name in ("1.tar", "2.tar"):
        made = package(
            replace(order, output=kind, out=folder / name, image=replace(order.image, engine=engine, kind=kind))
        )
        found.append(made)
        subprocess.run([engine, "rmi", "--force", made.image["reference"]], check=True, capture_output=True)
        if engine == "docker":  # its build cache
            subprocess.run(["docker", "image", "prune", "--force"], check=True, capture_output=True)
        time.sleep(1)
    return found


@both
@pytest.mark.parametrize("kind", ["oci", "docker-archive"])
def test_the_same_run_gives_the_same_file_to_the_byte(order, tmp_path, engine, kind):
    first, second = twice(order, tmp_path, engine, kind)
    assert first.image["digest"] == second.image["digest"]
    assert first.image["layers"] == second.image["layers"]
    if kind == "docker-archive":
        assert first.image["sha256"] == second.image["sha256"]


@needs_docker
def test_docker_too_gives_the_same_file_and_can_load_it(order, docker, tmp_path):
    first, second = twice(order, tmp_path, "docker", "docker-archive")
    assert first.image["sha256"] == second.image["sha256"]
    subprocess.run(["docker", "load", "--input", first.place], check=True, capture_output=True)
    words = ["docker", "image", "inspect", "--format", "{{.Id}} {{.Architecture}} {{.Config.User}}"]
    said = subprocess.run([*words, first.image["reference"]], check=True, capture_output=True, text=True).stdout
    assert said.split() == [first.image["digest"], "arm64", "65532:65532"]


@needs_docker
def test_docker_loads_what_the_others_made(order, docker, tmp_path):
    asked = replace(order.image, kind="docker-archive")
    made = package(replace(order, output="docker-archive", out=tmp_path / "image.tar", image=asked))
    said = subprocess.run(["docker", "load", "--input", made.place], check=True, capture_output=True, text=True).stdout
    assert made.image["reference"] in said


@needs_registry
@both
def test_a_registry_gets_the_image_that_is_in_the_file(order, tmp_path, tmp_path_factory, engine):
    with registry(tmp_path_factory.mktemp("registry")) as host:
        asked = replace(order.image, engine=engine, push=f"{host}/nets/tiny:1")
        made = package(replace(order, out=tmp_path / "image.tar", image=asked))
        wanted = Request(f"http://{host}/v2/nets/tiny/manifests/1", headers={"Accept": MANIFEST})
        with urlopen(wanted, timeout=10) as answer:
            there = json.loads(answer.read())
    with tarfile.open(made.place) as archive:
        here = json.loads(archive.extractfile("blobs/" + made.image["digest"].replace(":", "/")).read())
    assert there["config"]["digest"] == here["config"]["digest"]


@needs_registry
@both
def test_a_registry_that_refuses_is_told_and_nothing_is_left(order, tmp_path, tmp_path_factory, engine):
    before = images()
    with registry(tmp_path_factory.mktemp("registry"), closed=True) as host:
        asked = replace(order.image, engine=engine, push=f"{host}/nets/tiny:1")
        with pytest.raises(DeviceError, match="the registry refuses") as told:
            package(replace(order, out=tmp_path / "image.tar", image=asked))
    assert told.value.fix == f"{engine} login REGISTRY"
    assert list(tmp_path.iterdir()) == []
    assert images() == before


@both
@pytest.mark.parametrize("host", ["localhost:9", "registry.invalid"])
def test_a_registry_that_is_not_there_is_told_and_nothing_is_left(order, tmp_path, engine, host):
    before = images()
    asked = replace(order.image, engine=engine, push=f"{host}/nets/tiny:1")
    with pytest.raises(DeviceError, match="the registry cannot be reached"):
        package(replace(order, out=tmp_path / "image.tar", image=asked))
    assert list(tmp_path.iterdir()) == []
    assert images() == before


@both
def test_a_base_that_is_not_here_is_not_pulled(order, tmp_path, engine):
    asked = replace(order.image, engine=engine, parent="localhost/not-here:1")
    with pytest.raises(DeviceError, match="is not here, and --offline pulls nothing"):
        package(replace(order, out=tmp_path / "image.tar", image=asked))
    assert list(tmp_path.iterdir()) == []


def test_a_base_for_another_machine_is_told(order, tmp_path):
    other = empty_image("localhost/edgeprune-test-other:1", "amd64")
    with pytest.raises(DeviceError, match="is for amd64, not arm64"):
        package(replace(order, out=tmp_path / "image.tar", image=replace(order.image, parent=other)))


@needs_docker
def test_a_docker_whose_daemon_does_not_run_is_told(order, tmp_path, monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nobody.sock")
    with pytest.raises(DeviceError, match="its daemon is not running"):
        package(replace(order, out=tmp_path / "image.tar", image=replace(order.image, engine="docker")))
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def small(tmp_path) -> Iterator[Path]:
    """A disk of 64 kB."""
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], check=True)
    yield folder
    subprocess.run(["umount", folder], check=True)


@both
def test_a_full_disk_is_told_and_nothing_is_left(order, small, engine):
    before = images()
    with pytest.raises(OutputError, match="the disk is full"):
        package(replace(order, out=small / "image.tar", image=replace(order.image, engine=engine)))
    assert list(small.iterdir()) == []
    assert images() == before


@pytest.mark.parametrize("kilobytes", [0, 300])
def test_a_disk_too_small_for_a_bundle_or_its_wheels_is_told_and_nothing_is_left(order, small, tmp_path, kilobytes):
    wheels = shutil.copytree(order.wheels, tmp_path / "wheels")
    write_wheel(wheels, "pillow", content=os.urandom(kilobytes << 10))
    with pytest.raises(OutputError, match="the disk is full"):
        package(replace(order, output="folder", out=small / "bundle", wheels=wheels))
    assert list(small.iterdir()) == []


@both
def test_an_interrupted_build_leaves_nothing(order, tmp_path, engine):
    """Ctrl-C while the engine copies a large file."""
    wheels = shutil.copytree(order.wheels, tmp_path / "wheels")
    write_wheel(wheels, "pillow", content=os.urandom(1 << 20) * 300)
    write_script(
        tmp_path / engine, f'case $1 in bud|build) touch {tmp_path}/building;; esac\nexec {shutil.which(engine)} "$@"'
    )
    before, scratch = images(), tmp_path / "scratch"
    scratch.mkdir()
    words = ["--output", "oci", "--out", tmp_path / "image.tar", "--wheels", wheels, "--engine", engine, "--base", BASE]
    argv = [sys.executable, "-m", "edgeprune", "package", order.run, *words, "--offline", "--no-smoke"]
    variables = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "TMPDIR": str(scratch)}
    with subprocess.Popen(argv, env=variables, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 60
        while not (tmp_path / "building").exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
    assert process.returncode == 130
    assert not list(tmp_path.glob("*image.tar*"))
    assert list(scratch.iterdir()) == []
    assert images() == before
