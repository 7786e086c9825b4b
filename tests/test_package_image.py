"""An image: which engine is called with what words, what is in it, and that nothing is left of what went wrong."""

from __future__ import annotations

import json
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import stand_in_engine
from package_runs import a_run, plain_wheels
from ssh_server import write_script

from edgeprune.errors import DeviceError, EdgepruneError, OutputError, ParityError, UsageError
from edgeprune.package import engine, image
from edgeprune.package.engine import Build
from edgeprune.package.image import ImageOrder
from edgeprune.package.smoke import chroot_words, cpuinfo, run_words
from edgeprune.packaging import PackageOrder, package

BASE = "localhost/base@sha256:" + "0" * 64
BUILD = Build(
    context=Path("/context"),
    kind="oci",
    reference="localhost/edgeprune/net:1",
    platform="linux/arm64/v8",
    parent=BASE,
    epoch=1_700_000_000,
    labels={"b": "two words", "a": "1"},
    offline=True,
    id_file=Path("/id"),
)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("image")
    a_run(folder / "run")
    plain_wheels(folder / "wheels")
    return folder


@pytest.fixture
def log(tmp_path, monkeypatch) -> Path:
    """A stand-in for podman is the first on PATH; the words it was given, line by line."""
    (tmp_path / "bin").mkdir()
    write_script(tmp_path / "bin" / "podman", f'exec {sys.executable} {stand_in_engine.__file__} "$@"')
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("ENGINE_LOG", str(tmp_path / "log"))
    monkeypatch.setattr(engine, "check_emulation", lambda *_: None)
    return tmp_path / "log"


@pytest.fixture
def order(made, tmp_path) -> PackageOrder:
    run = shutil.copytree(made / "run", tmp_path / "run")
    asked = ImageOrder("oci", "podman", BASE, offline=True)
    return PackageOrder(run, "rpi4", output="oci", wheels=made / "wheels", image=asked)


def told(log: Path) -> list[str]:
    """The first word of each command."""
    return [json.loads(line)[0] for line in log.read_text().splitlines()]


@pytest.mark.parametrize(
    ("name", "first", "own"),
    [
        ("docker", ["docker", "build"], ["--build-arg=SOURCE_DATE_EPOCH=1700000000"]),
        ("podman", ["podman", "build"], ["--format=oci", "--timestamp=1700000000", "--pull=never", "--layers=false"]),
        ("buildah", ["buildah", "bud"], ["--timestamp=1700000000", "--pull=never", "--identity-label=false"]),
    ],
)
def test_each_engine_is_told_the_same_in_its_own_words(name, first, own):
    words = engine.build_words(name, BUILD)
    assert words[:2] == first
    assert words[-2:] == ["--file=/context/Dockerfile", "/context"]
    assert {"--platform=linux/arm64/v8", f"--build-arg=BASE={BASE}", "--iidfile=/id", *own} <= set(words)
    assert words[words.index("--label") + 1] == "a=1"
    assert "b=two words" in words


def test_the_docker_format_is_only_for_dockers_archive():
    assert "--format=docker" in engine.build_words("podman", replace(BUILD, kind="docker-archive"))


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("docker", "docker-archive", ["save", "--output=/a.tar", "net:1"]),
        ("podman", "oci", ["save", "--format=oci-archive", "--output=/a.tar", "net:1"]),
        ("buildah", "docker-archive", ["push", "net:1", "docker-archive:/a.tar:net:1"]),
    ],
)
def test_each_engine_writes_an_archive_in_its_own_words(name, kind, words):
    assert engine.save_words(name, "net:1", kind, Path("/a.tar")) == [name, *words]


def test_the_first_engine_that_answers_is_taken(monkeypatch):
    def call(argv, seconds):
        if argv[0] == "docker":
            raise engine.fault(argv, "Cannot connect to the Docker daemon at unix:///var/run/docker.sock.")
        return ""

    monkeypatch.setattr(engine, "call", call)
    assert engine.find("auto", which=lambda name: name) == "podman"
    assert engine.find("auto", which=lambda name: name if name == "buildah" else None) == "buildah"
    with pytest.raises(DeviceError, match="its daemon is not running"):
        engine.find("docker", which=lambda name: name)
    with pytest.raises(DeviceError, match="its daemon is not running"):
        engine.find("auto", which=lambda name: name if name == "docker" else None)


