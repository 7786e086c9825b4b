"""This machine as a device."""

from __future__ import annotations

import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from edgeprune.bench.device import ContainerDevice, LocalDevice, SshDevice, parse_device
from edgeprune.bench.transport import Local, open_device
from edgeprune.errors import DeviceError, UsageError

CHILD_THAT_STAYS = (
    "import subprocess, sys, time; print(subprocess.Popen(['sleep', '300']).pid, flush=True); time.sleep(300)"
)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def is_gone_soon(pid: int) -> bool:
    deadline = time.monotonic() + 20
    while is_alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not is_alive(pid)


def test_lines_come_one_by_one():
    with Local() as device:
        assert [line.strip() for line in device.run([sys.executable, "-c", "print(1); print(2)"])] == ["1", "2"]


def test_a_command_that_fails_is_an_error_with_its_last_words():
    with Local() as device, pytest.raises(DeviceError, match="exit code 3") as told:
        list(device.run([sys.executable, "-c", "import sys; print('no space left', file=sys.stderr); sys.exit(3)"]))
    assert "no space left" in str(told.value)


def test_a_command_that_is_not_there_is_an_error():
    with Local() as device, pytest.raises(DeviceError, match="cannot start"):
        list(device.run(["/nowhere/python"]))


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, RuntimeError])
def test_an_interruption_ends_the_command_and_its_children(interruption):
    started = []

    def interrupted() -> None:
        with Local() as device, closing(device.run([sys.executable, "-c", CHILD_THAT_STAYS])) as lines:
            started.append(int(next(lines)))
            assert is_alive(started[0])
            raise interruption

    with pytest.raises(interruption):
        interrupted()
    assert is_gone_soon(started[0])


def test_arguments_are_never_read_by_a_shell():
    argument = "$(echo hurt); `id` 'x' \"y\""
    with Local() as device:
        assert list(device.run([sys.executable, "-c", "import sys; print(sys.argv[1])", argument])) == [argument + "\n"]


def test_files_are_put_where_they_are_and_got_by_copy(tmp_path):
    source = tmp_path / "a"
    source.write_text("text")
    with Local() as device:
        assert device.put(source) == str(source)
        device.get(str(source), tmp_path / "b")
    assert (tmp_path / "b").read_text() == "text"


@pytest.mark.parametrize(
    ("text", "device"),
    [
        ("local", LocalDevice()),
        ("ssh://raspberrypi.local", SshDevice("raspberrypi.local")),
        ("ssh://pi@10.0.0.7", SshDevice("10.0.0.7", "pi")),
        ("ssh://pi@board_1:2222", SshDevice("board_1", "pi", 2222)),
        ("ssh://[fe80::1%eth0]:22", SshDevice("fe80::1%eth0", port=22)),
        ("docker://python", ContainerDevice("docker", "python")),
        ("podman://localhost:5000/a/b__c.d:1.2-x", ContainerDevice("podman", "localhost:5000/a/b__c.d:1.2-x")),
        (f"docker://Reg.io/a@sha256:{'0a' * 32}", ContainerDevice("docker", f"Reg.io/a@sha256:{'0a' * 32}")),
    ],
)
def test_a_device_string_is_read_and_written_back(text, device):
    assert parse_device(text) == device
    assert str(device) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "raspberrypi",
        "ssh://",
        "ssh://-oProxyCommand=touch /hurt",
        "ssh://-oProxyCommand=x",
        "ssh://-l@host",
        "ssh://pi@-host",
        "ssh://host;reboot",
        "ssh://ho st",
        "ssh://host\n",
        "ssh://$(reboot)",
        "ssh://`id`@host",
        "ssh://pi:secret@host",
        "ssh://host:0",
        "ssh://host:65536",
        "ssh://host:22x",
        "ssh://host/etc",
        "ssh://[::1",
        "ssh://höst",
        "docker://",
        "docker://--privileged",
        "docker://-v=/:/host",
        "docker://a --privileged",
        "docker://a\n",
        "docker://a/../b",
        "docker://a//b",
        "docker://Upper",
        "docker://a:",
        "docker://a:-x",
        "docker://a@sha256:1",
        "docker:///etc",
        "podman://$(reboot)",
        "podman://a;reboot",
        "containerd://a",
    ],
)
def test_a_device_string_cannot_carry_options_or_commands(text):
    with pytest.raises(UsageError, match="is not a device"):
        open_device(text)
