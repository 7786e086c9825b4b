"""Several devices at once, and no machine twice at once: what one of its names measures would disturb the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, contextmanager
from threading import Lock
from typing import Any, TypeVar

from edgeprune.bench.transport import Transport
from edgeprune.errors import EdgepruneError

Found = TypeVar("Found")
Opener = Callable[[str], AbstractContextManager[Transport]]
"""Opens a device by its string, for as long as the block lasts."""
_WAIT_SECONDS = 0.5


def side_by_side(
    devices: Sequence[str], opened: Callable[[str], Transport], work: Callable[[str, Opener], Found]
) -> tuple[dict[str, Found], dict[str, EdgepruneError]]:
    """Do the same work on each device.

    Ctrl-C ends the work on all of them, and what they run.

    Args:
        devices: device strings. A single one is worked on in the caller's thread.
        opened: the transport of a device string.
        work: gets the device string, and what to open it with.

    Returns:
        What the work found, and the errors of the devices where it failed: both in the order of the devices.

    Raises:
        EdgepruneError: it failed on all of them; the first one's.
    """
    if len(devices) == 1:
        return {devices[0]: work(devices[0], opened)}, {}
    fleet = _Fleet(opened)
    futures: dict[str, Future[Found]] = {}
    with ThreadPoolExecutor(len(devices)) as pool:
        try:
            machines = {device: pool.submit(fleet.machine, device) for device in devices}
            _awaited(machines.values())
            futures = fleet.start(pool, machines, work)
            _awaited(futures.values())
        except BaseException:
            fleet.stop()
            raise
    failures: dict[str, EdgepruneError] = {}
    for device in devices:
        error = futures[device].exception()
        if isinstance(error, EdgepruneError):
            failures[device] = error
    found = {device: futures[device].result() for device in devices if device not in failures}
    if not found:
        raise failures[devices[0]]
    return found, failures


def _awaited(futures: Iterable[Future[Any]]) -> None:
    """Wait for all; in short waits, for a signal that comes just before one is seen only at its end."""
    while wait(futures, timeout=_WAIT_SECONDS).not_done:
        pass


class _Fleet:
    """The devices that are open now."""

    def __init__(self, opened: Callable[[str], Transport]) -> None:
        self._opened = opened
        self._open: list[Transport] = []
        self._stopped = False
        self._lock = Lock()

    def machine(self, device: str) -> str:
        with self.open(device) as transport:
            return transport.machine

    def start(
        self, pool: ThreadPoolExecutor, machines: dict[str, Future[str]], work: Callable[[str, Opener], Found]
    ) -> dict[str, Future[Found]]:
        """One task a machine, which works through its names; a future for each name."""
        futures: dict[str, Future[Found]] = {device: Future() for device in machines}
        names: dict[str, list[str]] = {}
        for device, machine in machines.items():
            error = machine.exception()
            if error:
                futures[device].set_exception(error)
            else:
                names.setdefault(machine.result(), []).append(device)

        def work_through(its: list[str]) -> None:
            for device in its:
                try:
                    futures[device].set_result(work(device, self.open))
                except BaseException as error:
                    futures[device].set_exception(error)

        for its in names.values():
            pool.submit(work_through, its)
        return futures

    @contextmanager
    def open(self, device: str) -> Iterator[Transport]:
        if self._stopped:
            raise KeyboardInterrupt
        with self._opened(device) as transport:
            with self._lock:
                self._open.append(transport)
            try:
                yield transport
            finally:
                with self._lock:
                    self._open.remove(transport)

    def stop(self) -> None:
        """End what runs on every device; its thread then tidies up."""
        self._stopped = True
        with self._lock:
            running = tuple(self._open)
        for transport in running:
            transport.interrupt()