def test_no_engine_is_told_and_that_a_folder_needs_none():
    with pytest.raises(DeviceError, match="no container engine is installed") as told:
        engine.find("auto", which=lambda _: None)
    assert "--output folder needs none" in told.value.fix
    with pytest.raises(DeviceError, match="buildah is not installed"):
        engine.find("buildah", which=lambda _: None)
    with pytest.raises(UsageError, match="no engine 'kaniko'"):
        engine.find("kaniko")


@pytest.mark.parametrize(
    ("complaint", "kind", "what"),
    [
        ("write /layer: no space left on device", OutputError, "the disk is full"),
        ("Cannot connect to the Docker daemon at unix:///d.sock", DeviceError, "its daemon is not running"),
        ("permission denied while trying to connect to the Docker daemon socket", DeviceError, "may not use docker"),
        ("exec container process `/bin/x`: Exec format error", DeviceError, "cannot run programs of the board's"),
        ("Error: reading manifest: unauthorized: access", DeviceError, "the registry refuses"),
        ("denied: requested access to the resource is denied", DeviceError, "the registry refuses"),
        ("dial tcp: lookup registry on 1.1.1.1:53: no such host", DeviceError, "the registry cannot be reached"),
        ("Error: python: image not known", DeviceError, "there is no such image here"),
        ("one\ntwo\nthree\nsomething else", DeviceError, "docker build failed"),
    ],
)
def test_an_engines_complaint_is_told_in_the_users_words(complaint, kind, what):
    found = engine.fault(["docker", "build"], complaint)
    assert type(found) is kind
    assert what in str(found)
    assert complaint.splitlines()[-1] in found.where


@pytest.mark.parametrize(
    ("text", "what"),
    [(None, "cannot run aarch64 programs"), ("disabled\n", "cannot run"), ("enabled\nflags: OC\n", "cannot be seen")],
)
def test_a_machine_that_cannot_emulate_the_board_is_told_how_to(tmp_path, text, what):
    if text:
        (tmp_path / "qemu-aarch64").write_text(text)
    with pytest.raises(DeviceError, match=what) as told:
        engine.check_emulation("linux/arm64/v8", "x86_64", tmp_path)
    assert "tonistiigi/binfmt --install arm64" in told.value.fix


def test_a_machine_that_can_or_need_not_emulate_is_fine(tmp_path):
    engine.check_emulation("linux/arm64/v8", "aarch64", tmp_path)
    (tmp_path / "qemu-aarch64").write_text("enabled\ninterpreter /usr/bin/qemu\nflags: POCF\n")
    engine.check_emulation("linux/arm64/v8", "x86_64", tmp_path)


@pytest.mark.parametrize(
    ("found", "offline", "what"),
    [
        (None, True, "is not here, and --offline pulls nothing"),
        ("amd64", True, "is for amd64, not arm64"),
        ("amd64", False, "is for amd64, not arm64"),
    ],
)
def test_a_base_that_cannot_be_used_is_told_before_the_build(monkeypatch, found, offline, what):
    monkeypatch.setattr(engine, "parent_architecture", lambda *_: found)
    with pytest.raises(DeviceError, match=what):
        engine.check_parent("podman", BASE, "linux/arm64/v8", offline)
    monkeypatch.setattr(engine, "parent_architecture", lambda *_: "arm64")
    engine.check_parent("podman", BASE, "linux/arm64/v8", offline)


def test_the_smoke_test_runs_the_image_as_it_should_be_run(tmp_path):
    words = run_words("podman", "net:1", "linux/arm64/v8", "one", tmp_path / "cpuinfo")
    assert {"--init", "--read-only", "--network=none", "--cap-drop=ALL", "--pull=never", "--rm"} <= set(words)
    assert {"--env=QEMU_CPU=cortex-a72", f"--volume={tmp_path / 'cpuinfo'}:/proc/cpuinfo:ro"} <= set(words)
    assert words[-3:] == ["net:1", "check", "--json"]
    assert cpuinfo().count("CPU part\t: 0xd08") == 4
    config = {"User": "65532:65532", "Env": ["A=b c"], "Entrypoint": ["python3", "/x.pyz"]}
    assert chroot_words("/root-folder", config) == [
        *("chroot", "--userspec=65532:65532", "/root-folder", "/usr/bin/env", "-i", "A=b c", "QEMU_CPU=cortex-a72"),
        *("python3", "/x.pyz", "check", "--json"),
    ]


