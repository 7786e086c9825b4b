"""The conductor: files in turns, so that whatever slows the board slows all of them alike.

Entries that share runtime and thread count are a group. Within a group each round runs every entry once, in a random
order that the next round mirrors (A-B-B-A), so that a drift that is steady over two rounds cancels. A round in which
something befell a block is repeated whole at the end.

Each block is timed in a process of its own, which loads the file, warms up, and ends: what memory a process was given
may make it slow or fast for as long as it lives, and the process that is loaded first gets other memory than the next
(docs/decisions/0019). It is forked from one that has imported the runtime and nothing else, one an entry.
"""

from __future__ import annotations

import json
import os
import platform
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from edgeprune.worker import power, sensors
from edgeprune.worker.schedule import groups, turns
from edgeprune.worker.taint import wanted

SCHEMA = 3
"""Of the job and of the events. History: 1, the first; 2, blocks say when they were taken; 3, `fresh`."""
SETTLE_SECONDS = 0.03
"""Pause before a block of a process that stays. After a call LiteRT's threads keep spinning for some milliseconds
(measured: about 15 ms of CPU time)."""
BUILD_PATIENCE = 12
"""So many times as long as others may a runtime be silent that builds an engine first: an hour."""

_DEATHS: Mapping[int, str] = {
    signal.SIGKILL: "Was there no memory left? On the board: dmesg | tail",
    signal.SIGSEGV: "The runtime crashed. Another version of it, or another --runtime, may run the file.",
    signal.SIGILL: "The runtime was built for a newer processor: it needs another version of it, or another --runtime.",
}
"""What a signal that ended a child's process most likely means."""

Emit = Callable[[Mapping[str, Any]], None]


class EntryError(Exception):
    """An entry cannot be measured.

    Args:
        entry: its id.
        reason: one sentence.
        missing: the runtime that is not installed, if that is it.
        fix: what to do about it, where that is known.
    """

    def __init__(self, entry: str, reason: str, missing: str = "", fix: str = "") -> None:
        super().__init__(f"{entry}: {reason}")
        self.entry, self.reason, self.missing, self.fix = entry, reason, missing, fix


