"""An image for this machine, linux/amd64 here: built by podman on a Debian base made here, and run for real."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from container_engines import debian_image, storage, without
from package_runs import a_run
from PIL import Image

from edgeprune.bench.reference import host_outputs
from edgeprune.errors import ParityError
from edgeprune.package import bundle
from edgeprune.package.image import ImageOrder
from edgeprune.packaging import Packaged, PackageOrder, package

BASE = "localhost/edgeprune-test-base:amd64"
_WHY_NOT = without("mmdebstrap", "buildah", "podman", "runc") or (
    "" if os.uname().machine == "x86_64" else "this machine is not linux/amd64"
)
pytestmark = [pytest.mark.engines, pytest.mark.slow, pytest.mark.skipif(bool(_WHY_NOT), reason=_WHY_NOT or "-")]

WHO_AM_I = """
import json, os
try:
    open("/there", "w")
    writable = True
except OSError:
    writable = False
print(json.dumps({"user": os.getuid(), "writable": writable, "networks": os.listdir("/sys/class/net")}))
"""


@pytest.fixture(scope="module")
def order(tmp_path_factory) -> Iterator[PackageOrder]:
    folder = tmp_path_factory.mktemp("native")
    with storage(tmp_path_factory.mktemp("store")):
        debian_image(BASE, "amd64")
        asked = ImageOrder("oci", "podman", BASE)
        yield PackageOrder(a_run(folder / "run"), "host", output="oci", out=folder / "image.tar", image=asked)


@pytest.fixture(scope="module")
def built(order) -> Packaged:
    return package(order)


def run(built: Packaged, *words: str) -> subprocess.CompletedProcess:
    """What a user types, with all that is taken from the container."""
    taken = ["--init", "--network=none", "--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges"]
    argv = ["timeout", "-k5", "100", "podman", "run", "--rm", "--pull=never", *taken, *words]
    return subprocess.run(argv, check=False, capture_output=True, text=True)


def test_the_image_computes_what_the_host_computes_without_an_emulator(built):
    smoke = built.image["smoke"]
    assert (smoke["passed"], smoke["emulated"], smoke["said"]) == (True, False, "functional")


def test_run_it_prints_the_latency_on_this_machine(built):
    ran = run(built, built.image["reference"], "report", "--json", "--threads", "1", "--blocks", "6")
    assert ran.returncode in (0, 4), ran.stderr  # 4: other programs disturbed it
    told = json.loads(ran.stdout)
    assert told["check"]["passed"] is True
    assert [row["threads"] for row in told["rows"]] == [1]
    assert 0 < told["rows"][0]["p50_ms"] <= told["rows"][0]["p99_ms"]


def test_it_tells_the_five_highest_classes_of_a_photo(built, tmp_path):
    Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(tmp_path / "photo.jpg")
    tmp_path.chmod(0o755)
    ran = run(built, f"--volume={tmp_path}:/photos:ro", built.image["reference"], "infer", "/photos/photo.jpg")
    assert (ran.returncode, len(ran.stdout.splitlines())) == (0, 5), ran.stderr


def test_it_is_no_root_and_can_neither_write_nor_call_out(built):
    ran = run(built, "--entrypoint=python3", built.image["reference"], "-c", WHO_AM_I)
    assert json.loads(ran.stdout) == {"user": 65532, "writable": False, "networks": ["lo"]}, ran.stderr


def test_an_image_that_computes_something_else_is_not_shipped(order, tmp_path, monkeypatch):
    def other(choice):
        return 1 + host_outputs([choice.artifact], choice.run, choice.images)[choice.artifact.sha256]

    monkeypatch.setattr(bundle, "_expected", other)
    with pytest.raises(ParityError, match="does not compute what the host computes"):
        package(replace(order, artifact="baseline-fp32.onnx", out=tmp_path / "image.tar"))
    assert list(tmp_path.iterdir()) == []
