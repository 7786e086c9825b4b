"""Several devices: at once on several machines, one after the other on one; no failure takes the others with it."""

from __future__ import annotations

import signal
import threading
import time

import pytest

from edgeprune.bench.fleet import side_by_side
from edgeprune.bench.transport import Local
from edgeprune.errors import DeviceError

PATIENCE = 20


class Named(Local):
    """A device called MACHINE/NAME; one of the machine "off" cannot be reached."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name, self.interrupted = name, threading.Event()

    @property
    def machine(self) -> str:
        return self.name.partition("/")[0]

    def __enter__(self):
        if self.machine == "off":
            raise DeviceError("does not answer", where=self.name)
        return self

    def interrupt(self) -> None:
        self.interrupted.set()


def test_machines_work_at_once():
    met = threading.Barrier(3)

    def work(device, opened):
        with opened(device):
            met.wait(PATIENCE)
        return device.upper()

    assert side_by_side(("a/1", "b/1", "c/1"), Named, work) == ({"a/1": "A/1", "b/1": "B/1", "c/1": "C/1"}, {})


def test_two_names_of_one_machine_work_one_after_the_other_in_their_order():
    at_work, seen = [], []

    def work(device, opened):
        with opened(device) as transport:
            at_work.append(transport.machine)
            seen.append((device, at_work.count(transport.machine)))
            time.sleep(0.05)
            at_work.remove(transport.machine)

    side_by_side(("a/1", "b/1", "a/2", "a/3"), Named, work)
    assert [name for name, _ in seen if name.startswith("a")] == ["a/1", "a/2", "a/3"]
    assert {count for _, count in seen} == {1}


def test_a_device_that_fails_does_not_keep_the_others_from_their_work():
    def work(device, opened):
        if device == "b/1":
            raise DeviceError("its disk is full", where=device)
        with opened(device):
            return device

    found, failures = side_by_side(("off/1", "a/1", "b/1", "b/2"), Named, work)
    assert found == {"a/1": "a/1", "b/2": "b/2"}
    assert {device: error.what for device, error in failures.items()} == {
        "off/1": "does not answer",
        "b/1": "its disk is full",
    }


def test_if_all_fail_the_first_one_is_told():
    with pytest.raises(DeviceError) as told:
        side_by_side(("off/2", "off/1"), Named, lambda *_: None)
    assert told.value.where == "off/2"


def test_a_bug_is_no_failure_of_a_device():
    with pytest.raises(ZeroDivisionError):
        side_by_side(("a/1", "b/1"), Named, lambda device, _: 1 / (device == "a/1"))


def test_ctrl_c_ends_the_work_on_every_machine_and_starts_none():
    met, ended, started = threading.Barrier(2), [], []

    def work(device, opened):
        started.append(device)
        with opened(device) as transport:
            if met.wait(PATIENCE) == 0:
                signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            assert transport.interrupted.wait(PATIENCE)
            ended.append(device)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        side_by_side(("a/1", "b/1", "a/2"), Named, work)
    assert sorted(ended) == ["a/1", "b/1"]
