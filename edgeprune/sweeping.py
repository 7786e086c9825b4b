"""sweep(): many runs of compress as independent tasks, in one table; what is finished is not run again."""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from edgeprune import __version__
from edgeprune.errors import EdgepruneError, OutputError
from edgeprune.files import output_error
from edgeprune.journal import Journal, Listener, Nobody
from edgeprune.report.document import Report
from edgeprune.report.sweep import Row, SweepReport, with_findings
from edgeprune.sweep.executor import Executor
from edgeprune.sweep.job import Ended, Job, finished

TASKS = "tasks"
"""The folder of the run folders, in that of the sweep."""
_MARK, _LOCK = "sweep.json", "sweep.lock"
_MISSED, _OTHER = 1, 2
_KNOWN_CODES = range(1, 6)


@dataclass(frozen=True)
class Task:
    """A part of a sweep.

    Attributes:
        row: what is asked.
        job: what is run for it.
    """

    row: Row
    job: Job


@dataclass(frozen=True)
class SweepOrder:
    """What to sweep.

    Attributes:
        model: as it was named.
        target: the board's name.
        tasks: each has another name.
        out: the sweep's folder; the jobs' place is `out / TASKS`.
        overwrite: run all of them again.
        command: what the user typed, for the report.
    """

    model: str
    target: str
    tasks: tuple[Task, ...]
    out: Path
    overwrite: bool = False
    command: tuple[str, ...] = ()


@dataclass(frozen=True)
class Swept:
    """What a sweep came to.

    Attributes:
        report: everything found out.
        folder: where it is.
    """

    report: SweepReport
    folder: Path

    @property
    def exit_code(self) -> int:
        """That of the first task that failed; 1 where goals are missed; else 0."""
        failed = [row.exit_code or _OTHER for row in self.report.rows if row.failed]
        if failed:
            return failed[0] if failed[0] in _KNOWN_CODES else _OTHER
        return _MISSED if any(row.exit_code == _MISSED for row in self.report.rows) else 0


def sweep(order: SweepOrder, executor: Executor, listener: Listener | None = None) -> Swept:
    """Run all tasks that are not finished yet; a task that fails does not end the others.

    The report is written anew after each task, so that an interrupted sweep keeps what it has and can be gone on with.

    Args:
        order: what to sweep.
        executor: runs the tasks.
        listener: told how it goes.

    Raises:
        EdgepruneError: no task can be run at all; see `edgeprune.errors`.
    """
    journal = Journal(listener or Nobody())
    folder = order.out
    with _claimed(order):
        found = {task.job.name: done for task in order.tasks if (done := finished(task.job)) is not None}
        if found:
            journal.say(f"{len(found)} of {len(order.tasks)} tasks are finished already")
        report = _report(order, executor, found)
        report.save(folder)
        left = [task.job for task in order.tasks if task.job.name not in found]
        with journal.stage("sweep") as tick:
            tick(len(found), len(order.tasks))
            for job, ended in executor.run(left):
                found[job.name] = ended
                report = _report(order, executor, found)
                report.save(folder)
                tick(len(found), len(order.tasks))
                journal.say(
                    _told(next(row for row in report.rows if row.task == job.name), len(found), len(order.tasks))
                )
    return Swept(report, folder)


def _claimed(order: SweepOrder) -> IO[str]:
    """The sweep's folder is there, and nobody else's until this file is closed.

    Raises:
        OutputError: it cannot be written, holds something else, or another sweep works in it.
    """
    out = order.out
    try:
        if out.exists() and not out.is_dir():
            raise OutputError("the sweep's name is taken by a file", where=str(out), fix="Name another with --out.")
        if out.is_dir() and any(out.iterdir()) and not (out / _MARK).is_file():
            fix = "Name another with --out."
            raise OutputError("the folder holds something that is no sweep of edgeprune", where=str(out), fix=fix)
        (out / TASKS).mkdir(parents=True, exist_ok=True)
        lock = (out / _LOCK).open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            fix = "Wait for it, or name another folder with --out."
            raise OutputError("another sweep works in this folder", where=str(out), fix=fix) from None
        if order.overwrite:
            shutil.rmtree(out / TASKS)
            (out / TASKS).mkdir()
    except OSError as error:
        raise output_error(error, out) from error
    return lock


def _report(order: SweepOrder, executor: Executor, found: Mapping[str, Ended]) -> SweepReport:
    return SweepReport(
        edgeprune_version=__version__,
        model=order.model,
        target=order.target,
        rows=tuple(_row(task, found.get(task.job.name)) for task in order.tasks),
        executor=executor.told,
        command=order.command,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _row(task: Task, ended: Ended | None) -> Row:
    """A task with what it found, so far as it has ended."""
    if ended is None:
        return task.row
    row = replace(task.row, exit_code=ended.exit_code, error=ended.error, seconds=ended.seconds)
    path = task.job.run / "report.json"
    if not path.is_file():
        return row
    try:
        return with_findings(row, f"{TASKS}/{task.job.name}", Report.load(path))
    except EdgepruneError as error:
        return replace(row, exit_code=error.exit_code, error=f"its report: {error.what}")


def _told(row: Row, done: int, total: int) -> str:
    """A line for the user about a task that has ended."""
    why = f": {row.error}" if row.error and row.failed else ""
    return f"{done} of {total}: {row.task}: {row.result}{why}"