class Child:
    """A process that holds one entry. A context manager: neither the process nor a file of it outlives the block."""

    def __init__(self, entry: str, patience_seconds: float) -> None:
        self._entry, self._patience = entry, patience_seconds
        self._answer = b""

    def __enter__(self) -> Child:
        self._log = tempfile.TemporaryFile()
        self._scratch = tempfile.TemporaryDirectory(prefix="edgeprune-")
        words, pipe = [*_program(), "--serve"], subprocess.PIPE
        own = {**os.environ, "TMPDIR": self._scratch.name}  # it is killed, so it cannot tidy up
        self._process = subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=self._log, bufsize=0, env=own)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._log):
            if stream:
                stream.close()
        self._scratch.cleanup()

    def ask(self, operation: str, **request: Any) -> dict[str, Any]:
        """Send a request and wait for its reply.

        Raises:
            EntryError: the child failed, died, or did not answer in time.
        """
        assert self._process.stdin
        try:
            self._process.stdin.write(json.dumps({"operation": operation, **request}).encode() + b"\n")
        except BrokenPipeError:
            raise self._death() from None
        reply: dict[str, Any] = json.loads(self._line(operation))
        if "error" in reply:
            raise EntryError(self._entry, reply["error"], fix=reply["fix"])
        return reply

    def _line(self, operation: str) -> bytes:
        assert self._process.stdout
        channel = self._process.stdout.fileno()
        deadline = time.monotonic() + self._patience
        while b"\n" not in self._answer:
            ready, _, _ = select.select([channel], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise EntryError(self._entry, f"no answer to {operation!r} within {self._patience:g} s")
            received = os.read(channel, 1 << 16)
            if not received:
                raise self._death()
            self._answer += received
        line, _, self._answer = self._answer.partition(b"\n")
        return line

    def _death(self) -> EntryError:
        code = self._process.wait()
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        self._log.seek(0)
        last = self._log.read().decode(errors="replace").strip().splitlines()[-3:]
        return EntryError(self._entry, " | ".join([f"its process {how}", *last]), fix=_DEATHS.get(-code, ""))


def conduct(job: Mapping[str, Any], emit: Emit) -> int:
    """Measure every entry of a job.

    Args:
        job: `schema`, `entries` [{id, path, runtime, threads, layout, folded}], `inputs` (.npy, float32
            [k, C, H, W]), `rounds`, `repeats` (most rounds to add in place of tainted ones), `seconds` (go on for so
            long at least, loading and warming up included, shared among the groups; 0: `rounds` is enough),
            `block_seconds`, `warm_up` {at_least, limit_seconds, tolerance}, `patience_seconds`, `seed`;
            `fresh`: time each block in a new process (programs, which start one anyway, and whatever runs under an
            emulator, whose times say nothing, stay loaded);
            `energy`: watch the board's power after the rounds; `note`, which is repeated at the start;
            `profile_calls` to profile each entry instead of timing it.
        emit: receives the events `start`, `ready`, `block`, `energy`, `profile`, `end`, or `error` as the last one.

    Returns:
        0, or 1 after an error event.
    """
    board, began = sensors.Board(), time.monotonic()
    device = {**sensors.facts(board), "python": platform.python_version(), "at_start": sensors.readings(board)}
    found = power.meter(board, device.get("model", ""))
    device["power"] = {"unavailable": found} if isinstance(found, str) else {"source": found.source}
    emit({"event": "start", "schema": SCHEMA, "device": device, "note": job.get("note")})
    try:
        _check_runtimes(job["entries"])
        if "profile_calls" in job:
            for entry in (*job["entries"], *reversed(job["entries"])):
                emit({"event": "profile", "entry": entry["id"], **_profile(entry, job)})
        else:
            in_turn = groups(job["entries"])
            for group in in_turn:
                _measure_group(group, job, board, device, began, job["seconds"] / len(in_turn), emit)
    except EntryError as error:
        emit({"event": "error", **vars(error)})
        return 1
    emit({"event": "end", "sensors": sensors.readings(board)})
    return 0


def conduct_file(path: str, *, attached: bool) -> int:
    """Measure the job in a file; events go to standard output, one JSON line each.

    Args:
        path: the job.
        attached: end, with all children, when standard input closes.

    Returns:
        The exit code.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    if attached:
        threading.Thread(target=_end_with_input, daemon=True).start()
    try:
        job = json.loads(Path(path).read_text(encoding="utf-8"))
        if job.get("schema") != SCHEMA:
            raise ValueError(f"this worker reads jobs of schema {SCHEMA}, this one is of {job.get('schema')}")
    except (OSError, ValueError, AttributeError) as error:
        _print_event(
            {"event": "error", "entry": "", "reason": f"cannot read the job: {error}", "missing": "", "fix": ""}
        )
        return 1
    try:
        return conduct(job, _print_event)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # nobody listens any more
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1


def _measure_group(
    group: Sequence[Mapping[str, Any]],
    job: Mapping[str, Any],
    board: sensors.Reader,
    device: Mapping[str, Any],
    began: float,
    seconds: float,
    emit: Emit,
) -> None:
    from edgeprune.worker.runtimes import RUNTIMES

    at_start, until = device["at_start"], time.monotonic() + seconds
    stay = not job["fresh"] or bool(device.get("emulated")) or not RUNTIMES[group[0]["runtime"]].module
    with ExitStack() as stack:
        children = {entry["id"]: stack.enter_context(_child(entry, job)) for entry in group}
        loads = {entry["id"]: _loaded(entry, job) for entry in group}
        for name, child in children.items():
            ready = child.ask("load", **loads[name])
            emit({"event": "ready", "entry": name, "warm_up": child.ask("warm_up", **job["warm_up"]), **ready})
            _ = stay or child.ask("release")
        seen: dict[str, list[Mapping[str, Any]]] = {name: [] for name in children}
        for number, ids in turns(list(children), job["seed"]):
            enough = not wanted(number, seen, job["rounds"], job["repeats"], at_start)
            mirrored = number % 2 == 0 or not seconds  # a pair that time alone would cut in half
            if enough and mirrored and time.monotonic() >= until:
                break
            for order, name in enumerate(ids):
                if stay:
                    time.sleep(SETTLE_SECONDS)
                else:
                    children[name].ask("load", **loads[name])
                    children[name].ask("warm_up", **job["warm_up"])
                started = round(time.monotonic() - began, 3)
                block = children[name].ask("block", seconds=job["block_seconds"])
                _ = stay or children[name].ask("release")
                block["sensors"] = {**sensors.readings(board), **block["sensors"]}
                seen[name].append(block["sensors"])
                emit({"event": "block", "entry": name, "round": number, "order": order, "started_s": started, **block})
        if job["energy"] and not device.get("emulated"):
            for name, child in children.items() if not stay else ():
                child.ask("load", **loads[name])
                child.ask("warm_up", **job["warm_up"])
            runs = {name: partial(child.ask, "block", seconds=power.LOAD_SECONDS) for name, child in children.items()}
            for name, told in power.energies(board, device.get("model", ""), runs):
                emit({"event": "energy", "entry": name, **told})


def _profile(entry: Mapping[str, Any], job: Mapping[str, Any]) -> dict[str, Any]:
    """What each operator takes, or why that is not to be had: `refused`, `fix`."""
    try:
        with _child(entry, job) as child:
            return child.ask("profile", calls=job["profile_calls"], **_loaded(entry, job))
    except EntryError as error:
        return {"refused": error.reason, "fix": error.fix}


def _child(entry: Mapping[str, Any], job: Mapping[str, Any]) -> Child:
    from edgeprune.worker.runtimes import RUNTIMES  # not before it is known that numpy is there

    slow = BUILD_PATIENCE if RUNTIMES[entry["runtime"]].builds else 1
    return Child(entry["id"], job["patience_seconds"] * slow)


def _loaded(entry: Mapping[str, Any], job: Mapping[str, Any]) -> dict[str, Any]:
    return {key: entry[key] for key in ("path", "runtime", "threads", "layout", "folded") if key in entry} | {
        "inputs": job["inputs"]
    }


def _check_runtimes(entries: Sequence[Mapping[str, Any]]) -> None:
    """Look for every runtime before the first minute is spent."""
    if not entries:  # only the board's facts are wanted
        return
    try:
        from edgeprune.worker.runtimes import RUNTIMES
    except ModuleNotFoundError as error:  # numpy
        name = error.name or str(error)
        raise EntryError(entries[0]["id"], f"{name} is not installed", missing=name) from None

    for entry in entries:
        name = entry["runtime"]
        if name not in RUNTIMES:
            raise EntryError(entry["id"], f"this worker knows no runtime {name!r}, only {', '.join(RUNTIMES)}")
        if not RUNTIMES[name].installed():
            raise EntryError(entry["id"], f"{name} is not installed", missing=RUNTIMES[name].part_of)


def _program() -> list[str]:
    """How to start this program again: as the zip file it came in, or as a module of the installed package."""
    archive = Path(sys.argv[0])
    return [sys.executable, str(archive)] if zipfile.is_zipfile(archive) else [sys.executable, "-m", "edgeprune.worker"]


def _end_with_input() -> None:
    # Not sys.stdin: its lock, held by a waiting thread, would make the interpreter's own shutdown fail.
    while os.read(0, 1 << 12):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def _print_event(event: Mapping[str, Any]) -> None:
    print(json.dumps(event), flush=True)
