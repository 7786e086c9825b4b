"""Executor: who runs the jobs of a sweep. The serial one runs them one by one, in children of this process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from edgeprune.sweep.job import Ended, Job, run_job


class Executor(Protocol):
    """Runs jobs, each to its end."""

    @property
    def told(self) -> str:
        """What it is, one sentence."""

    def run(self, jobs: Sequence[Job]) -> Iterator[tuple[Job, Ended]]:
        """Run them; each is yielded when it has ended, in any order. Closing it ends those that run.

        Raises:
            EdgepruneError: no job can be run at all; one that fails is yielded like any other.
        """


class Serial:
    """One by one, in children of this process."""

    told = "Run one by one on this machine, without Ray."

    def run(self, jobs: Sequence[Job]) -> Iterator[tuple[Job, Ended]]:
        """Run them in their order; see `Executor.run`."""
        for job in jobs:
            yield job, run_job(job)
