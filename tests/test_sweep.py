"""edgeprune sweep: many runs of compress, in one table; what fails or is cut off costs only itself."""

from __future__ import annotations

import fcntl
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
import pytest
from program_runs import Tiny, environment, fault, fingerprint, run_here
from report_samples import FULL
from safetensors.torch import load_file, save_file

from edgeprune.errors import OutputError
from edgeprune.report.sweep import Row
from edgeprune.sweep import job as jobs
from edgeprune.sweep.executor import Serial
from edgeprune.sweep.job import Ended, Job, finished, run_job
from edgeprune.sweeping import TASKS, SweepOrder, Task, sweep
from edgeprune.sweeping_command import Choice, _asked, _task

WRITES = "import sys, pathlib; out = pathlib.Path(sys.argv[-1]); out.mkdir(); (out / 'report.json').write_text('{}')"
FAILS = "import sys; print('busy', file=sys.stderr); print('error: no such thing\\n  fix: make it', file=sys.stderr); "


def a_job(place: Path, name: str = "l1-macs-0.5-fp32", asked: str = "a") -> Job:
    place.mkdir(parents=True, exist_ok=True)
    return Job(name, ("compress",), asked, place, place, {"ASKED": asked})


def a_task(out: Path, criterion: str, asked: str = "a") -> Task:
    name = f"{criterion}-macs-0.5-fp32"
    return Task(Row(name, criterion, {"macs": 0.5}, "fp32"), Job(name, ("compress",), asked, out / TASKS, out))


def an_order(out: Path, *criteria: str, asked: str = "a", overwrite: bool = False) -> SweepOrder:
    return SweepOrder("net", "rpi4", tuple(a_task(out, name, asked) for name in criteria), out, overwrite)


class Pretend:
    """An executor whose jobs end as it is told.

    Args:
        codes: exit code of jobs by criterion; 0 for others.
        until: after how many jobs the user interrupts it.
    """

    told = "Pretended."

    def __init__(self, until: int = 1000, **codes: int) -> None:
        self._until, self._codes = until, codes
        self.ran: list[str] = []

    def run(self, asked: Sequence[Job]) -> Iterator[tuple[Job, Ended]]:
        for job in asked:
            if len(self.ran) == self._until:
                raise KeyboardInterrupt
            criterion = job.name.partition("-")[0]
            code = self._codes.get(criterion, 0)
            self.ran.append(criterion)
            if code in (0, 1):
                job.run.mkdir(exist_ok=True)
                FULL.save(job.run)
            ended = Ended(job.fingerprint, code, "no such thing" if code else "", 1.5)
            job.record.write_text(json.dumps({"schema": 1, **vars(ended)}))
            yield job, ended


# One job


def test_a_job_runs_in_a_process_of_its_own_and_how_it_ended_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(jobs, "_BOOT", f"import os; assert os.environ['ASKED'] == 'a'; {WRITES}")
    job = a_job(tmp_path / "tasks")
    found = run_job(job)
    assert (found.exit_code, found.error) == (0, "")
    assert finished(job) == found
    assert json.loads(job.record.read_text())["schema"] == 1


def test_a_finished_job_is_not_run_again_unless_something_else_is_asked(tmp_path, monkeypatch):
    monkeypatch.setattr(jobs, "_BOOT", WRITES)
    first = run_job(a_job(tmp_path))
    monkeypatch.setattr(jobs, "_BOOT", "import sys; sys.exit(3)")
    assert run_job(a_job(tmp_path)) == first
    other = run_job(a_job(tmp_path, asked="b"))
    assert other.exit_code == 3
    assert not a_job(tmp_path).run.exists(), "the run of before is shown for what failed now"


def test_what_a_failing_job_said_is_its_error(tmp_path, monkeypatch):
    monkeypatch.setattr(jobs, "_BOOT", f"{FAILS} sys.exit(5)")
    job = a_job(tmp_path)
    found = run_job(job)
    assert (found.exit_code, found.error) == (5, "no such thing fix: make it")
    assert finished(job) is None
    assert "busy" in job.log.read_text()


@pytest.mark.parametrize(
    ("boot", "code", "error"),
    [
        ("import os; os.kill(os.getpid(), 9)", 137, "ended by SIGKILL"),
        ("raise RuntimeError('a bug')", 1, "RuntimeError: a bug"),
    ],
)
def test_a_crash_is_told_with_its_last_words(tmp_path, monkeypatch, boot, code, error):
    monkeypatch.setattr(jobs, "_BOOT", boot)
    found = run_job(a_job(tmp_path))
    assert (found.exit_code, found.error) == (code, error)
    assert finished(a_job(tmp_path)) is None


def test_a_torn_record_is_none(tmp_path):
    job = a_job(tmp_path)
    for text in ("{", '{"schema": 2}', '{"schema": 1}'):
        job.record.write_text(text)
        assert finished(job) is None


