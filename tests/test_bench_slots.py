"""Boards are a resource with one slot each: who measures on one waits for who does."""

from __future__ import annotations

import fcntl
import select
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from program_runs import environment
from report_samples import FULL

from edgeprune import measuring
from edgeprune.bench.slots import VARIABLE, slot
from edgeprune.errors import DeviceError, OutputError, UsageError
from edgeprune.journal import Journal, Nobody
from edgeprune.request import Request
from edgeprune.target import load_target
from edgeprune.trying import facts_of

HOLDS = """
import sys, time
from edgeprune.bench.slots import slot
with slot(sys.argv[1]):
    print("in", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, str(tmp_path / "slots"))
    return tmp_path / "slots"


def holder(device: str, folder: Path) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    env = environment(**{VARIABLE: str(folder)})
    return subprocess.Popen([sys.executable, "-c", HOLDS, device], env=env, stdin=pipe, stdout=pipe, text=True)


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    return process.stdout.readline().strip()


def end(*processes: subprocess.Popen[str]) -> None:
    for process in processes:
        process.communicate("\n", timeout=60)


def test_the_second_waits_until_the_first_lets_go(folder):
    with slot("ssh://pi@board"):
        waiting, other = holder("ssh://pi@board", folder), holder("ssh://pi@another", folder)
        assert said(other) == "in"
        assert not select.select([waiting.stdout], [], [], 3)[0]
    assert said(waiting) == "in"
    end(waiting, other)


def test_one_who_is_killed_leaves_it_free(folder):
    killed = holder("local", folder)
    assert said(killed) == "in"
    killed.send_signal(signal.SIGKILL)
    killed.wait(60)
    with slot("local"):
        pass
    killed.communicate()


def test_a_container_here_is_this_machine(folder):
    with slot("docker://image:1"):
        assert [path.name for path in folder.iterdir()] == ["local.lock"]


def test_who_holds_it_need_not_wait_for_himself(folder):
    with slot("local"), slot("local"):
        pass
    with slot("local"):
        pass


def test_without_a_folder_nobody_waits_and_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    with slot("local"):
        assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_is_said(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv(VARIABLE, str(tmp_path / "file" / "slots"))
    with pytest.raises(OutputError), slot("local"):
        pass


def test_a_run_holds_it_while_its_files_are_timed(folder, tmp_path, monkeypatch):
    def measure(*_, **__):
        with (folder / "local.lock").open() as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        raise DeviceError("seen")

    monkeypatch.setattr(measuring, "measure", measure)
    images, journal = np.zeros((1, 3, 8, 8), np.float32), Journal(Nobody())
    with pytest.raises(DeviceError, match="seen"):
        measuring.measured_run(Request(), FULL.artifacts, load_target("rpi4"), tmp_path, images, None, journal)


def test_asking_a_board_for_its_facts_waits_for_it_too(folder):
    assert facts_of("local")["cores"]
    assert [path.name for path in folder.iterdir()] == ["local.lock"]


def test_what_is_no_device_is_refused(folder):
    with pytest.raises(UsageError), slot("nowhere"):
        pass
