"""Running the real program: in this process for what fails early, in one of its own for all else."""

from __future__ import annotations

import io
import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

from edgeprune import cli

REPOSITORY = Path(__file__).resolve().parent.parent
ONE_SCREEN = 12
"""Lines that a message may have."""
_NOT_INHERITED = ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "ORT_DISABLE_TELEMETRY")

NET = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 32, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(32)
        self.second = nn.Conv2d(32, 32, 3, padding=1)
        self.head = nn.Linear(32 * 64, 4)

    def forward(self, x):
        x = torch.relu(self.norm(self.first(x)))
        x = torch.relu(self.second(x))
        return self.head(x.flatten(1))


class Undecided(Net):
    def forward(self, x):
        if x.sum() > 0:
            x = x * 2
        return super().forward(x)


def build():
    torch.manual_seed(0)
    return Net()
"""


def nothing() -> None:
    """What is done before a run where nothing is asked for."""


@dataclass(frozen=True)
class Ran:
    """How a run of the program ended."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Tiny:
    """A user's project with everything that `compress` wants."""

    folder: Path
    net: str
    weights: Path
    data: Path

    def compress(self, *more: str) -> tuple[str, ...]:
        """The arguments of a run."""
        given = ("--weights", str(self.weights), "--data", str(self.data), "--input", "1x8x8")
        return ("compress", self.net, *given, *more)


def tiny_project(folder: Path) -> Tiny:
    (folder / "net.py").write_text(NET)
    chance = np.random.default_rng(0)
    images = chance.integers(0, 256, (40, 8, 8, 1), dtype=np.uint8)
    np.savez(folder / "images.npz", images=images, labels=chance.integers(0, 4, 40))
    tiny = Tiny(folder, f"{folder / 'net.py'}:build", folder / "net.safetensors", folder / "images.npz")
    save_file(tiny_network().state_dict(), tiny.weights)
    return tiny


def tiny_network() -> nn.Module:
    space: dict[str, Any] = {}
    exec(NET, space)
    network: nn.Module = space["build"]()
    return network.eval()


def run_here(*arguments: str) -> Ran:
    """Run a command line in this process, up to but without the end of the process."""
    out, err = io.StringIO(), io.StringIO()
    argv = ["edgeprune", *arguments]
    with patch.object(sys, "argv", argv), redirect_stdout(out), redirect_stderr(err):
        code = cli._run()
    return Ran(code, out.getvalue(), err.getvalue())


def environment(**more: str) -> dict[str, str]:
    """The environment for a program that is to find this checkout from any folder."""
    kept = {name: value for name, value in os.environ.items() if name not in _NOT_INHERITED}
    return {**kept, "PYTHONPATH": str(REPOSITORY), **more}


def run_program(*arguments: str, env: Mapping[str, str] | None = None, **options: Any) -> Ran:
    """Run `edgeprune` as a user does."""
    argv = [sys.executable, "-m", "edgeprune", *arguments]
    return run_python(argv[1:], env, **options)


def run_python(arguments: list[str], env: Mapping[str, str] | None = None, **options: Any) -> Ran:
    """Run Python in a process of its own."""
    given = {"env": environment(**(env or {})), "capture_output": True, "text": True, "timeout": 600, **options}
    done = subprocess.run([sys.executable, *arguments], check=False, **given)
    return Ran(done.returncode, done.stdout or "", done.stderr or "")


def run_forked(*arguments: str, before: Callable[[], None] = nothing, **environment: str) -> Ran:
    """Run the program in a process of its own that has torch imported already, which saves seconds.

    Args:
        arguments: the command line.
        before: called in that process first; a function of a module.
        environment: variables to set there.
    """
    # Its parent imports but runs nothing: a process that has run torch must not be forked.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["program_runs", "edgeprune.pipeline", "torch._dynamo", "torch.export", "onnxscript", "onnxsim"]
    )
    with tempfile.TemporaryDirectory() as folder:
        job = (arguments, before, environment, str(Path.cwd()), folder)
        process = context.Process(target=_forked, args=job)
        process.start()
        process.join(300)
        if process.exitcode is None:
            process.kill()
            raise TimeoutError(f"edgeprune {' '.join(arguments)} did not end")
        out, err = (Path(folder, name).read_text() for name in ("out", "err"))
    return Ran(process.exitcode, out, err)


def _forked(arguments: Sequence[str], before: Callable[[], None], env: Mapping[str, str], cwd: str, to: str) -> None:
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(Path(to, name), os.O_WRONLY | os.O_CREAT, 0o600), number)
    os.environ.update(env)
    os.chdir(cwd)
    torch.set_num_threads(2)
    sys.argv = ["edgeprune", *arguments]
    before()
    cli.main()


def fault(ran: Ran, code: int, *said: str) -> str:
    """Check that a run ended as a user's fault should; the message.

    The exit code is right, stdout is empty, the message fits one screen, has no traceback, says what to do, and holds
    each of `said`.
    """
    assert ran.code == code, f"exit code {ran.code}, wanted {code}\n{ran.out}{ran.err}"
    assert ran.out == ""
    start = ran.err.find("error: ")
    message = ran.err[start:]
    assert start >= 0, ran.err
    assert "Traceback" not in ran.err
    assert len(ran.err.strip().splitlines()) <= ONE_SCREEN, ran.err
    assert "\n  fix: " in message, f"it does not say what to do:\n{message}"
    for text in said:
        assert text in message, f"it does not say {text!r}:\n{message}"
    return message


def fingerprint(folder: Path) -> dict[str, bytes | None]:
    """Everything in a folder: names and contents."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() and not path.is_symlink() else None
        for path in sorted(folder.rglob("*"))
    }
