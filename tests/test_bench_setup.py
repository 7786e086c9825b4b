"""Setting a board up: a real sshd on loopback, real pip, wheels made here, no network."""

from __future__ import annotations

import json
import os
import shutil
import sys
import zipfile
from pathlib import Path

import pytest
from ssh_server import SSHD, SshServer

from edgeprune.bench import setup
from edgeprune.bench.transport import open_device
from edgeprune.errors import DeviceError, UsageError

needs_sshd = pytest.mark.skipif(
    not Path(SSHD).exists() or not shutil.which("ssh"), reason="openssh-server is not installed"
)


@pytest.fixture
def server(tmp_path, monkeypatch):
    server = SshServer(tmp_path / "board")
    monkeypatch.setenv("PATH", f"{server.folder}/bin:{os.environ['PATH']}")
    server.start()
    yield server
    server.stop()


@pytest.fixture
def wheels(tmp_path, monkeypatch) -> Path:
    """A folder that is all pip knows, and a runtime named tiny."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    monkeypatch.setitem(setup.PACKAGES, "tiny", ("tiny",))
    monkeypatch.setitem(setup._MODULES, "tiny", "tiny")
    (tmp_path / "wheels").mkdir()
    return tmp_path / "wheels"


def write_wheel(folder: Path, version: str, code: str) -> None:
    python = f"cp{sys.version_info[0]}{sys.version_info[1]}"
    tag = f"{python}-{python}-manylinux_2_17_{os.uname().machine}"
    with zipfile.ZipFile(folder / f"tiny-{version}-{tag}.whl", "w") as wheel:
        info = f"tiny-{version}.dist-info"
        wheel.writestr("tiny/__init__.py", code)
        wheel.writestr(f"tiny-{version}.data/platlib/tiny/more.py", "there = True")
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: tiny\nVersion: {version}\n")
        wheel.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: false\nTag: {tag}\n")
        wheel.writestr(f"{info}/RECORD", "")


@needs_sshd
@pytest.mark.slow
def test_a_board_gets_an_environment_of_its_own_and_benches_in_it(server, wheels):
    write_wheel(wheels, "1.0", "from tiny.more import there")
    said = []
    installed = setup.set_up(server.device, ["tiny"], said.append)
    assert installed.packages == ("tiny==1.0",)
    assert len(said) == 2
    with open_device(server.device) as board:
        assert board.python == installed.python
        assert list(board.run([board.python, "-c", "import tiny; print(tiny.there)"])) == ["True\n"]
    (environment,) = server.cache.glob("venv-*")
    assert json.loads((environment / "wheels.json").read_text()) == installed.wheels
    setup.clean(server.device)
    assert not server.cache.exists()


@needs_sshd
@pytest.mark.slow
def test_a_new_set_up_replaces_the_old_one(server, wheels):
    write_wheel(wheels, "1.0", "from tiny.more import there")
    setup.set_up(server.device, ["tiny"])
    write_wheel(wheels, "2.0", "version = 2")
    setup.set_up(server.device, ["tiny"])
    assert len(list(server.cache.glob("venv-*"))) == 1
    with open_device(server.device) as board:
        assert list(board.run([board.python, "-c", "import tiny; print(tiny.version)"])) == ["2\n"]


@needs_sshd
@pytest.mark.slow
def test_a_runtime_that_cannot_be_imported_is_told_and_leaves_nothing(server, wheels):
    write_wheel(wheels, "1.0", "import not_there")
    with pytest.raises(DeviceError) as told:
        setup.set_up(server.device, ["tiny"])
    assert "tiny was installed, but cannot be imported" in str(told.value)
    assert "No module named 'not_there'" in str(told.value)
    assert list(server.cache.glob("venv*")) == []


@needs_sshd
@pytest.mark.slow
def test_the_wheels_of_a_bundle_are_put_on_the_board_and_no_index_is_asked(server, wheels, monkeypatch):
    write_wheel(wheels, "1.0", "version = 1")
    monkeypatch.delenv("PIP_FIND_LINKS")
    assert setup.set_up(server.device, ["tiny"], source=wheels.parent).packages == ("tiny==1.0",)
    (wheels / "other-1.0-py3-none-any.whl").touch()
    next(wheels.glob("tiny-*")).unlink()
    with pytest.raises(DeviceError, match="no wheels of tiny") as told:
        setup.set_up(server.device, ["tiny"], source=wheels)
    assert told.value.fix == f"Put them into {wheels}, or leave --wheels out."


@needs_sshd
def test_a_board_for_which_there_are_no_wheels_is_told(server, wheels):
    with pytest.raises(DeviceError, match=f"no wheels of tiny for {os.uname().machine}, Python 3") as told:
        setup.set_up(server.device, ["tiny"])
    assert "No matching distribution found for tiny" in told.value.where


def test_this_machine_is_not_set_up():
    with pytest.raises(UsageError, match="needs no set-up"):
        setup.set_up("local", ["onnxruntime"])
    with pytest.raises(UsageError, match="no runtime 'tensorrt'"):
        setup.set_up("ssh://board", ["tensorrt"])
