"""What ssh, the board and container engines say when something fails, in words that say what to do."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgeprune.bench.device import ContainerDevice, SshDevice
from edgeprune.errors import DeviceError

_DISK_FULL = (
    "No space left on device",
    "its disk is full",
    "Free some (on the board: df -h), or remove what edgeprune made: edgeprune bench --clean --device {name}",
)
# (what is said, what is wrong, what to do); the first that is found counts. {name} is the device, {ssh} what to type
# after `ssh`, {host} the host alone, {said} the line it was found in.
_FAULTS = (
    (
        "REMOTE HOST IDENTIFICATION HAS CHANGED",
        "its host key is not the one this machine knows: another board, a new system, or somebody in between",
        "If the board was set up anew: ssh-keygen -R {known}, then ssh {ssh} once to look at the new key.",
    ),
    ("Host key verification failed", "its host key is not known yet", "Run ssh {ssh} once and look at the key."),
    ("Could not resolve hostname", "there is no such host", "Is it on, and the name right? Try its IP address."),
    (
        "Connection refused",
        "it refuses the connection",
        "Is sshd running there, on that port? On the board: sudo systemctl enable --now ssh",
    ),
    ("Permission denied (", "it does not accept a key of this machine", "Give it one: ssh-copy-id {ssh}"),
    ("Too many authentication failures", "it does not accept a key of this machine", "ssh-copy-id {ssh}"),
    ("timed out", "it does not answer", "Is the board on, and in the same network?"),
    ("No route to host", "it cannot be reached", "Is the board on, and in the same network?"),
    ("Network is unreachable", "it cannot be reached", "Is this machine in a network?"),
    (
        "busy: ",
        "another bench is running there: {said}",
        "Wait for it, or ask its owner. If it is your own, of a lost connection, --collect tells how far it is.",
    ),
    (
        "python3 is too old",
        "{said}",
        "edgeprune needs Python 3.9 or newer as python3 on the board: Raspberry Pi OS 11, Ubuntu 22.04.",
    ),
    ("python3: not found", "there is no python3", "On the board: sudo apt install python3"),
    ("python3: command not found", "there is no python3", "On the board: sudo apt install python3"),
    _DISK_FULL,
    ("Disk quota exceeded", "the user's disk quota is used up", "Free some space on the board."),
    ("Read-only file system", "its home folder cannot be written", "A worn-out SD card? On the board: dmesg"),
    ("No module named 'numpy'", "numpy is not installed there", "edgeprune bench --setup --device {name}"),
)
_EXIT_OF_SSH = 255

# The same for docker and podman; {engine} and {image} are those asked for.
_ENGINE_FAULTS = (
    ("Cannot connect to the Docker daemon", "the docker daemon does not run", "sudo systemctl start docker"),
    ("Cannot connect to Podman", "podman's virtual machine does not run", "podman machine start"),
    (
        "permission denied while trying to connect",
        "you may not use docker",
        "sudo usermod -aG docker $USER, then log in again; or use podman.",
    ),
    ("o such image", "there is no such image here", "Nothing is downloaded unasked: {engine} pull {image}"),
    ("image not known", "there is no such image here", "Nothing is downloaded unasked: {engine} pull {image}"),
    ("exec python3 failed", "there is no python3 in the image", "In its Dockerfile: FROM python:3.11-slim"),
    ("failed to exec pid1", "there is no python3 in the image", "In its Dockerfile: FROM python:3.11-slim"),
    ("xec format error", "the image is for another kind of processor", "Take the image for this machine's."),
    ("python3 is too old", "{said}", "edgeprune needs Python 3.9 or newer as python3 in the image."),
    ("No module named 'numpy'", "numpy is not installed there", "In its Dockerfile: RUN pip install numpy"),
    ("o space left on device", "the disk is full", "Free some space: {engine} system df"),
)


class ConnectionLostError(DeviceError):
    """The board cannot be reached any more, and goes on alone.

    Args:
        device: its device string.
    """

    def __init__(self, device: str) -> None:
        super().__init__(
            "lost the connection, and could not make it anew",
            where=device,
            fix="The board finishes its work alone. Later: edgeprune bench --collect, or to remove it --clean",
        )


@dataclass(frozen=True)
class Recognised:
    """A complaint that is known.

    Attributes:
        sign: by which.
        what: is wrong.
        fix: what to do.
        line: that it was found in.
    """

    sign: str
    what: str
    fix: str
    line: str


def recognised(
    faults: Sequence[tuple[str, str, str]], lines: Sequence[str], seen: Callable[[str], str] = str
) -> Recognised | None:
    """The first fault of a table, (sign, what, fix) each, whose sign is in a line; None if none is.

    Args:
        faults: the table.
        lines: what a program said.
        seen: how a line is looked at, `str.lower` for signs in small letters.
    """
    for sign, what, fix in faults:
        for line in lines:
            if sign in seen(line):
                return Recognised(sign, what, fix, line)
    return None


def fault(code: int, said: str, device: SshDevice) -> DeviceError:
    """The error for a call over ssh that failed.

    Args:
        code: of the exit: 255 is ssh's own.
        said: what came on standard error.
        device: for the text.
    """
    known = f"'[{device.host}]:{device.port}'" if device.port else device.host
    user = f"{device.user}@" if device.user else ""
    ssh = (f"-p {device.port} " if device.port else "") + user + device.host
    if found := recognised(_FAULTS, said.splitlines()):
        words = {"name": str(device), "ssh": ssh, "known": known, "said": found.line.removeprefix("busy: ")}
        return DeviceError(found.what.format(**words), where=str(device), fix=found.fix.format(**words))
    last = " | ".join(said.strip().splitlines()[-3:]) or f"exit code {code}"
    if code == _EXIT_OF_SSH:
        return DeviceError(f"cannot connect: {last}", where=str(device), fix=f"Does this work? ssh {ssh} true")
    return DeviceError(f"a command failed there: {last}", where=str(device))


def engine_fault(said: str, device: ContainerDevice) -> DeviceError | None:
    """The error for a container that did not come to run its program; None if nothing of that was said.

    Args:
        said: what came on standard error.
        device: for the text.
    """
    found = recognised(_ENGINE_FAULTS, said.splitlines())
    if not found:
        return None
    words = {"engine": device.engine, "image": device.image, "said": found.line}
    return DeviceError(found.what.format(**words), where=str(device), fix=found.fix.format(**words))


def ended(code: int | None, words: Sequence[str], device: str) -> DeviceError:
    """The error for a worker that did not end with exit code 0.

    Args:
        code: negative: the signal that killed it; None: nobody was left to see it.
        words: the last lines it said.
        device: where.
    """
    last = " | ".join(words)
    if any(_DISK_FULL[0] in line for line in words):
        fix = _DISK_FULL[2].format(name=device) if device.startswith("ssh://") else "Free some space."
        return DeviceError(_DISK_FULL[1], where=device, fix=fix)
    if code is None:
        return DeviceError(
            f"the worker was cut down in the middle of its work{': ' * bool(last)}{last}",
            where=device,
            fix="Did the board restart, or run out of memory? On the board: uptime; dmesg | tail",
        )
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    memory = "Was there no memory left? On the board: dmesg | tail" if code == -signal.SIGKILL else ""
    return DeviceError(f"the worker {how}", where=" | ".join([device, *words]), fix=memory)