def test_what_a_killed_job_left_is_cleared_away(tmp_path, monkeypatch):
    monkeypatch.setattr(jobs, "_BOOT", WRITES)
    job = a_job(tmp_path)
    left = tmp_path / f".{job.name}.4711.partial"
    other = tmp_path / f".{job.name}0.4711.partial"
    for folder in (left, other, job.run):
        folder.mkdir()
    (job.run / "old").touch()
    run_job(job)
    assert not left.exists()
    assert other.exists()
    assert sorted(path.name for path in job.run.iterdir()) == ["report.json"]


RUNNER = """
import sys
from pathlib import Path
from edgeprune.sweep import job
job._BOOT = ("from edgeprune.worker.lifetime import die_with_parent; die_with_parent(); import time, pathlib, os; "
             "pathlib.Path('new').write_text(str(os.getpid())); os.rename('new', 'pid'); time.sleep(60)")
job.run_job(job.Job("one", (), "a", Path.cwd(), Path.cwd()))
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_job_ends_with_the_process_that_runs_it(tmp_path, number):
    runner = subprocess.Popen(
        [sys.executable, "-c", RUNNER], cwd=tmp_path, env=environment(), stderr=subprocess.DEVNULL
    )
    pid = int(_awaited(tmp_path / "pid").read_text())
    runner.send_signal(number)
    runner.wait(60)
    deadline = time.monotonic() + 20
    while psutil.pid_exists(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not psutil.pid_exists(pid)
    assert not (tmp_path / "one.json").exists()


def _awaited(path: Path) -> Path:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} does not appear"
        time.sleep(0.05)
    return path


# All of them


def test_a_sweep_is_one_table_of_all_tasks(tmp_path):
    out = tmp_path / "sweep"
    done = sweep(an_order(out, "l1", "qsfm"), Pretend())
    assert [(row.criterion, row.result, row.run) for row in done.report.rows] == [
        ("l1", "done", "tasks/l1-macs-0.5-fp32"),
        ("qsfm", "done", "tasks/qsfm-macs-0.5-fp32"),
    ]
    assert done.exit_code == 0
    assert json.loads((out / "sweep.json").read_text()) == done.report.to_json()
    assert (out / "sweep.md").is_file()
    assert (out / "sweep.html").is_file()


def test_a_task_that_fails_does_not_end_the_others_and_is_tried_again(tmp_path):
    out = tmp_path / "sweep"
    done = sweep(an_order(out, "l1", "fscl", "qsfm"), Pretend(fscl=5))
    rows = done.report.rows
    assert [row.result for row in rows] == ["done", "failed (5)", "done"]
    assert (rows[1].error, rows[1].run, done.exit_code) == ("no such thing", "", 5)
    assert "exit code 5: no such thing" in (out / "sweep.md").read_text()
    again = Pretend()
    assert sweep(an_order(out, "l1", "fscl", "qsfm"), again).exit_code == 0
    assert again.ran == ["fscl"]


@pytest.mark.parametrize(
    ("codes", "wanted"),
    [({}, 0), ({"l1": 1}, 1), ({"l1": 1, "qsfm": 4}, 4), ({"l1": 3, "qsfm": 4}, 3), ({"l1": 137}, 2)],
)
def test_the_exit_code_is_that_of_the_first_failure_or_1_where_goals_are_missed(tmp_path, codes, wanted):
    assert sweep(an_order(tmp_path / "sweep", "l1", "qsfm"), Pretend(**codes)).exit_code == wanted


def test_interrupted_it_keeps_what_it_has_and_goes_on_there(tmp_path):
    out = tmp_path / "sweep"
    with pytest.raises(KeyboardInterrupt):
        sweep(an_order(out, "l1", "fscl", "qsfm"), Pretend(until=1))
    results = [row["exit_code"] for row in json.loads((out / "sweep.json").read_text())["rows"]]
    assert results == [0, None, None]
    rest = Pretend()
    assert [row.result for row in sweep(an_order(out, "l1", "fscl", "qsfm"), rest).report.rows] == ["done"] * 3
    assert rest.ran == ["fscl", "qsfm"]


def test_asked_for_other_things_tasks_are_run_again(tmp_path):
    out, other, anew = tmp_path / "sweep", Pretend(), Pretend()
    sweep(an_order(out, "l1", "qsfm"), Pretend())
    sweep(an_order(out, "l1", "qsfm", asked="b"), other)
    sweep(an_order(out, "l1", "qsfm", asked="b", overwrite=True), anew)
    assert other.ran == anew.ran == ["l1", "qsfm"]


def test_a_folder_of_other_things_is_left_alone(tmp_path):
    (tmp_path / "letter.txt").write_text("dear")
    before = fingerprint(tmp_path)
    with pytest.raises(OutputError, match="no sweep of edgeprune"):
        sweep(an_order(tmp_path, "l1", overwrite=True), Pretend())
    assert fingerprint(tmp_path) == before
    with pytest.raises(OutputError, match="taken by a file"):
        sweep(an_order(tmp_path / "letter.txt", "l1"), Pretend())


def test_two_sweeps_do_not_work_in_one_folder(tmp_path):
    out = tmp_path / "sweep"
    sweep(an_order(out, "l1"), Pretend())
    with (out / "sweep.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(OutputError, match="another sweep works in this folder"):
            sweep(an_order(out, "l1"), Pretend())


def test_a_report_that_cannot_be_read_is_told_in_the_table(tmp_path, monkeypatch):
    monkeypatch.setattr(jobs, "_BOOT", WRITES)
    done = sweep(an_order(tmp_path / "sweep", "l1"), Serial())
    assert done.report.rows[0].error.startswith("its report: ")
    assert done.exit_code == 2


# What is asked


def test_each_task_is_a_compress_with_all_that_was_given(tiny: Tiny, tmp_path):
    more = tiny.compress("--recover", "bn", "--no-bench")[1:]
    choice = Choice("l1", "macs", 0.5, "int8")
    task = _task(choice, _asked(more, choice), tmp_path, {"OMP_NUM_THREADS": "1"})
    assert task.job.name == task.row.task == "l1-macs-0.5-int8"
    assert task.job.argv == ("compress", *more, "--criterion", "l1", "--macs", "0.5", "--precisions", "int8")
    assert task.job.place == tmp_path / TASKS
    assert task.job.environment == {"OMP_NUM_THREADS": "1"}
    request = _asked(more, choice).request
    assert (request.recover, request.budget.macs, request.precisions) == ("bn", 0.5, ("fp32", "int8"))


def test_other_weights_or_options_are_another_task(tiny: Tiny, tmp_path):
    weights = tmp_path / "w.safetensors"
    weights.write_bytes(tiny.weights.read_bytes())
    more = [tiny.net, "--weights", str(weights), "--data", str(tiny.data), "--input", "1x8x8"]
    choice = Choice("l1", "macs", 0.5, "fp32")

    def asked(*further: str) -> str:
        return _task(choice, _asked([*more, *further], choice), tmp_path, {}).job.fingerprint

    first = asked()
    assert asked() == first
    assert asked("--seed", "1") != first
    tensors = load_file(weights)
    save_file({name: tensor + 1 for name, tensor in tensors.items()}, weights)
    assert asked() != first


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("digits",), ("a sweep wants budgets", "--macs 0.5")),
        (("digits", "--macs", "0.x"), ("--macs must be numbers with commas between, got '0.x'",)),
        (("digits", "--macs", "7"), ("--macs must lie between 0 and 1",)),
        (("digits", "--macs", "0.5", "--criterion", "l1"), ("--criterion is no option of a sweep", "--criteria")),
        (("digits", "--macs", "0.5", "--dry-run"), ("--dry-run is no option of a sweep",)),
        (("digits", "--macs", "0.5", "--criteria", "l1,l3"), ("unknown criterion 'l3'", "Did you mean 'l2'?")),
        (("digits", "--macs", "0.5", "--recover", "nope"), ("unknown --recover 'nope'",)),
        (("digits", "--macs", "0.5", "--precisions", "int4"), ("unknown --precisions 'int4'",)),
        (("digits", "--macs", "0.5", "--no-such-option"), ("No such option: --no-such-option",)),
        (("digits", "--macs", "0.5", "--cpus", "0"), ("--cpus must be at least 1",)),
    ],
)
def test_what_no_task_could_do_is_refused_before_any_is_run(tmp_path, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    fault(run_here("sweep", *words), 2, *said)
    assert not list(tmp_path.iterdir())


def test_the_table_or_the_document_is_printed_and_failures_are_told(tiny: Tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        jobs, "_BOOT", f"{FAILS} import os; sys.exit(4 * os.environ['EDGEPRUNE_SLOTS'].endswith('/out/slots'))"
    )
    words = ("sweep", *tiny.compress()[1:], "--criteria", "l1,l2", "--macs", "0.5", "--out", "out")
    ran = run_here(*words)
    assert ran.code == 4
    assert "failed: l1-macs-0.5-fp32: exit code 4: no such thing" in ran.out
    assert "Run one by one on this machine, without Ray." in ran.out
    assert "2 of 2: l2-macs-0.5-fp32: failed (4): no such thing" in ran.err
    document = json.loads(run_here(*words, "--json").out)
    assert [row["exit_code"] for row in document["rows"]] == [4, 4]
    assert document == json.loads(Path("out/sweep.json").read_text())


@pytest.mark.slow
def test_a_sweep_of_the_real_command_goes_on_after_a_task_that_cannot_be_done(tiny: Tiny, tmp_path):
    more = (*tiny.compress("--formats", "onnx", "--no-bench", "--recover", "bn")[1:], "--cpus", "1")
    out = tmp_path / "sweep"
    ran = run_here("sweep", *more, "--criteria", "l1", "--macs", "0.01,0.6", "--out", str(out), "--json")
    document = json.loads(ran.out)
    assert ran.code == 1, ran.err
    impossible, done = document["rows"]
    assert (impossible["exit_code"], impossible["run"]) == (1, "")
    assert impossible["error"].startswith("--macs 0.01")
    assert (done["exit_code"], done["error"]) == (0, "")
    assert done["macs_kept"] == pytest.approx(0.6, abs=0.1)
    assert done["accuracy"]["metric"] == "top1"
    assert (out / done["run"] / "pruned-fp32.onnx").is_file()
    assert not [path for path in (out / TASKS).iterdir() if path.name.startswith(".")]
