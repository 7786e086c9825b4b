"""A container as a device.

Most tests run a stand-in for the engine, which says what Docker 20.10 and Podman 4.3 were seen to say. With
EDGEPRUNE_CONTAINERS="docker://IMAGE,podman://IMAGE" (python3, numpy and onnxruntime in the image) the real ones run.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from ssh_server import write_script
from test_bench_session import an_artifact
from test_bench_transport import CHILD_THAT_STAYS, is_alive, is_gone_soon

from edgeprune.bench.device import how_to_install
from edgeprune.bench.session import measure
from edgeprune.bench.setup import set_up
from edgeprune.bench.transport import open_device
from edgeprune.errors import DeviceError, UsageError

REAL = [name for name in os.environ.get("EDGEPRUNE_CONTAINERS", "").split(",") if name]
ENGINE = """
import json, os, signal, subprocess, sys
from pathlib import Path
words, calls = sys.argv[1:], Path({folder!r}) / "calls"
with calls.open("a") as file:
    file.write(json.dumps(words) + chr(10))
options = dict(word.partition("=")[::2] for word in words if word.startswith("--"))
if words[0] == "rm":
    for path in Path({folder!r}).glob(words[-1]):
        os.killpg(int(path.read_text()), signal.SIGKILL)
elif words[0] == "run":
    image = words.index("image:1")
    program = [{python!r}, *words[image + 1:]]
    inside = subprocess.Popen(program, start_new_session=True)
    (Path({folder!r}) / options["--name"]).write_text(str(inside.pid))
    code = inside.wait()
    sys.exit(128 - code if code < 0 else code)
"""


class Engine:
    """A program called docker, first on PATH, that runs the command here and notes what it was asked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "engine.py").write_text(ENGINE.format(folder=str(folder), python=sys.executable))
        write_script(folder / "docker", f'exec {sys.executable} {folder}/engine.py "$@"')

    def says(self, words: str, code: int) -> None:
        """From now on it fails."""
        (self.folder / "words").write_text(words + "\n")
        write_script(self.folder / "docker", f"cat {self.folder}/words >&2; exit {code}")

    @property
    def calls(self) -> list[list[str]]:
        return [json.loads(line) for line in (self.folder / "calls").read_text().splitlines()]


@pytest.fixture
def engine(tmp_path, monkeypatch) -> Engine:
    folder = tmp_path / "engine"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return Engine(folder)


def test_a_command_runs_without_network_without_rights_to_write_and_is_removed(engine, tmp_path):
    (tmp_path / "a file").write_text("text")
    with open_device("docker://image:1") as container:
        there = container.put(tmp_path / "a file")
        assert (there, container.put(tmp_path / "a file")) == ("/edgeprune/0/a file", there)
        container.get(there, tmp_path / "back")
        assert list(container.run(["python3", "-c", "print(1); print(2)"])) == ["1\n", "2\n"]
    assert (tmp_path / "back").read_text() == "text"
    inspect, run = engine.calls
    assert inspect[:2] == ["image", "inspect"]
    assert {"--rm", "--init", "--pull=never", "--network=none", "--read-only", "--entrypoint=python3"} <= set(run)
    (mount,) = (word for word in run if word.startswith("--volume="))
    scratch, inside, mode = mount.removeprefix("--volume=").split(":")
    assert (inside, mode, Path(scratch).exists()) == ("/edgeprune", "ro", False)
    assert run[-3:] == ["image:1", "-c", "print(1); print(2)"]


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, RuntimeError])
def test_an_interruption_removes_the_container(engine, interruption):
    started = []

    def interrupted() -> None:
        with (
            open_device("docker://image:1") as container,
            closing(container.run(["python3", "-c", CHILD_THAT_STAYS])) as lines,
        ):
            started.append(int(next(lines)))
            assert is_alive(started[0])
            raise interruption

    with pytest.raises(interruption):
        interrupted()
    assert is_gone_soon(started[0])
    _, run, removal = engine.calls
    assert f"--name={removal[-1]}" in run
    assert removal[:2] == ["rm", "--force"]


