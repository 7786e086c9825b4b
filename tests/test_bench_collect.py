"""What a board finished alone is fetched later: over a real sshd, with a real worker, and no block twice."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from program_runs import run_here
from report_samples import FULL
from ssh_server import SSHD
from test_bench_session import an_artifact
from test_bench_ssh import left_on, server, wait_for  # noqa: F401 (a fixture)

from edgeprune.bench import ssh
from edgeprune.bench.session import INPUTS_NAME, LOG_NAME, measure
from edgeprune.bench.transport import open_device
from edgeprune.errors import DeviceError
from edgeprune.measurement import Measurement, load_measurements
from edgeprune.report.document import Report

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path(SSHD).exists() or not shutil.which("ssh"), reason="openssh-server is not installed"),
]
ROUNDS = 12


@pytest.fixture
def run(tmp_path) -> Path:
    folder = tmp_path / "a run"
    folder.mkdir()
    pair = (an_artifact(folder, "baseline.onnx"), an_artifact(folder, "pruned.onnx", role="pruned"))
    replace(FULL, artifacts=pair, measurements=(), comparisons=(), devices=()).save(folder)
    np.save(folder / INPUTS_NAME, np.ones((2, 3, 32, 32), np.float32))
    return folder


@pytest.fixture
def lost(run, server, monkeypatch):  # noqa: F811
    """A run of which the connection was lost for good after a few blocks; the server is off."""
    monkeypatch.setattr(ssh, "RETRY_SECONDS", (0.1, 0.1))

    def bench(rounds: int, cut_at: int, seconds: float = 0.0) -> None:
        ticks = itertools.count()

        def cut(done: int, total: int) -> None:
            if next(ticks) == cut_at:
                server.stop()

        artifacts, images = Report.load(run / "report.json").artifacts, np.load(run / INPUTS_NAME)
        settings = {"rounds": rounds, "seconds": seconds, "repeats": 0, "block_seconds": 0.02, "tick": cut}
        with open_device(server.device) as board, pytest.raises(DeviceError, match="lost the connection"):
            measure(artifacts, run, images, (1,), transport=board, **settings)

    return bench


def ended(server) -> bool:  # noqa: F811
    (folder,) = left_on(server)
    return json.loads((server.cache / folder / "outcome.json").read_text()) is not None


def stored(run: Path) -> tuple[Measurement, ...]:
    return load_measurements(run / LOG_NAME)


def blocks(run: Path) -> list[list[int]]:
    return [[block.round for block in one.blocks] for one in stored(run)]


def test_what_was_finished_alone_is_fetched_once(run, server, lost):  # noqa: F811
    lost(ROUNDS, cut_at=5)
    before = blocks(run)
    assert sum(map(len, before)) < 2 * ROUNDS
    server.start()
    wait_for(lambda: ended(server))
    ran = run_here("bench", str(run), "--device", server.device, "--collect", "--json")
    assert ran.code in (0, 4), ran.err  # 4: this machine may be busy
    assert blocks(run) == [list(range(ROUNDS))] * 2
    (device,) = json.loads(ran.out)["devices"]
    assert [row["samples"] for row in device["rows"]] == [len(one.samples_ns) for one in stored(run)]
    assert len({one.session for one in stored(run)}) == 1
    assert len(Report.load(run / "report.json").measurements) == 2
    assert left_on(server) == []
    again = run_here("bench", str(run), "--device", server.device, "--collect")
    assert (again.code, "nothing of these files is left there" in again.err) == (3, True)
    assert blocks(run) == [list(range(ROUNDS))] * 2


def test_a_board_that_still_measures_says_how_far_it_is_and_goes_on(run, server, lost):  # noqa: F811
    lost(100_000, cut_at=3)
    server.start()
    before = blocks(run)
    ran = run_here("bench", str(run), "--device", server.device, "--collect")
    assert ran.code == 3
    assert "it is still measuring: " in ran.err
    assert "of 200000 blocks are done" in ran.err
    assert "Ask again later" in ran.err
    assert (blocks(run), len(left_on(server))) == (before, 1)
    forget(server)


def test_where_time_was_asked_for_it_says_how_much_is_over(run, server, lost):  # noqa: F811
    lost(16, cut_at=3, seconds=600.0)
    server.start()
    ran = run_here("bench", str(run), "--device", server.device, "--collect")
    assert ran.code == 3
    assert "of 600 seconds are done" in ran.err
    forget(server)


def test_what_another_version_left_is_refused(run, server, lost):  # noqa: F811
    lost(ROUNDS, cut_at=3)
    server.start()
    wait_for(lambda: ended(server))
    (folder,) = left_on(server)
    events = server.cache / folder / "events.jsonl"
    events.write_text(events.read_text().replace('"schema": ', '"schema": 9', 1))
    before = blocks(run)
    ran = run_here("bench", str(run), "--device", server.device, "--collect")
    assert (ran.code, "of another version of edgeprune" in ran.err, "--clean" in ran.err) == (3, True, True)
    assert (blocks(run), len(left_on(server))) == (before, 1)


def test_a_worker_that_failed_alone_is_told_and_what_it_measured_is_kept(run, server, lost):  # noqa: F811
    lost(100_000, cut_at=3)
    server.start()
    (folder,) = (server.cache / name for name in left_on(server))
    (worker,) = children_of(int((folder / "group").read_text()))[:1]
    os.kill(worker, signal.SIGSEGV)
    wait_for(lambda: ended(server))
    ran = run_here("bench", str(run), "--device", server.device, "--collect")
    assert ran.code == 3
    assert "its process was killed by SIGSEGV" in ran.err
    assert sum(map(len, blocks(run))) > 3
    assert left_on(server) == []


def test_a_run_of_other_files_is_left_alone(run, server, lost, tmp_path):  # noqa: F811
    lost(ROUNDS, cut_at=3)
    server.start()
    wait_for(lambda: ended(server))
    an_artifact(tmp_path, "other.onnx", channels=3)
    ran = run_here("bench", str(tmp_path / "other.onnx"), "--device", server.device, "--collect")
    assert (ran.code, "nothing of these files" in ran.err, len(left_on(server))) == (3, True, 1)


def test_the_error_says_the_very_command(run, server, monkeypatch):  # noqa: F811
    import edgeprune.benching as benching
    from edgeprune.bench.faults import ConnectionLostError

    def lose(*_, transport, **__):
        raise ConnectionLostError(transport.name)

    monkeypatch.setattr(benching, "measure", lose)
    ran = run_here("bench", str(run), "--device", server.device)
    assert ran.code == 3
    assert f"edgeprune bench '{run}' --device {server.device} --collect" in ran.err


def test_only_boards_can_be_collected_from(run):
    ran = run_here("bench", str(run), "--collect")
    assert (ran.code, "--collect is for boards" in ran.err) == (2, True)


def forget(server) -> None:  # noqa: F811
    """End and remove what is left on the board."""
    with open_device(server.device) as board:
        for left in board.left():
            board.remove(left.folder)
    assert left_on(server) == []


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
