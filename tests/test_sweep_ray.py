"""A sweep on Ray: the same table as one by one, also where a worker is killed; most of it with a stand-in for Ray."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from program_runs import Tiny, environment, run_here

from edgeprune.errors import DeviceError, UsageError
from edgeprune.sweep import on_ray
from edgeprune.sweep.job import Ended, Job
from edgeprune.sweep.on_ray import Needs, OnRay
from edgeprune.sweeping_command import Choice, _asked, _environment, _needs

RAY = importlib.util.find_spec("ray") is not None
needs_ray = pytest.mark.skipif(not RAY, reason="Ray is not installed: pip install 'edgeprune[ray]'")
NODE = "node:10.0.0.7"
SET = ("RAY_USAGE_STATS_ENABLED", "RAY_worker_niceness")


class RayError(Exception):
    """As Ray's own errors are."""


@dataclass(frozen=True, eq=False)
class Reference:
    function: Any
    job: Job


class StandIn:
    """As much of Ray as a sweep uses: tasks run when they are waited for, the last one first."""

    exceptions = SimpleNamespace(RayError=RayError)
    util = SimpleNamespace(get_node_ip_address=lambda: "10.0.0.7")

    def __init__(self, **resources: float) -> None:
        self.has = {"CPU": 4.0, NODE: 1.0, **resources}
        self.began: dict[str, Any] = {}
        self.asked: dict[str, Any] = {}
        self.cancelled: list[str] = []
        self.down = 0
        self.fault: Exception | None = None

    def init(self, **how: Any) -> None:
        if self.fault:
            raise self.fault
        self.began = how
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def shutdown(self) -> None:
        self.down += 1

    def cluster_resources(self) -> dict[str, float]:
        return self.has

    def remote(self, function: Any) -> Any:
        def options(**asked: Any) -> Any:
            self.asked = asked
            return SimpleNamespace(remote=lambda job: Reference(function, job))

        return SimpleNamespace(options=options)

    def wait(self, refs: list[Any], **_: Any) -> tuple[list[Any], list[Any]]:
        return refs[-1:], refs[:-1]

    def get(self, ref: Any) -> Any:
        return ref.function(ref.job)

    def cancel(self, ref: Any) -> None:
        self.cancelled.append(ref.job.name)


@pytest.fixture
def ray(monkeypatch):
    found = StandIn(GPU=1.0)
    monkeypatch.setitem(sys.modules, "ray", found)
    for name in SET:
        monkeypatch.setenv(name, "")  # so that it is put back
        monkeypatch.delenv(name)
    return found


def some_jobs(place: Path) -> list[Job]:
    return [Job(name, (), "a", place, place) for name in ("one", "two", "three")]


def run_pretended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_ray, "run_job", lambda job: Ended(job.fingerprint, 0, "", float(len(job.name))))


def test_jobs_come_back_in_any_order_each_with_its_own_end(tmp_path, monkeypatch, ray):
    run_pretended(monkeypatch)
    found = list(OnRay(Needs()).run(some_jobs(tmp_path)))
    assert [(job.name, ended.seconds) for job, ended in found] == [("three", 5.0), ("two", 3.0), ("one", 3.0)]
    assert (ray.down, ray.cancelled) == (1, [])


def test_a_cluster_is_started_here_without_dashboard_and_tells_nobody(tmp_path, monkeypatch, ray):
    run_pretended(monkeypatch)
    before = signal.getsignal(signal.SIGTERM)
    list(OnRay(Needs()).run(some_jobs(tmp_path)))
    assert (ray.began["address"], ray.began["include_dashboard"]) == ("local", False)
    assert ray.began["num_cpus"] == len(os.sched_getaffinity(0))
    assert [os.environ[name] for name in SET] == ["0", "0"]
    assert signal.getsignal(signal.SIGTERM) is before


def test_one_that_is_there_is_used_as_it_is(tmp_path, monkeypatch, ray):
    run_pretended(monkeypatch)
    executor = OnRay(Needs(), "auto")
    list(executor.run(some_jobs(tmp_path)))
    assert ray.began["address"] == "auto"
    assert not {"num_cpus", "include_dashboard"} & ray.began.keys()
    assert executor.told == "Run on Ray, the cluster at auto."


