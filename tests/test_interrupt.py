"""Ctrl-C and SIGTERM in each stage: exit code 130, nothing half-written, no process left behind."""

from __future__ import annotations

import functools
import os
import signal
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from program_runs import Ran, Tiny, fingerprint, run_forked

from edgeprune import compressing_command
from edgeprune.progress import Tick
from edgeprune.terminal import Talk

STAGES = [
    "load",
    "images",
    "trace",
    "score",
    "allocate",
    "cut",
    "recover",
    "accuracy",
    "export onnx",
    "parity",
    "bench",
    "report",
]


class Signalled(Talk):
    """Sends this process a signal when a stage begins, or when it has got somewhere.

    Args:
        wanted: the stage.
        numbers: the signals, one after the other, 5 ms apart.
        after: seconds from the stage's beginning to the first; below zero for its first progress.
    """

    def __init__(self, wanted: str, numbers: tuple[int, ...], after: float) -> None:
        super().__init__()
        self._wanted, self._numbers, self._after = wanted, numbers, after
        self._in_stage = False

    @contextmanager
    def stage(self, name: str) -> Iterator[Tick]:
        with super().stage(name) as tick:
            self._in_stage = name == self._wanted
            if name == self._wanted and self._after >= 0:
                self._send(self._after)

            def ticked(done: int, total: int) -> None:
                tick(done, total)
                if name == self._wanted and self._after < 0 and done > 0:
                    self._send(0.0)

            yield ticked
            self._in_stage = False

    def _send(self, after: float) -> None:
        def send() -> None:
            time.sleep(after)
            for number in numbers:
                if self._in_stage:
                    os.kill(os.getpid(), number)
                time.sleep(0.005)

        numbers, self._numbers = self._numbers, ()
        if not numbers:
            return
        if after == 0:
            os.kill(os.getpid(), numbers[0])
            numbers = numbers[1:]
        threading.Thread(target=send, daemon=True).start()
        time.sleep(0.01)  # the handler runs here, not somewhere after the stage


def signalled(stage: str, numbers: tuple[int, ...], after: float) -> None:
    class Chosen(Signalled):
        def __init__(self) -> None:
            super().__init__(stage, numbers, after)

    compressing_command.Talk = Chosen  # type: ignore[misc]


def interrupted(place: Path, tiny: Tiny, stage: str, *numbers: int, after: float = 0.0, formats: str = "onnx") -> Ran:
    """Run `compress`, interrupt it in a stage, and check that nothing is left of it."""
    before = fingerprint(place)
    token, scratch = uuid.uuid4().hex, place.parent / f"{place.name}-temporary"
    scratch.mkdir()
    bench = () if stage == "bench" else ("--no-bench",)
    ran = run_forked(
        *tiny.compress("--out", "runs/run", "--formats", formats, *bench),
        before=functools.partial(signalled, stage, numbers, after),
        EDGEPRUNE_TEST=token,
        TMPDIR=str(scratch),
    )
    if ran.code == 0 and after > 0.5:
        pytest.skip(f"the stage was over in less than {after} s")
    assert ran.code == 130, f"exit code {ran.code} when interrupted in {stage}\n{ran.err}"
    assert ran.out == ""
    assert ran.err.strip().splitlines()[-1] == "interrupted: nothing is left half-written"
    assert "Traceback" not in ran.err
    assert fingerprint(place) == before
    assert not list(scratch.iterdir()), "temporary files are left"
    assert not processes_with(token), "processes are left"
    return ran


def processes_with(token: str) -> list[int]:
    """Processes that carry a token in their environment: a run's, and those it started."""
    found = []
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:  # a killed process takes a moment to go
        found = [process.pid for process in psutil.process_iter() if token in _environment(process)]
        if not found:
            break
        time.sleep(0.1)
    return found


def _environment(process: psutil.Process) -> str:
    try:
        return str(process.environ())
    except psutil.Error:
        return ""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "stage", [pytest.param(stage, marks=[] if stage in ("trace", "recover") else pytest.mark.slow) for stage in STAGES]
)
def test_ctrl_c_in_each_stage_leaves_nothing_behind(place: Path, tiny: Tiny, stage: str) -> None:
    interrupted(place, tiny, stage, signal.SIGINT)


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_termination_in_each_stage_leaves_nothing_behind(place: Path, tiny: Tiny, stage: str) -> None:
    interrupted(place, tiny, stage, signal.SIGTERM)


@pytest.mark.parametrize(
    "number", [signal.SIGINT, *(pytest.param(each, marks=pytest.mark.slow) for each in (signal.SIGTERM, signal.SIGHUP))]
)
def test_a_signal_while_a_worker_measures_ends_the_worker_too(place: Path, tiny: Tiny, number: int) -> None:
    interrupted(place, tiny, "bench", number, after=-1)


@pytest.mark.parametrize("stage", ["recover", pytest.param("bench", marks=pytest.mark.slow)])
def test_a_second_ctrl_c_does_not_disturb_the_cleaning_up(place: Path, tiny: Tiny, stage: str) -> None:
    interrupted(place, tiny, stage, *[signal.SIGINT] * 10, after=-1)


@pytest.mark.slow
@pytest.mark.parametrize("after", [0.05, 0.1, 0.2])
def test_ctrl_c_within_the_onnx_exporter_leaves_nothing_behind(place: Path, tiny: Tiny, after: float) -> None:
    interrupted(place, tiny, "export onnx", signal.SIGINT, after=after)


@pytest.mark.slow
@pytest.mark.parametrize("after", [0.0, 0.3, 1.0, 1.8])
def test_ctrl_c_within_the_tflite_converter_leaves_nothing_behind(place: Path, tiny: Tiny, after: float) -> None:
    interrupted(place, tiny, "export tflite", signal.SIGINT, after=after, formats="tflite")


@pytest.mark.slow
def test_ctrl_c_keeps_the_run_that_was_to_be_replaced(place: Path, tiny: Tiny) -> None:
    (place / "runs" / "run").mkdir(parents=True)
    (place / "runs" / "run" / "report.json").write_text('{"schema": 1, "edgeprune_version": "0.1.0"}')
    before = fingerprint(place)
    ran = run_forked(
        *tiny.compress("--out", "runs/run", "--formats", "onnx", "--no-bench", "--overwrite"),
        before=functools.partial(signalled, "report", (signal.SIGINT,), 0.0),
    )
    assert ran.code == 130, ran.err
    assert fingerprint(place) == before


def test_an_interruption_that_a_library_swallows_ends_the_run_where_its_stage_ends(monkeypatch) -> None:
    happened = False
    monkeypatch.setattr(Talk, "interrupted", staticmethod(lambda: happened))
    with Talk().stage("before"):
        pass
    with pytest.raises(KeyboardInterrupt), Talk().stage("export tflite"):
        happened = True
