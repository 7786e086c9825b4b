"""`make arm`: whatever it makes is undone, whether it ends or is ended. Stand-in programs in a real namespace."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from arm_board import RECIPES
from ssh_server import write_script

pytestmark = pytest.mark.skipif(
    os.uname().sysname != "Linux" or os.getuid() != 0, reason="namespaces need root on Linux"
)
PROGRAMS = "mmdebstrap qemu-aarch64-static buildah podman runc catatonit ssh dockerd docker docker-registry"
TESTS = """
[ -e "$BINFMT/qemu-aarch64" ] && touch {folder}/emulates
mount -t tmpfs tmpfs "$(mktemp -d)"
setsid sleep 1234.5 &
touch {folder}/started
sleep {seconds}
exit 7
"""


class Recipe:
    """run.sh with stand-ins for all that it calls."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.binfmt, self.scratch = folder, folder / "binfmt", folder / "scratch"
        for place in (folder / "bin", self.binfmt, self.scratch):
            place.mkdir()
        (self.binfmt / "register").touch()
        for name in PROGRAMS.split():
            write_script(folder / "bin" / name, "exit 9")
        switch = f"cd {self.binfmt}; case $1 in --enable) touch $2 qemu-arm;; --disable) rm $2;; esac"
        write_script(folder / "bin" / "update-binfmts", switch)

    def start(self, seconds: int) -> subprocess.Popen:
        write_script(self.folder / "python", TESTS.format(folder=self.folder, seconds=seconds))
        variables = {
            "PATH": f"{self.folder}/bin:{os.environ['PATH']}",
            "BINFMT": str(self.binfmt),
            "TMPDIR": str(self.scratch),
        }
        cache = {"EDGEPRUNE_ARM_CACHE": str(self.folder / "cache")}
        # A shell cannot trap what was ignored when it began, as Ctrl-C is where the tests run in the background.
        command = ["env", "--default-signal", RECIPES / "run.sh", self.folder / "python"]
        return subprocess.Popen(command, env={**os.environ, **variables, **cache})

    def check_undone(self) -> None:
        assert (self.folder / "started").exists()
        assert (self.folder / "emulates").exists()
        assert list(self.scratch.iterdir()) == []
        assert str(self.folder) not in Path("/proc/self/mounts").read_text()
        assert not [path for path in Path("/proc").glob("[0-9]*/cmdline") if b"1234.5" in read(path)]


def read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it has just ended
        return b""


@pytest.fixture
def recipe(tmp_path) -> Recipe:
    return Recipe(tmp_path)


def test_the_tests_exit_code_is_its_own_and_all_is_undone(recipe):
    with recipe.start(seconds=0) as process:
        pass
    assert process.returncode == 7
    recipe.check_undone()
    assert [path.name for path in recipe.binfmt.iterdir()] == ["register"]


def test_an_emulator_that_was_there_before_stays(recipe):
    (recipe.binfmt / "qemu-aarch64").touch()
    with recipe.start(seconds=0):
        pass
    recipe.check_undone()
    assert {path.name for path in recipe.binfmt.iterdir()} == {"register", "qemu-aarch64"}


@pytest.mark.parametrize(("kind", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_all_is_undone_when_it_is_interrupted(recipe, kind, code):
    with recipe.start(seconds=1000) as process:
        deadline = time.monotonic() + 30
        while not (recipe.folder / "started").exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(kind)
        try:
            process.wait(timeout=60)
        finally:
            process.kill()
    assert process.returncode == code
    recipe.check_undone()
    assert [path.name for path in recipe.binfmt.iterdir()] == ["register"]


def test_it_wants_root(recipe):
    write_script(recipe.folder / "bin" / "id", "echo 1000")
    with recipe.start(seconds=0) as process:
        pass
    assert process.returncode == 2
    assert not (recipe.folder / "started").exists()