@pytest.mark.parametrize(
    ("needs", "asked"),
    [
        (Needs(), {"num_cpus": 1, "num_gpus": 0, "resources": {}}),
        (Needs(cpus=2, gpus=1), {"num_cpus": 2, "num_gpus": 1, "resources": {}}),
        (Needs(here=True), {"num_cpus": 1, "num_gpus": 0, "resources": {NODE: 1}}),
    ],
)
def test_each_task_asks_for_what_it_takes_and_is_run_again_where_its_worker_dies(
    tmp_path, monkeypatch, ray, needs, asked
):
    run_pretended(monkeypatch)
    list(OnRay(needs).run(some_jobs(tmp_path)))
    assert ray.asked == {"max_retries": 3, "retry_exceptions": False, **asked}


@pytest.mark.parametrize(
    ("needs", "said"),
    [
        (Needs(cpus=5), "each task wants 5 CPU, the cluster has 4"),
        (Needs(gpus=2), "each task wants 2 GPU, the cluster has 1"),
        (Needs(here=True), "no node of the cluster"),
    ],
)
def test_what_would_wait_for_ever_is_refused(tmp_path, ray, needs, said):
    if needs.here:
        ray.has = {"CPU": 4.0, "node:10.0.0.8": 1.0}
    with pytest.raises(UsageError, match=said):
        list(OnRay(needs).run(some_jobs(tmp_path)))
    assert ray.down == 1


def test_a_task_that_ray_gives_up_does_not_end_the_others(tmp_path, monkeypatch, ray):
    def run(job: Job) -> Ended:
        if job.name == "two":
            raise RayError("The worker died unexpectedly\nwhile executing this task")
        return Ended(job.fingerprint, 0, "", 0.0)

    monkeypatch.setattr(on_ray, "run_job", run)
    found = {job.name: ended for job, ended in OnRay(Needs()).run(some_jobs(tmp_path))}
    assert found["two"].exit_code == 137
    assert found["two"].error == "RayError: while executing this task"
    assert found["one"].exit_code == found["three"].exit_code == 0


def test_interrupted_the_tasks_that_run_are_cancelled_and_the_cluster_ends(tmp_path, monkeypatch, ray):
    run_pretended(monkeypatch)
    running = OnRay(Needs()).run(some_jobs(tmp_path))
    next(running)
    with pytest.raises(KeyboardInterrupt):
        running.throw(KeyboardInterrupt)
    assert ray.cancelled == ["one", "two"]
    assert ray.down == 1


def test_a_cluster_that_cannot_be_reached_is_a_device_error(tmp_path, ray):
    ray.fault = ConnectionError("Could not find any running Ray instance.\nMore.")
    with pytest.raises(DeviceError, match="Could not find any running Ray instance") as told:
        list(OnRay(Needs(), "auto").run(some_jobs(tmp_path)))
    assert told.value.where == "auto"


def test_without_jobs_no_cluster_is_started(ray):
    assert list(OnRay(Needs()).run([])) == []
    assert ray.began == {}