@pytest.mark.parametrize(
    ("said", "code", "what", "fix"),
    [
        (
            "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?",
            *(1, "daemon does not run", "systemctl start docker"),
        ),
        ("Error response from daemon: no such image: image:1: No such image", 1, "no such image here", "docker pull"),
        ("Error: inspecting object: image:1: image not known", 125, "no such image here", "docker pull image:1"),
        ("permission denied while trying to connect to the Docker daemon socket", 1, "may not use", "usermod"),
        ("[FATAL tini (7)] exec python3 failed: No such file or directory", 127, "no python3", "FROM python"),
        ("ERROR (catatonit:7): failed to exec pid1: No such file or directory", 1, "no python3", "FROM python"),
        ("exec /usr/bin/python3: exec format error", 1, "another kind of processor", "this machine"),
        ("python3 is too old: 3.8.2", 1, "python3 is too old: 3.8.2", "3.9 or newer"),
        ("ModuleNotFoundError: No module named 'numpy'", 1, "numpy is not installed", "RUN pip install numpy"),
    ],
)
@pytest.mark.parametrize("entered", [False, True])
def test_what_engines_say_is_told_in_the_users_words(engine, said, code, what, fix, entered):
    def bench() -> None:
        with open_device("docker://image:1") as container:
            engine.says(said, code)
            list(container.run(["python3", "x"]))

    if not entered:
        engine.says(said, code)
    with pytest.raises(DeviceError, match=what) as told:
        bench()
    assert fix in told.value.fix
    assert (told.value.exit_code, told.value.where) == (3, "docker://image:1")


@pytest.mark.parametrize(
    ("program", "what"),
    [
        ("import sys; print('no idea', file=sys.stderr); sys.exit(3)", "ended with exit code 3"),
        ("import os; os.abort()", "was killed by SIGABRT"),
        ("import os; os.kill(os.getpid(), 9)", "was killed by SIGKILL"),
    ],
)
def test_a_command_that_fails_is_an_error_that_says_how(engine, program, what):
    with open_device("docker://image:1") as container, pytest.raises(DeviceError, match=what) as told:
        list(container.run(["python3", "-c", program]))
    assert ("no idea" in str(told.value)) == ("no idea" in program)


def test_an_engine_that_is_not_installed_is_told(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DeviceError, match="podman is not installed"), open_device("podman://image"):
        pass


def test_an_image_is_not_set_up_but_built():
    with pytest.raises(UsageError, match="where it is built"):
        set_up("docker://image", ["onnxruntime"])
    assert how_to_install("ai-edge-litert", "podman://image").endswith("RUN pip install ai-edge-litert")


@pytest.mark.slow
@pytest.mark.skipif(not REAL, reason="EDGEPRUNE_CONTAINERS names no image of a real engine")
class TestRealEngines:
    @pytest.mark.parametrize("device", REAL)
    def test_a_file_is_timed_in_it(self, tmp_path, device):
        one = an_artifact(tmp_path, "base.onnx")
        images = np.ones((2, 3, 32, 32), np.float32)
        with open_device(device) as container:
            (found,) = measure(
                [one], tmp_path, images, (1,), transport=container, rounds=2, repeats=0, block_seconds=0.01
            )
        assert len(found.blocks) == 2
        assert found.device["cores"] >= 1
        assert containers(device) == []

    @pytest.mark.parametrize("device", REAL)
    def test_an_interruption_leaves_no_container(self, device):
        def interrupted() -> None:
            with (
                open_device(device) as box,
                closing(box.run(["python3", "-uc", "print(1)\nwhile True: pass"])) as lines,
            ):
                next(lines)
                assert len(containers(device)) == 1
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            interrupted()
        assert gone_soon(device)

    @pytest.mark.parametrize("device", REAL)
    def test_it_can_write_nothing_but_its_own_tmp_and_reach_nobody(self, device, tmp_path):
        (tmp_path / "a").touch()
        probe = """
import socket, sys
def tried(what, *words):
    try: what(*words)
    except OSError: return "refused"
    return "done"
print(tried(open, sys.argv[1], "w"), tried(open, "/etc/a", "w"), tried(open, "/tmp/a", "w"),
      tried(socket.create_connection, ("1.1.1.1", 53), 2))
"""
        with open_device(device) as box:
            assert list(box.run(["python3", "-c", probe, box.put(tmp_path / "a")])) == [
                "refused refused done refused\n"
            ]

    @pytest.mark.parametrize("device", REAL)
    def test_a_crash_and_a_missing_image_are_named(self, device):
        with open_device(device) as box, pytest.raises(DeviceError, match="SIGSEGV"):
            list(box.run(["python3", "-c", "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"]))
        engine = device.partition(":")[0]
        with pytest.raises(DeviceError, match="no such image here"), open_device(f"{engine}://no/such:image"):
            pass


def containers(device: str) -> list[str]:
    engine = device.partition(":")[0]
    argv = [engine, "ps", "--all", "--quiet", "--filter", "name=edgeprune-"]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split()


def gone_soon(device: str) -> bool:
    deadline = time.monotonic() + 20
    while containers(device) and time.monotonic() < deadline:
        time.sleep(0.2)
    return not containers(device)
