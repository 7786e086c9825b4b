"""A board over SSH: a real sshd on loopback, the system's ssh."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import closing, suppress
from pathlib import Path

import pytest
from ssh_server import SSHD, SshServer, make_key
from test_bench_transport import CHILD_THAT_STAYS, is_alive, is_gone_soon
from test_worker import a_job, write_onnx

from edgeprune.bench import ssh
from edgeprune.bench.device import SshDevice
from edgeprune.bench.faults import fault
from edgeprune.bench.transport import open_device, pack_worker
from edgeprune.errors import DeviceError

pytestmark = pytest.mark.skipif(
    not Path(SSHD).exists() or not shutil.which("ssh"), reason="openssh-server is not installed"
)
COUNTING = "import sys, time\nfor i in range({}): print(i, flush=True); time.sleep({})"


@pytest.fixture
def server(tmp_path, monkeypatch):
    server = SshServer(tmp_path / "board")
    monkeypatch.setenv("PATH", f"{server.folder}/bin:{os.environ['PATH']}")
    server.start()
    yield server
    server.stop()


def left_on(server: SshServer) -> list[str]:
    return [path.name for path in server.cache.glob("run-*")]


def wait_for(condition) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_files_and_lines_travel_by_one_login_and_nothing_is_left(server, tmp_path):
    (tmp_path / "a file's name").write_bytes(bytes(range(256)) * 1000)
    with open_device(server.device) as board:
        there = board.put(tmp_path / "a file's name")
        assert board.put(tmp_path / "a file's name") == there
        assert Path(board.board.folder).stat().st_mode & 0o077 == 0
        board.get(there, tmp_path / "back")
        assert list(board.run([board.python, "-c", "print(1); print(2)"])) == ["1\n", "2\n"]
    assert (tmp_path / "back").read_bytes() == (tmp_path / "a file's name").read_bytes()
    assert server.logins == 1
    assert left_on(server) == []


def test_the_users_configuration_names_the_board(server):
    with open_device("ssh://board") as board:
        assert list(board.run(["/bin/echo", "here"])) == ["here\n"]


def test_a_board_behind_a_jump_host_is_reached(server):
    with open_device("ssh://behind-board") as board:
        assert list(board.run(["/bin/echo", "here"])) == ["here\n"]
    assert server.logins == 2


def test_arguments_are_never_read_by_a_shell(server):
    argument = "$(echo hurt); `id` 'x' \"y\"\nz"
    with open_device(server.device) as board:
        assert "".join(board.run([board.python, "-c", "import sys; print(sys.argv[1])", argument])) == argument + "\n"


@pytest.mark.parametrize(
    ("program", "what"),
    [
        ("import sys; print('no idea', file=sys.stderr); sys.exit(3)", "ended with exit code 3"),
        ("import os; os.abort()", "was killed by SIGABRT"),
        ("import os; os.kill(os.getpid(), 9)", "was killed by SIGKILL"),
    ],
)
def test_a_command_that_fails_is_an_error_that_says_how(server, program, what):
    with open_device(server.device) as board, pytest.raises(DeviceError, match=what) as told:
        list(board.run([board.python, "-c", program]))
    assert ("no idea" in str(told.value)) == ("no idea" in program)
    assert ("no memory left" in told.value.fix) == ("SIGKILL" in what)


def test_a_command_that_is_not_there_is_an_error(server):
    with open_device(server.device) as board, pytest.raises(DeviceError, match="exit code 127") as told:
        list(board.run(["/nowhere/python"]))
    assert "cannot start /nowhere/python" in str(told.value)


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, RuntimeError])
def test_an_interruption_ends_the_command_and_its_children(server, interruption):
    started = []

    def interrupted() -> None:
        with open_device(server.device) as board, closing(board.run([board.python, "-c", CHILD_THAT_STAYS])) as lines:
            started.append(int(next(lines)))
            assert is_alive(started[0])
            raise interruption

    with pytest.raises(interruption):
        interrupted()
    assert is_gone_soon(started[0])
    assert left_on(server) == []


@pytest.mark.slow
def test_a_cut_connection_is_taken_up_where_it_was(server):
    with open_device(server.device) as board:
        lines = []
        for line in board.run([board.python, "-c", COUNTING.format(40, 0.05)]):
            lines.append(int(line))
            if len(lines) in (5, 20):
                server.cut_connections()
    assert lines == list(range(40))
    assert server.logins == 3
    assert left_on(server) == []


@pytest.mark.slow
def test_a_connection_lost_for_good_leaves_the_work_on_the_board_and_says_where(server, monkeypatch):
    monkeypatch.setattr(ssh, "RETRY_SECONDS", (0.1, 0.1))

    def bench() -> None:
        with open_device(server.device) as board:
            for number, _ in enumerate(board.run([board.python, "-c", COUNTING.format(20, 0.1)])):
                if number == 2:
                    server.stop()

    with pytest.raises(DeviceError, match="lost the connection") as told:
        bench()
    server.start()
    events = server.cache / left_on(server)[0] / "events.jsonl"
    assert "--collect" in told.value.fix
    wait_for(lambda: len(events.read_text().splitlines()) == 20)


@pytest.mark.slow
def test_one_bench_at_a_time(server):
    with open_device(server.device) as first, open_device(server.device) as second:
        with closing(first.run([first.python, "-c", COUNTING.format(1, 60)])) as lines:
            next(lines)
            with pytest.raises(DeviceError, match=r"another bench is running there: .*@.* since"):
                list(second.run(["/bin/true"]))
            with pytest.raises(DeviceError, match="another bench"):
                second.clean()
        assert list(second.run(["/bin/echo", "free"])) == ["free\n"]


@pytest.mark.slow
def test_a_keeper_that_was_killed_leaves_no_lock_and_its_attached_worker_ends(server, tmp_path):
    pack_worker(tmp_path / "worker.pyz")
    (tmp_path / "job.json").write_text(
        json.dumps(a_job(tmp_path, [write_onnx(tmp_path / "a.onnx")], rounds=1, block_seconds=300))
    )
    with open_device(server.device) as board:
        argv = [board.python, board.put(tmp_path / "worker.pyz"), "--attached", board.put(tmp_path / "job.json")]
        lines = board.run(argv)
        assert json.loads(next(lines))["event"] == "start"
        group = int((Path(board.board.folder) / "group").read_text())
        keeper = int(Path(f"/proc/{group}/stat").read_text().rpartition(")")[2].split()[1])
        os.kill(keeper, signal.SIGKILL)
        with pytest.raises(DeviceError, match="cut down in the middle"):
            list(lines)
        assert is_gone_soon(group)
        assert list(board.run(["/bin/echo", "free"])) == ["free\n"]


def test_clean_removes_all_that_was_made(server):
    with open_device(server.device) as board:
        (server.cache / "venv-old").mkdir()
        board.clean()
    assert not server.cache.exists()


def refused(device: str) -> DeviceError:
    with pytest.raises(DeviceError) as told, open_device(device):
        pass
    assert told.value.exit_code == 3
    assert told.value.fix
    assert device in told.value.where
    return told.value


def test_a_name_that_is_not_known_is_told(server):
    assert "no such host" in refused("ssh://no-such-board.invalid").what


def test_a_closed_port_is_told(server):
    error = refused("ssh://127.0.0.1:1")
    assert "refuses the connection" in error.what
    assert "systemctl enable --now ssh" in error.fix


def test_a_key_that_is_not_accepted_is_told(server):
    make_key(server.folder / "stranger")
    shutil.copy(server.folder / "stranger.pub", server.folder / "id.pub")
    error = refused(server.device)
    assert "does not accept a key" in error.what
    assert f"ssh-copy-id -p {server.port} 127.0.0.1" in error.fix


def test_a_host_key_that_is_not_known_is_refused(server):
    (server.folder / "known").unlink()
    assert "host key is not known yet" in refused(server.device).what
    assert server.logins == 0


def test_a_host_key_that_changed_is_refused(server):
    make_key(server.folder / "other")
    server.trust(server.folder / "other.pub")
    error = refused(server.device)
    assert "host key is not the one" in error.what
    assert f"ssh-keygen -R '[127.0.0.1]:{server.port}'" in error.fix
    assert server.logins == 0


def test_a_board_without_python_is_told(server):
    (server.folder / "programs" / "python3").unlink()
    assert "there is no python3" in refused(server.device).what


def test_a_board_with_an_old_python_is_told(server):
    old = "import sys, platform; sys.version_info = (3, 8, 2); platform.python_version = lambda: '3.8.2'"
    server.install("python3", f'exec {sys.executable} -c "{old}\n$2"')
    assert "python3 is too old: 3.8.2" in refused(server.device).what


def test_a_board_whose_shell_talks_is_told(server):
    server.install("python3", f'echo Welcome!; exec {sys.executable} "$@"')
    assert "prints text of its own" in refused(server.device).what


@pytest.mark.parametrize(
    ("said", "what"),
    [
        ("ssh: connect to host b port 22: Connection timed out", "does not answer"),
        ("Connection timed out during banner exchange", "does not answer"),
        ("ssh: connect to host b port 22: No route to host", "cannot be reached"),
        ("ssh: connect to host b port 22: Network is unreachable", "cannot be reached"),
        ("Received disconnect from b: Too many authentication failures", "does not accept a key"),
        ("Read-only file system: ~/.cache", "cannot be written"),
        ("Disk quota exceeded: ~/x", "quota is used up"),
    ],
)
def test_what_cannot_be_staged_here_is_told_too(said, what):
    error = fault(255, f"some banner\n{said}\n", SshDevice("b"))
    assert what in error.what
    assert error.fix


def test_what_nobody_foresaw_is_passed_on():
    error = fault(255, "kex_exchange_identification: read: Connection reset by peer", SshDevice("b", "pi", 23))
    assert "Connection reset by peer" in error.what
    assert error.fix == "Does this work? ssh -p 23 pi@b true"
    assert "Is a directory: /x" in fault(1, "Is a directory: /x", SshDevice("b")).what


@pytest.mark.skipif(os.getuid() != 0, reason="needs root to mount a small disk")
def test_a_full_disk_is_told(server, tmp_path):
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", server.home], check=True)
    try:
        (tmp_path / "large").write_bytes(bytes(1_000_000))
        with open_device(server.device) as board, pytest.raises(DeviceError, match="its disk is full") as told:
            board.put(tmp_path / "large")
        assert "--clean" in told.value.fix
    finally:
        subprocess.run(["umount", server.home], check=True)


@pytest.mark.skipif(os.getuid() != 0, reason="needs root to mount a small disk")
def test_a_disk_that_fills_up_in_mid_run_is_told_and_left_clean(server):
    fill = "import sys\nfor i in range(100_000): print('x' * 100, flush=True)"
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", server.home], check=True)
    try:
        with open_device(server.device) as board, pytest.raises(DeviceError, match="its disk is full"):
            list(board.run([board.python, "-c", fill]))
        assert left_on(server) == []
    finally:
        subprocess.run(["umount", server.home], check=True)


def test_a_board_that_answers_nothing_is_given_up(server, monkeypatch):
    monkeypatch.setitem(ssh._OPTIONS, "ConnectTimeout", "1")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert "does not answer" in refused(f"ssh://127.0.0.1:{silent.getsockname()[1]}").what


def test_a_board_that_asks_for_a_password_is_told_and_not_waited_for(server):
    server.stop()
    settings = server.folder / "sshd_config"
    settings.write_text(settings.read_text().replace("PasswordAuthentication no", "PasswordAuthentication yes"))
    (server.folder / "id.pub").write_text("")
    server.start()
    error = refused(server.device)
    assert "does not accept a key" in error.what
    assert "ssh-copy-id" in error.fix


@pytest.mark.parametrize("how", ["unknown name", "unknown key", "no python", "a command that fails"])
def test_whatever_goes_wrong_no_file_and_no_process_is_left(server, tmp_path, monkeypatch, how):
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    if how == "unknown key":
        (server.folder / "known").unlink()
    if how == "no python":
        (server.folder / "programs" / "python3").unlink()

    def wrong() -> None:
        with open_device("ssh://no-such-board.invalid" if how == "unknown name" else server.device) as board:
            list(board.run([board.python, "-c", "import sys; sys.exit(3)"]))

    with pytest.raises(DeviceError):
        wrong()
    assert list((tmp_path / "tmp").iterdir()) == []
    wait_for(lambda: not sessions_of(server))
    assert left_on(server) == []


def test_two_boards_run_side_by_side(server, tmp_path):
    other = SshServer(tmp_path / "other")
    other.start()
    shutil.copy(server.folder / "id.pub", other.folder / "id.pub")
    with (server.folder / "known").open("a") as known:
        known.write((other.folder / "known").read_text())
    found = {}

    def bench(device: str) -> None:
        with open_device(device) as board:
            found[device] = list(board.run(["/bin/echo", device]))

    threads = [threading.Thread(target=bench, args=(device,)) for device in (server.device, other.device)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    other.stop()
    assert found == {device: [device + "\n"] for device in (server.device, other.device)}


def test_two_ways_to_one_board_are_known_as_one(server):
    with open_device(server.device) as one, open_device("ssh://board") as two, open_device("local") as here:
        assert one.machine == two.machine == here.machine


FLEET = """
import sys
from edgeprune.bench.fleet import side_by_side
from edgeprune.bench.ssh import Ssh
from edgeprune.bench.transport import open_device
Ssh.machine = property(lambda board: board.name)  # one kernel runs both boards of the test
def work(device, opened):
    with opened(device) as board:
        for line in board.run([board.python, "-c", sys.argv[3]]):
            print(line.strip(), flush=True)
