"""A job: one `edgeprune compress` in a process of its own, and the record of how it ended."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from edgeprune.bench.process import kill
from edgeprune.errors import EdgepruneError
from edgeprune.files import read_as, write_json

_SCHEMA = 1
_BOOT = (
    "from edgeprune.worker.lifetime import die_with_parent; die_with_parent(); from edgeprune.cli import main; main()"
)
_FINISHED = (0, 1)
"""Exit codes of runs that are whole; with 1 a goal is missed, or there is no run folder."""
_SIGNALLED = 128
"""Shells add this to the number of the signal that ended a program."""
_MOST_SAID = 500
_LOOK_SECONDS = 0.2


@dataclass(frozen=True)
class Job:
    """What to run, and where.

    Attributes:
        name: of the run folder.
        argv: words after `edgeprune`, without `--out`.
        fingerprint: of all that was asked for; a record of another one does not count.
        place: the folder that run folder, record and log are in.
        cwd: the folder that paths in `argv` are seen from.
        environment: variables to set.
    """

    name: str
    argv: tuple[str, ...]
    fingerprint: str
    place: Path
    cwd: Path
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def run(self) -> Path:
        """Its run folder."""
        return self.place / self.name

    @property
    def log(self) -> Path:
        """What it said."""
        return self.place / f"{self.name}.log"

    @property
    def record(self) -> Path:
        """How it ended."""
        return self.place / f"{self.name}.json"


@dataclass(frozen=True)
class Ended:
    """How a job ended.

    Attributes:
        fingerprint: of the job.
        exit_code: its own; as shells tell it where a signal ended it.
        error: what went wrong, as it said it; empty if nothing did.
        seconds: that it took.
    """

    fingerprint: str
    exit_code: int
    error: str
    seconds: float


def ended(job: Job) -> Ended | None:
    """How a job ended before; None where it did not, or was another one of that name."""
    try:
        found = read_as(job.record, _SCHEMA, _parsed, "")
    except EdgepruneError:  # there is none, or it is torn: then it is run again
        return None
    return found if found.fingerprint == job.fingerprint else None


def finished(job: Job) -> Ended | None:
    """How a job ended that need not be run again: its run folder is whole."""
    found = ended(job)
    return found if found and found.exit_code in _FINISHED and (job.run / "report.json").is_file() else None


def run_job(job: Job) -> Ended:
    """Run a job to its end, unless it is finished, and keep how it ended.

    It ends with this process, whatever ends that; what it was cut off in is cleared away when it is run again.

    Raises:
        OutputError: the folder cannot be written.
    """
    if (found := finished(job)) is not None:
        return found
    _clear(job)
    begin = time.monotonic()
    code = _run(job)
    error = _said(job.log, code) if code else ""
    found = Ended(job.fingerprint, code, error, round(time.monotonic() - begin, 3))
    write_json(job.record, {"schema": _SCHEMA, **asdict(found)})
    return found


def _run(job: Job) -> int:
    argv = [sys.executable, "-c", _BOOT, *job.argv, "--out", str(job.run)]
    with job.log.open("wb") as log:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # the report is in the run folder
            stderr=log,
            cwd=job.cwd,
            env={**os.environ, **job.environment},
            text=True,
            start_new_session=True,  # Ctrl-C reaches us alone
        )
        try:
            while (code := process.poll()) is None:
                time.sleep(_LOOK_SECONDS)  # a call that waits would not be interrupted where Ray cancels a task
        finally:
            kill(process)
    return code if code >= 0 else _SIGNALLED - code


def _clear(job: Job) -> None:
    """Remove what is left of an earlier job of that name; of a killed one, a run folder under another name."""
    job.record.unlink(missing_ok=True)
    shutil.rmtree(job.run, ignore_errors=True)
    for kind in ("partial", "replaced"):
        for left in job.place.glob(f".{job.name}.*.{kind}"):
            shutil.rmtree(left, ignore_errors=True)


def _said(log: Path, code: int) -> str:
    """The error that a job told on its standard error, else its last words."""
    if code > _SIGNALLED and code - _SIGNALLED in set(signal.Signals):
        return f"ended by {signal.Signals(code - _SIGNALLED).name}"
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    told = [at for at, line in enumerate(lines) if line.startswith("error: ")]
    said = lines[told[-1] :] if told else lines[-1:]
    return " ".join(said).removeprefix("error: ")[:_MOST_SAID]


def _parsed(document: Mapping[str, Any]) -> Ended:
    names = ("fingerprint", "exit_code", "error", "seconds")
    if not all(name in document for name in names):
        raise EdgepruneError("not a record of a job")
    return Ended(*(document[name] for name in names))
