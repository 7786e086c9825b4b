"""Container engines for tests: storage, a daemon and a registry of their own, gone afterwards."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from arm_board import root_folder
from ssh_server import free_port


def without(*programs: str) -> str:
    """Why these cannot be used here; empty if they can."""
    if os.getuid() != 0:
        return "container engines are run as root here"
    absent = [program for program in programs if not shutil.which(program)]
    return f"not installed: {', '.join(absent)}" if absent else ""


@contextmanager
def storage(folder: Path) -> Iterator[None]:
    """A storage for buildah and podman in an empty folder, and settings for machines that are containers themselves."""
    driver = "overlay" if _overlays(folder) else "vfs"
    (folder / "storage.conf").write_text(
        f'[storage]\ndriver = "{driver}"\ngraphroot = "{folder}/graph"\nrunroot = "{folder}/run"\n'
    )
    # Where the machine is itself a container: crun fails, systemd is absent, and limits cannot be raised.
    (folder / "containers.conf").write_text(
        '[engine]\nruntime = "runc"\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\n'
        '[containers]\ndefault_ulimits = ["nofile=20000:20000", "nproc=10000:10000"]\n'
    )
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("CONTAINERS_STORAGE_CONF", str(folder / "storage.conf"))
            patch.setenv("CONTAINERS_CONF", str(folder / "containers.conf"))
            yield
    finally:
        _remove(folder)


def buildah(*words: str) -> str:
    """What buildah answers."""
    return subprocess.run(["buildah", *words], check=True, capture_output=True, text=True).stdout.strip()


def empty_image(reference: str, arch: str = "amd64") -> str:
    """An image of nothing, in the storage that $CONTAINERS_STORAGE_CONF names."""
    return _committed(reference, arch, None)


def debian_image(reference: str, arch: str) -> str:
    """A Debian root folder as an image, in the storage that $CONTAINERS_STORAGE_CONF names (about 20 s)."""
    return _committed(reference, arch, root_folder(arch))


def _committed(reference: str, arch: str, root: Path | None) -> str:
    container = buildah("from", f"--arch={arch}", "scratch")
    if root:
        buildah("add", "--quiet", container, str(root), "/")
    variant = ["--variant=v8"] if arch == "arm64" else []
    buildah("config", f"--arch={arch}", "--os=linux", *variant, "--env=PATH=/usr/local/bin:/usr/bin:/bin", container)
    buildah("commit", "--quiet", "--format=docker", "--timestamp=0", container, reference)
    buildah("rm", container)
    return reference


@contextmanager
def docker_daemon(folder: Path) -> Iterator[None]:
    """dockerd in an empty folder, on a socket of its own that $DOCKER_HOST names. No bridge, no firewall rules.

    It is skipped where dockerd does not start.
    """
    address = f"unix://{folder}/d.sock"
    places = [
        f"--data-root={folder}/data",
        f"--exec-root={folder}/exec",
        f"--pidfile={folder}/pid",
        f"--host={address}",
    ]
    fixed = ["--iptables=false", "--ip6tables=false", "--bridge=none"]
    fixed += ["--storage-driver=overlay2" if _overlays(folder) else "--storage-driver=vfs"]
    with (folder / "log").open("wb") as log:
        daemon = subprocess.Popen(["dockerd", *fixed, *places], stdout=log, stderr=log, start_new_session=True)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("DOCKER_HOST", address)
            if not _answers(daemon, ["docker", "version"]):
                pytest.skip(f"dockerd does not start here: {(folder / 'log').read_text()[-300:]}")
            yield
    finally:
        _end(daemon)
        _remove(folder)


@contextmanager
def registry(folder: Path, *, closed: bool = False) -> Iterator[str]:
    """A registry in an empty folder, known to buildah and podman as one without TLS.

    Args:
        folder: for what is sent to it.
        closed: nobody may log in.

    Yields:
        Its host and port.
    """
    host = f"localhost:{free_port()}"
    auth = (f"auth:\n  htpasswd:\n    realm: here\n    path: {folder}/users\n") if closed else ""
    (folder / "users").touch()
    (folder / "config.yml").write_text(
        f"version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {folder}/data\nhttp:\n  addr: {host}\n{auth}"
    )
    (folder / "registries.conf").write_text(f'[[registry]]\nlocation = "{host}"\ninsecure = true\n')
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(["docker-registry", "serve", folder / "config.yml"], stdout=log, stderr=log)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("CONTAINERS_REGISTRIES_CONF", str(folder / "registries.conf"))
            deadline = time.monotonic() + 20
            while not _listens(host):
                assert server.poll() is None, (folder / "log").read_text()
                assert time.monotonic() < deadline
                time.sleep(0.05)
            yield host
    finally:
        _end(server)


def _overlays(folder: Path) -> bool:
    """Whether layers can be laid over each other there; where they cannot, each is a copy of all below it."""
    lower, upper, work, all_of_it = (folder / "overlay" / name for name in ("lower", "upper", "work", "all"))
    for place in (lower, upper, work, all_of_it):
        place.mkdir(parents=True)
    layers = f"lowerdir={lower},upperdir={upper},workdir={work}"
    mount = ["mount", "-t", "overlay", "overlay", "-o", layers, all_of_it]
    works = subprocess.run(mount, check=False, capture_output=True).returncode == 0
    _remove(folder / "overlay")
    return works


def _remove(folder: Path) -> None:
    """Remove a folder, and unmount what is mounted in it."""
    for line in reversed(Path("/proc/self/mounts").read_text().splitlines()):
        place = line.split()[1]
        if place.startswith(f"{folder}/"):
            subprocess.run(["umount", place], check=True)
    shutil.rmtree(folder)


def _answers(daemon: subprocess.Popen, argv: list[str]) -> bool:
    deadline = time.monotonic() + 60
    while daemon.poll() is None and time.monotonic() < deadline:
        if subprocess.run(argv, check=False, capture_output=True).returncode == 0:
            return True
        time.sleep(0.2)
    return False


def _listens(host: str) -> bool:
    name, _, port = host.partition(":")
    with suppress(OSError), socket.create_connection((name, int(port)), 1):
        return True
    return False


def _end(process: subprocess.Popen) -> None:
    process.terminate()
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