def test_an_image_is_built_tested_written_and_told_of_in_the_run_folder(order, log):
    done = package(order)
    assert told(log) == ["version", "image", "ps", "images", "build", "run", "rm", "save"]
    assert done.image["reference"].startswith("localhost/edgeprune/tiny-rpi4:")
    assert done.image["layers"] == [{"bytes": 7, "compressed": True}]
    assert (done.image["id"], done.image["digest"]) == ("sha256:1d", "sha256:aa")
    assert done.image["smoke"]["said"] == "functional under emulation, not timed"
    kept = json.loads((order.run / "package.json").read_text())
    assert kept == json.loads(json.dumps(done.to_json()))
    with pytest.raises(OutputError, match="the output exists"):
        package(order)


def test_what_needs_the_boards_own_hardware_is_not_tested_here(order, log):
    done = package(replace(order, runtime="tensorrt"))
    assert told(log) == ["version", "image", "ps", "images", "build", "save"]
    assert done.image["smoke"] is None


def test_it_is_sent_to_its_registry_under_the_name_given_and_need_not_be_tested(order, log):
    asked = replace(order.image, push="registry.example/net:1", smoke=False)
    done = package(replace(order, image=asked))
    assert told(log) == ["version", "image", "ps", "images", "build", "save", "push"]
    assert done.image["smoke"] is None
    assert json.loads(log.read_text().splitlines()[-1]) == ["push", "registry.example/net:1"]


@pytest.mark.parametrize(
    ("word", "says", "code", "kind"),
    [
        ("build", "no space left on device", 125, OutputError),
        ("run", "differs", 5, ParityError),
        ("run", "Segmentation fault", 139, DeviceError),
        ("save", "no space left on device", 125, OutputError),
        ("push", "unauthorized: not yours", 125, DeviceError),
    ],
)
def test_of_what_goes_wrong_neither_image_nor_file_is_left(order, log, monkeypatch, word, says, code, kind):
    for name, value in (("ENGINE_FAILS", word), ("ENGINE_SAYS", says), ("ENGINE_CODE", str(code))):
        monkeypatch.setenv(name, value)
    before = sorted(order.run.iterdir())
    with pytest.raises(kind):
        package(replace(order, image=replace(order.image, push="registry.example/net:1")))
    assert told(log)[-2:] == ["rmi", "ps"]
    assert sorted(order.run.iterdir()) == before


def test_what_goes_wrong_gives_a_name_back_to_the_image_that_had_it_before(order, log, monkeypatch):
    monkeypatch.setenv("ENGINE_FAILS", "run")
    monkeypatch.setenv("ENGINE_SAYS", "Segmentation fault")
    monkeypatch.setenv("ENGINE_NAMED", "sha256:before sha256:made")
    with pytest.raises(DeviceError):
        package(order)
    words = [json.loads(line) for line in log.read_text().splitlines()]
    name = words[3][-1]
    assert words[-3:-1] == [["tag", "sha256:before", name], ["rmi", "sha256:made"]]


def test_an_interrupted_build_leaves_nothing(order, log, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(image, "smoke", interrupted)
    before = sorted(order.run.iterdir())
    with pytest.raises(KeyboardInterrupt):
        package(order)
    assert told(log)[-2:] == ["rmi", "ps"]
    assert sorted(order.run.iterdir()) == before


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"output": "iso"}, "no output 'iso'"),
        ({"output": "folder", "image": ImageOrder("folder", push="a/b:1")}, "only an image can be pushed"),
        ({"wheels": None}, "--offline asks no index"),
        ({"wheels": Path("nowhere")}, "no wheels here"),
        ({"image": ImageOrder("oci", "podman", parent="--privileged")}, "does not name an image"),
        ({"out": Path("a:b.tar")}, "holds a colon"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_done(order, log, changes, what):
    with pytest.raises(EdgepruneError, match=what):
        package(replace(order, **changes))
    assert not log.exists()


def test_a_context_holds_the_packages_unpacked_and_repeats(order, tmp_path):
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        package(replace(order, output="context", out=folder))
    names = [sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*")) for folder in folders]
    assert names[0] == names[1]
    assert {
        "Dockerfile",
        ".dockerignore",
        "packages/opt/edgeprune/site/numpy/__init__.py",
        "app/opt/edgeprune/edgeprune.pyz",
    } <= set(names[0])
    assert not any("pip" in name.split("/") for name in names[0])
    assert {path.stat().st_mtime for path in folders[0].rglob("*")} == {folders[1].stat().st_mtime}
