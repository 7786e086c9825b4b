"""A process beside ours for converters: they crash, print and leave threads behind, and none of it reaches the run.

One process serves all conversions, so that its slow imports happen once; it ends with ours. A task is a function's name
and arguments, sent by pickle: both ends are this package, nothing else writes to these pipes.
"""

from __future__ import annotations

import atexit
import importlib
import os
import pickle
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from typing import Any, BinaryIO

from edgeprune.errors import ExportError
from edgeprune.worker.lifetime import die_with_parent

_BOOT = "import sys; sys.path[:] = {path!r}; from edgeprune.export.child import serve; serve()"
_KEPT_CHARACTERS = 20_000


class RefusedError(Exception):
    """What a converter raised.

    Args:
        kind: the name of its class.
        text: its message.
        said: what the converter printed.
    """

    def __init__(self, kind: str, text: str, said: str) -> None:
        self.kind, self.text, self.said = kind, text, said
        super().__init__(f"{kind}: {text}")


class _Child:
    """The process, started at the first task and again after one that ended it."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._log: BinaryIO | None = None

    def run(self, function: str, arguments: tuple[Any, ...]) -> Any:
        process, log = self._started()
        start = log.seek(0, os.SEEK_END)
        try:
            answer = _asked(process, (function, arguments))
        except BaseException:  # also Ctrl-C: what the process then answers would belong to no task
            self.end()
            raise
        log.seek(start)
        said = log.read().decode(errors="replace")[-_KEPT_CHARACTERS:]
        if answer is None:
            process.wait()
            code = process.returncode
            self.end()
            raise _crash(code, said)
        done, value = answer
        if not done:
            kind, text = value
            raise RefusedError(kind, text, said)
        return value

    def end(self) -> None:
        """Kill it, if there is one, and let go of its streams."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout, self._log):
                with suppress(OSError):  # what was not sent yet has no reader any more
                    stream.close() if stream else None

    def _started(self) -> tuple[subprocess.Popen[bytes], BinaryIO]:
        if self._process is None or self._log is None or self._process.poll() is not None:
            self.end()
            self._log = tempfile.TemporaryFile("a+b")  # noqa: SIM115 (lives as long as the process)
            self._process = subprocess.Popen(
                [sys.executable, "-c", _BOOT.format(path=sys.path)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                start_new_session=True,
                env={**os.environ, "PYTHONHASHSEED": "0"},  # no file may depend on the order of a set
            )
        return self._process, self._log


_CHILD = _Child()
atexit.register(_CHILD.end)


def apart(function: str, *arguments: Any) -> Any:
    """Call a function in the other process.

    Args:
        function: "module:name".
        arguments: that pickle can carry, as the result must be.

    Raises:
        RefusedError: the function raised.
        ExportError: the process crashed.
    """
    return _CHILD.run(function, arguments)


def end_child() -> None:
    """End the other process, so that its memory is free again; the next task starts a new one."""
    _CHILD.end()


def _asked(process: subprocess.Popen[bytes], task: tuple[str, tuple[Any, ...]]) -> Any:
    """What the process answers; None if it is gone."""
    assert process.stdin is not None
    assert process.stdout is not None
    message = pickle.dumps(task)
    try:
        process.stdin.write(message)
        process.stdin.flush()
        return pickle.load(process.stdout)  # noqa: S301 (our own process)
    except (BrokenPipeError, EOFError):
        return None


def _crash(code: int, said: str) -> ExportError:
    reason = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return ExportError(
        f"the converter crashed ({reason})",
        where=(lines or [""])[-1][:300],
        fix="Out of memory, or a fault of the converter: try the other --tflite-converter, or leave the format out.",
    )


def serve() -> None:
    """The other process: takes tasks from standard input until it is closed; answers where standard output was."""
    die_with_parent()
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what converters print goes to the log
    while True:
        try:
            function, arguments = pickle.load(sys.stdin.buffer)  # noqa: S301 (our own parent)
        except EOFError:
            return
        answer = _answer(function, arguments)
        sys.stdout.flush()
        pickle.dump(answer, answers)
        answers.flush()


def _answer(function: str, arguments: tuple[Any, ...]) -> tuple[bool, Any]:
    module, _, name = function.partition(":")
    try:
        return True, getattr(importlib.import_module(module), name)(*arguments)
    except Exception as error:  # converters raise many unrelated classes
        while error.__cause__ is not None:
            error = error.__cause__  # type: ignore[assignment]
        return False, (type(error).__name__, str(error))
