"""A real sshd on loopback, for this user alone, with a home folder of its own."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

SSHD = "/usr/sbin/sshd"
SETTINGS = """
ListenAddress 127.0.0.1
Port {port}
HostKey {folder}/host
AuthorizedKeysFile {folder}/id.pub
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
SetEnv HOME={folder}/home PATH={folder}/programs {extra}
"""
CLIENT = """
Host *
    IdentityFile {folder}/id
    IdentitiesOnly yes
    UserKnownHostsFile {folder}/known
Host board
    HostName 127.0.0.1
    Port {port}
Host behind-board
    HostName 127.0.0.1
    Port {port}
    ProxyJump board
"""


class SshServer:
    """An sshd in a folder, and an `ssh` before the system's on PATH that knows it (the real one, with `-F`).

    Args:
        folder: an empty folder for keys, settings and home.
        extra: environment variables of the board.
    """

    def __init__(self, folder: Path, extra: Mapping[str, str] | None = None) -> None:
        self.folder, self.home, self.port = folder, folder / "home", free_port()
        self.cache = self.home / ".cache" / "edgeprune"
        for name in ("home", "programs", "bin"):
            (folder / name).mkdir(parents=True)
        for name in ("id", "host"):
            make_key(folder / name)
        words = {
            "folder": folder,
            "port": self.port,
            "extra": " ".join(f"{key}={value}" for key, value in (extra or {}).items()),
        }
        (folder / "sshd_config").write_text(SETTINGS.format(**words))
        (folder / "config").write_text(CLIENT.format(**words))
        self.trust(folder / "host.pub")
        self.install("python3", f'exec {sys.executable} "$@"')
        self.install("sleep", 'exec /bin/sleep "$@"')
        client = shutil.which("ssh")
        assert client
        write_script(folder / "bin" / "ssh", f'exec {client} -F {folder}/config "$@"')

    @property
    def device(self) -> str:
        return f"ssh://127.0.0.1:{self.port}"

    @property
    def logins(self) -> int:
        return (self.folder / "log").read_text().count("Accepted publickey")

    def trust(self, key: Path) -> None:
        """Make a host key the known one."""
        (self.folder / "known").write_text(f"[127.0.0.1]:{self.port} {key.read_text()}")

    def install(self, name: str, script: str) -> None:
        """Put a program on the board."""
        write_script(self.folder / "programs" / name, script)

    def command(self) -> list[str]:
        """How to start sshd."""
        return [SSHD, "-D", "-e", "-f", str(self.folder / "sshd_config")]

    def start(self) -> None:
        """Start sshd and wait until it listens."""
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(self.command(), stderr=log)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except ConnectionRefusedError:
                time.sleep(0.02)
        raise TimeoutError((self.folder / "log").read_text())

    def cut_connections(self) -> None:
        """End every connection, as a lost Wi-Fi would; the server goes on."""
        for pid in children(self._process.pid):
            for grandchild in children(pid):
                os.kill(grandchild, signal.SIGKILL)
            os.kill(pid, signal.SIGKILL)

    def stop(self) -> None:
        """End the server and every connection."""
        self._process.send_signal(signal.SIGSTOP)  # so that it takes no new one meanwhile
        self.cut_connections()
        self._process.kill()
        self._process.wait()


def children(pid: int) -> list[int]:
    """The processes a process has started, sshd's own only: not the commands they run."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in found if Path(f"/proc/{child}/comm").read_text().startswith("sshd")]


def make_key(path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)


def write_script(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def free_port() -> int:
    """A port of the loopback that nobody listens on."""
    with socket.socket() as any_port:
        any_port.bind(("127.0.0.1", 0))
        return int(any_port.getsockname()[1])
