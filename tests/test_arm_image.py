"""An arm64 image for real: built by buildah on a Debian base made here, tested under QEMU, taken apart. No registry.

Some minutes. Whatever it makes is in a folder of the test's.
"""

from __future__ import annotations

import json
import shutil
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from arm_board import base_image, missing
from package_runs import a_run

from edgeprune.bench.reference import host_outputs
from edgeprune.errors import DeviceError, ParityError
from edgeprune.package import bundle
from edgeprune.package.image import ImageOrder
from edgeprune.packaging import Packaged, PackageOrder, package

BASE = "localhost/edgeprune-test-base:arm64"
_WHY_NOT = missing() or ("" if shutil.which("buildah") else "not installed: buildah")

pytestmark = [pytest.mark.arm, pytest.mark.slow, pytest.mark.skipif(bool(_WHY_NOT), reason=_WHY_NOT or "-")]


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Iterator[Path]:
    """A storage of our own for buildah and podman, removed afterwards."""
    folder = tmp_path_factory.mktemp("store")
    lines = ["[storage]", 'driver = "vfs"', f'graphroot = "{folder}/graph"', f'runroot = "{folder}/run"']
    (folder / "storage.conf").write_text("\n".join(lines))
    # Where the machine is itself a container: crun fails, systemd is absent, and limits cannot be raised.
    (folder / "containers.conf").write_text(
        '[engine]\nruntime = "runc"\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\n'
        '[containers]\ndefault_ulimits = ["nofile=20000:20000", "nproc=10000:10000"]\n'
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CONTAINERS_STORAGE_CONF", str(folder / "storage.conf"))
        patch.setenv("CONTAINERS_CONF", str(folder / "containers.conf"))
        base_image(BASE)
        yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def order(store, tmp_path_factory) -> PackageOrder:
    folder = tmp_path_factory.mktemp("image")
    run = a_run(folder / "run")
    wheels = package(PackageOrder(run, "rpi4")).place / "wheels"
    asked = ImageOrder("oci", "buildah", BASE, offline=True)
    return PackageOrder(run, "rpi4", output="oci", wheels=wheels, image=asked)


@pytest.fixture(scope="module")
def built(order) -> Packaged:
    return package(order)


def read(archive: tarfile.TarFile, digest: str) -> dict:
    return json.loads(archive.extractfile("blobs/" + digest.replace(":", "/")).read())


def test_the_image_computes_what_the_host_computes_and_no_time_is_told(built):
    smoke = built.image["smoke"]
    assert (smoke["passed"], smoke["emulated"]) == (True, True)
    assert smoke["max_rel"] < 1e-5
    assert smoke["said"] == "functional under emulation, not timed"
    assert "_ms" not in json.dumps(built.to_json())


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
    assert all(layer["compressed"] for layer in built.image["layers"])
    assert not any("RUN" in entry["created_by"] for entry in document["history"])


def test_the_same_run_gives_the_same_digest(built, order):
    again = package(replace(order, out=built.place.with_name("again.tar"), image=replace(order.image, smoke=False)))
    assert again.image["digest"] == built.image["digest"]


@pytest.mark.skipif(not (shutil.which("podman") and shutil.which("runc")), reason="not installed: podman, runc")
def test_podman_runs_it_as_its_own_user_without_network_or_writable_root(order, tmp_path):
    asked = replace(order.image, engine="podman", kind="docker-archive")
    made = package(replace(order, output="docker-archive", out=tmp_path / "image.tar", image=asked))
    assert (made.image["smoke"]["passed"], made.image["smoke"]["emulated"]) == (True, True)
    with tarfile.open(made.place) as archive:
        (listed,) = json.loads(archive.extractfile("manifest.json").read())
        config = json.loads(archive.extractfile(listed["Config"]).read())["config"]
    assert config["Healthcheck"]["Test"] == ["CMD", "python3", "/opt/edgeprune/edgeprune.pyz", "check"]


def test_an_image_that_computes_something_else_is_not_shipped(order, tmp_path, monkeypatch):
    def other(choice):
        return 1 + host_outputs([choice.artifact], choice.run, choice.images)[choice.artifact.sha256]

    monkeypatch.setattr(bundle, "_expected", other)
    with pytest.raises(ParityError, match="does not compute what the host computes"):
        package(replace(order, out=tmp_path / "image.tar"))
    assert list(tmp_path.iterdir()) == []


def test_a_base_that_is_not_here_is_not_pulled(order, tmp_path):
    asked = replace(order.image, parent="localhost/not-here:1")
    with pytest.raises(DeviceError, match="is not here, and --offline pulls nothing"):
        package(replace(order, out=tmp_path / "image.tar", image=asked))
