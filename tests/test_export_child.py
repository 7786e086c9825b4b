from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from edgeprune.errors import ExportError
from edgeprune.export.child import RefusedError, apart, end_child

HERE = "test_export_child"


def add(one: int, other: int) -> int:
    print("chatter on stdout")
    os.write(2, b"chatter on stderr\n")
    return one + other


def where() -> int:
    return os.getpid()


def refuse() -> None:
    print("no operator called frobnicate")
    try:
        raise KeyError("inner reason")
    except KeyError as error:
        raise RuntimeError("outer") from error


def die(how: int) -> None:
    os.write(1, b"about to go\n")
    os.kill(os.getpid(), how)


def leave() -> None:
    os._exit(7)


def sleep() -> None:
    time.sleep(60)


@pytest.fixture(scope="module", autouse=True)
def _ended():
    yield
    end_child()


def test_a_function_is_called_in_another_process_and_what_it_prints_stays_there(capfd):
    assert apart(f"{HERE}:add", 2, 3) == 5
    assert apart(f"{HERE}:where") != os.getpid()
    assert capfd.readouterr() == ("", "")


def test_the_process_is_kept_for_the_next_task_until_it_is_ended():
    first = apart(f"{HERE}:where")
    assert apart(f"{HERE}:where") == first
    end_child()
    assert apart(f"{HERE}:where") != first


def test_what_the_function_raises_is_told_with_its_innermost_cause_and_what_it_printed():
    with pytest.raises(RefusedError) as caught:
        apart(f"{HERE}:refuse")
    assert (caught.value.kind, caught.value.text) == ("KeyError", "'inner reason'")
    assert "frobnicate" in caught.value.said
    assert apart(f"{HERE}:add", 1, 1) == 2


def test_a_crash_is_an_error_that_names_the_signal_and_the_next_task_works():
    with pytest.raises(ExportError, match="SIGSEGV") as caught:
        apart(f"{HERE}:die", signal.SIGSEGV)
    assert caught.value.where == "about to go"
    with pytest.raises(ExportError, match="exit code 7"):
        apart(f"{HERE}:leave")
    assert apart(f"{HERE}:add", 1, 1) == 2


def test_an_interrupted_task_ends_the_process():
    pid = apart(f"{HERE}:where")
    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        apart(f"{HERE}:sleep")
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_script_without_a_main_guard_may_convert(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("from edgeprune.export.child import apart\nprint(apart('os.path:basename', '/a/b'))\n")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, env=environment, check=True)
    assert (done.stdout, done.stderr) == ("b\n", "")