side_by_side(sys.argv[1:3], open_device, work)
"""


def test_ctrl_c_ends_what_runs_on_several_boards(server):
    argv = [sys.executable, "-c", FLEET, server.device, "ssh://board", CHILD_THAT_STAYS]
    server.install("python3", f'export HOME="$HOME/$PPID"; mkdir -p $HOME; exec {sys.executable} "$@"')
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as bench:
        assert bench.stdout
        remote = [int(bench.stdout.readline()) for _ in range(2)]
        bench.send_signal(signal.SIGINT)
        assert bench.wait(30) != 0
    assert all(is_gone_soon(process) for process in remote)
    wait_for(lambda: not sessions_of(server))


BENCH = """
import sys
from edgeprune.bench.transport import open_device
with open_device(sys.argv[1]) as board:
    for line in board.run([board.python, "-c", sys.argv[2]]):
        print(line.strip(), flush=True)
"""


def test_ctrl_c_while_waiting_leaves_no_process_here_and_none_there(server):
    argv = [sys.executable, "-c", BENCH, server.device, CHILD_THAT_STAYS]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as bench:
        assert bench.stdout
        remote = int(bench.stdout.readline())
        time.sleep(0.3)
        bench.send_signal(signal.SIGINT)
        assert bench.wait(30) != 0
    assert is_gone_soon(remote)
    assert left_on(server) == []
    wait_for(lambda: not sessions_of(server))


def sessions_of(server: SshServer) -> list[int]:
    """The ssh processes of this machine that talk to the server."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it ended meanwhile
            if f"{server.folder}/config".encode() in path.read_bytes():
                found.append(int(path.parent.name))
    return found
