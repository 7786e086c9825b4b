"""What goes wrong in the middle of a bench on a board: said in the user's words, with the right exit code, and no
process or file left behind. Over a real sshd, with a real worker."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from program_runs import run_here
from ssh_server import SSHD
from test_bench_collect import children_of, run  # noqa: F401 (a fixture)
from test_bench_ssh import left_on, server, sessions_of, wait_for  # noqa: F401 (a fixture)
from test_bench_transport import is_gone_soon

from edgeprune.bench.session import LOG_NAME, measure
from edgeprune.bench.transport import open_device
from edgeprune.errors import DeviceError
from edgeprune.material import open_run
from edgeprune.measurement import load_measurements

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path(SSHD).exists() or not shutil.which("ssh"), reason="openssh-server is not installed"),
]


def worker_on(server) -> int:  # noqa: F811
    """The process that conducts the run that is under way."""
    (folder,) = left_on(server)
    return int((server.cache / folder / "group").read_text())


@pytest.mark.parametrize(
    ("kind", "remedy"),
    [(signal.SIGKILL, "no memory left"), (signal.SIGSEGV, "The runtime crashed"), (signal.SIGILL, "newer processor")],
)
def test_a_file_whose_process_is_killed_is_named_with_the_signal_and_what_it_means(run, server, kind, remedy):  # noqa: F811
    def kill(done: int, total: int) -> None:
        if done == 4:
            os.kill(children_of(worker_on(server))[0], kind)

    material = open_run(run)
    settings = {"rounds": 100_000, "block_seconds": 0.01, "tick": kill}
    with open_device(server.device) as board, pytest.raises(DeviceError) as told:
        measure(material.artifacts, run, material.images, (1,), transport=board, **settings)
    assert f"onnxruntime cannot run baseline.onnx: its process was killed by {kind.name}" in told.value.what
    assert remedy in told.value.fix
    assert sum(len(one.blocks) for one in load_measurements(run / LOG_NAME)) >= 4
    assert left_on(server) == []


def test_a_board_that_is_busy_is_exit_3_and_says_with_whom(run, server):  # noqa: F811
    with open_device(server.device) as other:
        lines = other.run([other.python, "-c", "print(1, flush=True); input()"])
        next(lines)
        ran = run_here("bench", str(run), "--device", server.device)
        lines.close()
    assert (ran.code, "another bench is running there: " in ran.err) == (3, True)
    assert not (run / LOG_NAME).exists() or load_measurements(run / LOG_NAME) == ()
    assert left_on(server) == []


def test_ctrl_c_is_exit_130_and_ends_what_runs_there(run, server, tmp_path):  # noqa: F811
    (tmp_path / "tmp").mkdir()
    argv = [sys.executable, "-m", "edgeprune", "bench", str(run), "--device", server.device, "--blocks", "100000"]
    environment = {**os.environ, "TMPDIR": str(tmp_path / "tmp")}
    with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True, env=environment) as bench:
        wait_for(lambda: (run / LOG_NAME).exists() and load_measurements(run / LOG_NAME))
        there = worker_on(server)
        working = [there, *children_of(there)]
        bench.send_signal(signal.SIGINT)
        _, said = bench.communicate(timeout=60)
    assert bench.returncode == 130, said
    assert "Traceback" not in said
    assert all(is_gone_soon(process) for process in working)
    assert left_on(server) == []
    assert list((tmp_path / "tmp").iterdir()) == []
    wait_for(lambda: not sessions_of(server))
    assert all(json.loads(line) for line in (run / LOG_NAME).read_text().splitlines())
