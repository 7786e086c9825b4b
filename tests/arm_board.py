"""An arm64 board without a board: a Debian root folder under QEMU user emulation, with sshd inside."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
from pathlib import Path

from ssh_server import SshServer

RECIPES = Path(__file__).parent / "arm"
CACHE = Path(os.environ.get("EDGEPRUNE_ARM_CACHE", Path.home() / ".cache" / "edgeprune-tests"))


def missing() -> str:
    """Why there can be no such board here; empty if there can."""
    if os.getuid() != 0:
        return "an arm64 root folder needs root"
    programs = ("mmdebstrap", "qemu-aarch64-static", "update-binfmts", "unshare", "ssh")
    absent = [program for program in programs if not shutil.which(program)]
    return f"not installed: {', '.join(absent)}" if absent else ""


def root_folder(arch: str = "arm64") -> Path:
    """The root folder, built on the first call (about 40 s) and kept. It is only read."""
    recipe = RECIPES / "rootfs.sh"
    folder = CACHE / f"{arch}-{hashlib.sha256(recipe.read_bytes()).hexdigest()[:12]}"
    CACHE.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            torn = folder.with_suffix(".torn")
            shutil.rmtree(torn, ignore_errors=True)
            subprocess.run([recipe, torn], check=True, env={**os.environ, "ARCH": arch})
            torn.rename(folder)
    return folder


class ArmBoard(SshServer):
    """sshd inside a copy of the root folder. It looks like a Raspberry Pi 4, as far as files can.

    Args:
        folder: an empty folder for keys and settings.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.root = folder / "root"
        subprocess.run(["cp", "--archive", "--reflink=auto", root_folder(), self.root], check=True)
        self.home = self.root / "root"
        self.cache = self.home / ".cache" / "edgeprune"
        etc = self.root / "etc" / "ssh"
        shutil.copyfile(folder / "id.pub", etc / "edge_authorized_keys")
        shutil.copyfile(RECIPES / "sshd_config", etc / "edge_sshd_config")
        shutil.copy(folder / "host", etc / "edge_host")

    def stop(self) -> None:
        """End the server and every connection; the copy is removed."""
        super().stop()
        shutil.rmtree(self.root)

    def command(self) -> list[str]:
        """How to start sshd."""
        inside = ["/usr/sbin/sshd", "-D", "-e", "-f", "/etc/ssh/edge_sshd_config", "-p", str(self.port)]
        return [str(RECIPES / "enter.sh"), str(self.root), "pcf", *inside]