def test_without_ray_it_says_how_to_get_it(tiny: Tiny, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.chdir(tmp_path)
    ran = run_here("sweep", *tiny.compress()[1:], "--no-bench", "--macs", "0.5", "--ray")
    assert "pip install 'edgeprune[ray]'" in fault_without_fix(ran.err)
    assert ran.code == 2


def fault_without_fix(said: str) -> str:
    assert "Traceback" not in said
    return said[said.index("error: ") :]


@pytest.mark.parametrize(
    ("options", "cpus", "needs"),
    [
        (("--no-bench",), None, Needs(1, 0, False)),
        ((), None, Needs(1, 0, True)),
        (("--device", "local"), 2, Needs(2, 0, True)),
        (("--device", "docker://image:1"), None, Needs(1, 0, True)),
        (("--device", "ssh://pi@board"), None, Needs(1, 0, False)),
        (("--no-bench", "--recover", "distill", "--train-device", "cuda"), None, Needs(1, 1, False)),
        (("--no-bench", "--recover", "distill"), None, Needs(1, 0, False)),
    ],
)
def test_what_a_task_takes_follows_from_where_it_measures_and_learns(tiny: Tiny, options, cpus, needs):
    asked = _asked(tiny.compress(*options)[1:], Choice("l1", "macs", 0.5, "fp32"))
    assert _needs(asked, cpus) == needs


def test_a_task_computes_with_the_cores_it_was_given_or_all_where_it_is_alone():
    every = str(len(os.sched_getaffinity(0)))
    assert _environment(None, Needs(), on_ray=False) == {}
    assert _environment(2, Needs(2), on_ray=False) == {"OMP_NUM_THREADS": "2"}
    assert _environment(None, Needs(), on_ray=True) == {"OMP_NUM_THREADS": "1"}
    assert _environment(None, Needs(here=True), on_ray=True) == {"OMP_NUM_THREADS": every}
    assert _environment(2, Needs(2, here=True), on_ray=True) == {"OMP_NUM_THREADS": "2"}


# Ray itself


def start(words: tuple[str, ...], out: Path) -> subprocess.Popen[str]:
    argv = [sys.executable, "-m", "edgeprune", "sweep", *words, "--out", str(out), "--json"]
    pipe = subprocess.PIPE
    return subprocess.Popen(argv, env=environment(), cwd=out.parent, stdout=pipe, stderr=pipe, text=True)


def working(driver: int) -> list[psutil.Process]:
    """Ray's workers that run a task now: a `compress` is their child."""
    found = []
    for process in psutil.Process(driver).children(recursive=True):
        try:
            parent = process.parent()
            if "compress" in process.cmdline() and parent and "ray::" in " ".join(parent.cmdline()):
                found.append(parent)
        except psutil.Error:
            continue
    return found


def awaited(driver: subprocess.Popen[str]) -> psutil.Process:
    deadline = time.monotonic() + 300
    while not (found := working(driver.pid)):
        assert driver.poll() is None, driver.communicate()[1]
        assert time.monotonic() < deadline, "no task is begun"
        time.sleep(0.2)
    return found[0]


def told(document: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows without their times."""
    return [{name: value for name, value in row.items() if name != "seconds"} for row in document["rows"]]


@needs_ray
@pytest.mark.slow
def test_twelve_tasks_of_which_a_worker_is_killed_give_the_same_table_as_one_by_one(tmp_path):
    words = (
        "digits",
        "--criteria",
        "l1,l2,fpgm",
        "--macs",
        "0.5,0.7",
        "--precisions",
        "fp32,fp16",
        "--formats",
        "onnx",
    )
    words += ("--no-bench", "--recover", "bn", "--images", "100", "--calibration-images", "32", "--cpus", "1")
    running = start((*words, "--ray"), tmp_path / "on-ray")
    worker = awaited(running)
    child = worker.children(recursive=True)
    time.sleep(2)
    worker.kill()
    out, said = running.communicate(timeout=3000)
    assert running.returncode == 0, said
    assert not any(process.is_running() for process in child)
    found = json.loads(out)
    assert [row["exit_code"] for row in found["rows"]] == [0] * 12
    assert found["executor"] == "Run on Ray, a cluster of this machine."
    alone = start(words, tmp_path / "alone")
    out, said = alone.communicate(timeout=3000)
    assert alone.returncode == 0, said
    assert told(found) == told(json.loads(out))
    assert not [path for path in (tmp_path / "on-ray" / "tasks").iterdir() if path.name.startswith(".")]


@needs_ray
@pytest.mark.slow
def test_ctrl_c_on_ray_ends_all_processes_and_the_same_command_goes_on(tiny: Tiny, tmp_path):
    words = (*tiny.compress("--formats", "onnx", "--no-bench", "--recover", "bn")[1:], "--macs", "0.5,0.7")
    words, out = (*words, "--criteria", "l1", "--cpus", "1", "--ray"), tmp_path / "sweep"
    running = start(words, out)
    awaited(running)
    family = psutil.Process(running.pid).children(recursive=True)
    running.send_signal(signal.SIGINT)
    printed, said = running.communicate(timeout=120)
    assert (running.returncode, printed) == (130, "")
    assert said.strip().splitlines()[-1] == "interrupted: nothing is left half-written"
    assert "Traceback" not in said
    psutil.wait_procs(family, timeout=30)
    assert not [process for process in family if process.is_running()]
    assert not [path for path in (out / "tasks").iterdir() if path.name.startswith(".")]
    again = start(words, out)
    printed, said = again.communicate(timeout=600)
    assert again.returncode == 0, said
    assert [row["exit_code"] for row in json.loads(printed)["rows"]] == [0, 0]
