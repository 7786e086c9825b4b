"""Jobs on Ray: a cluster of this machine that ends with the sweep, or one that is there. Ray is imported only here."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from edgeprune.errors import DeviceError, MissingExtraError, UsageError
from edgeprune.sweep.job import Ended, Job, run_job

RETRIES = 3
"""How often a job is run again whose worker was killed; its own failures are its result, and final."""
_LOOK_SECONDS, _GRACE_SECONDS = 0.5, 15.0
_KILLED = 137


@dataclass(frozen=True)
class Needs:
    """What each job takes of the cluster.

    Attributes:
        cpus: cores.
        gpus: of CUDA.
        here: whether it measures on this machine: then one at a time, and all of them here.
    """

    cpus: int = 1
    gpus: int = 0
    here: bool = False


class OnRay:
    """An `edgeprune.sweep.executor.Executor` on Ray.

    A cluster that is there must see the folders that jobs name, and have edgeprune installed.

    Args:
        needs: of each job.
        address: of a cluster that is there ("auto" for the one that runs on this machine); None to start one.
    """

    def __init__(self, needs: Needs, address: str | None = None) -> None:
        self._needs, self._address = needs, address

    @property
    def told(self) -> str:
        """What it is, one sentence."""
        where = f"the cluster at {self._address}" if self._address else "a cluster of this machine"
        return f"Run on Ray, {where}{', one by one, for they are timed on it' if self._needs.here else ''}."

    def run(self, jobs: Sequence[Job]) -> Iterator[tuple[Job, Ended]]:
        """Run them, as many at once as fit; see `Executor.run`.

        Raises:
            MissingExtraError: Ray is not installed.
            DeviceError: there is no such cluster.
            UsageError: the cluster does not have what a job needs.
        """
        if not jobs:
            return
        with _cluster(self._address) as ray:
            needed = _options(self._needs, ray)
            task = ray.remote(run_job).options(max_retries=RETRIES, retry_exceptions=False, **needed)
            pending = {task.remote(job): job for job in jobs}
            try:
                while pending:
                    for done in ray.wait(list(pending), num_returns=1, timeout=_LOOK_SECONDS)[0]:
                        job = pending.pop(done)
                        yield job, _result(ray, done, job)
            finally:
                _end(ray, list(pending))


@contextmanager
def _cluster(address: str | None) -> Iterator[Any]:
    """Ray, connected to a cluster; one that was started here ends with the block.

    Raises:
        MissingExtraError: Ray is not installed.
        DeviceError: there is no cluster at that address.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would tell its makers
    os.environ.setdefault("RAY_worker_niceness", "0")  # what is timed must not run at the lowest priority
    try:
        import ray
    except ImportError:
        raise MissingExtraError("ray", "--ray") from None
    quiet: dict[str, Any] = {"configure_logging": False, "log_to_driver": False}
    on_termination = signal.getsignal(signal.SIGTERM)
    try:
        if address is None:
            cores = len(os.sched_getaffinity(0))
            ray.init(address="local", num_cpus=cores, include_dashboard=False, **quiet)
        else:
            ray.init(address=address, **quiet)
    except (ConnectionError, RuntimeError, ValueError) as error:
        what = f"cannot reach Ray: {str(error).splitlines()[0]}"
        fix = "See `ray status` there; RAY_AUTH_MODE=token if it wants a token; --ray starts a cluster of this machine."
        raise DeviceError(what, where=address or "this machine", fix=fix) from error
    signal.signal(signal.SIGTERM, on_termination)  # Ray has put its own in place of ours
    try:
        yield ray
    finally:
        ray.shutdown()


def _options(needs: Needs, ray: Any) -> dict[str, Any]:
    """What to ask of Ray for each job. Every node is a resource of its own: all of it is one slot.

    Raises:
        UsageError: the cluster does not have it: the job would wait for ever.
    """
    has: Mapping[str, float] = ray.cluster_resources()
    for name, number in (("CPU", needs.cpus), ("GPU", needs.gpus)):
        if has.get(name, 0) < number:
            fix = "Give fewer --cpus, --train-device cpu, or another --ray-address."
            raise UsageError(f"each task wants {number} {name}, the cluster has {has.get(name, 0):g}", fix=fix)
    slot = f"node:{ray.util.get_node_ip_address()}"
    if needs.here and slot not in has:
        what = "tasks are timed on this machine, which is no node of the cluster"
        raise UsageError(what, fix="Name the board with --device ssh://..., or give --no-bench.")
    return {"num_cpus": needs.cpus, "num_gpus": needs.gpus, "resources": {slot: 1} if needs.here else {}}


def _result(ray: Any, done: Any, job: Job) -> Ended:
    """How a job ended; what Ray itself says where it could not be run."""
    try:
        found: Ended = ray.get(done)
    except ray.exceptions.RayError as error:
        said = str(error).strip().splitlines() or [type(error).__name__]
        return Ended(job.fingerprint, _KILLED, f"{type(error).__name__}: {said[-1]}", 0.0)
    return found


def _end(ray: Any, pending: Sequence[Any]) -> None:
    """Let jobs that run clear up after themselves, and begin no more."""
    for one in pending:
        ray.cancel(one)
    if pending:
        ray.wait(list(pending), num_returns=len(pending), timeout=_GRACE_SECONDS)
