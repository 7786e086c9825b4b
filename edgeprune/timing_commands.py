"""Commands that time files: bench, compare, doctor."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from edgeprune.errors import EdgepruneError, TrustError, UsageError
from edgeprune.options import AsJson
from edgeprune.terminal import Talk

_MISSED = 1

Devices = Annotated[
    list[str] | None,
    typer.Option(
        help="local, ssh://user@host:port, docker://IMAGE or podman://IMAGE; may be repeated. (default: local)"
    ),
]
Runtimes = Annotated[
    str | None,
    typer.Option(help="In which to time, e.g. onnxruntime,litert-gpu. (default: each file in its format's own)"),
]
Threads = Annotated[str | None, typer.Option(help="e.g. 1,4. (default: 1 and all cores, 4 at most)")]
Minutes = Annotated[float | None, typer.Option(help="How long to measure on each device.")]
Sustained = Annotated[
    str | None, typer.Option(help="Instead: keep the board under load so long, e.g. 90s, 10m, 1h; times by minute.")
]
Blocks = Annotated[int | None, typer.Option(help="Instead: blocks of each file. (default: 16)")]


def bench(
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            help="A run folder, or .onnx or .tflite files: the first is the baseline.", metavar="RUN|FILE..."
        ),
    ] = None,
    device: Devices = None,
    runtime: Runtimes = None,
    threads: Threads = None,
    minutes: Minutes = None,
    blocks: Blocks = None,
    sustained: Sustained = None,
    energy: Annotated[
        bool, typer.Option("--energy", help="Then watch the board's power, idle and under each file.")
    ] = False,
    gate: Annotated[
        float | None, typer.Option(help="Exit 1 unless every speed-up's interval lies at or above this, e.g. 1.3.")
    ] = None,
    profile: Annotated[bool, typer.Option("--profile", help="Then ask the runtimes what each operator takes.")] = False,
    setup: Annotated[bool, typer.Option("--setup", help="Put the runtimes on the board first.")] = False,
    wheels: Annotated[
        Path | None, typer.Option(help="Take these from a folder of wheels, or a bundle, not from an index.")
    ] = None,
    collect: Annotated[
        bool, typer.Option("--collect", help="Fetch what the board finished after its connection was lost.")
    ] = False,
    clean: Annotated[bool, typer.Option("--clean", help="Remove from the board what --setup put there.")] = False,
    out: Annotated[Path | None, typer.Option(help="Where to keep the samples of single files, with a report.")] = None,
    seed: Annotated[int, typer.Option(help="Of the order of the turns.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Time a run's files again, or files named one by one, in turns, here or on a board.

    A run's report is written anew, the new times beside those of other machines.
    """
    from edgeprune.benching import bench as run
    from edgeprune.order import Order
    from edgeprune.timing_tables import print_bench

    talk = Talk()
    done = run(
        Order(
            files=tuple(files or ()),
            devices=tuple(device or ("local",)),
            runtimes=_words(runtime),
            threads=_counts(threads),
            rounds=blocks,
            minutes=minutes,
            sustained_s=_seconds(sustained),
            energy=energy,
            gate=gate,
            profile=profile,
            set_up=setup,
            wheels=wheels,
            collect=collect,
            clean=clean,
            out=out,
            seed=seed,
            command=("edgeprune", *sys.argv[1:]),
        ),
        talk,
    )
    if done.measurements:
        print_bench(done.to_json(), as_json)
    _fail(talk, done.failures)
    if done.fatal:
        raise TrustError(f"not trustworthy: {done.fatal[0]}", fix=done.fatal[0].reason.value.remedy)
    if not done.gate_met:
        talk.say(f"gate missed: not every speed-up is at least {gate:g}x at the lower end of its interval")
        raise typer.Exit(_MISSED)


def compare(
    first: Annotated[Path, typer.Argument(help="A run folder, a measurements.jsonl, or a model file.", metavar="A")],
    second: Annotated[Path, typer.Argument(help="Another of the same kind.", metavar="B")],
    threads: Threads = None,
    allow_mixed: Annotated[
        bool, typer.Option("--allow-mixed", help="Also where board, runtime version or power state differ; marked.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Is B faster than A? Model files are timed in turns, here; runs are compared as they were measured."""
    if first.suffix in (".onnx", ".tflite"):
        bench([first, second], threads=threads, as_json=as_json)
        return
    from edgeprune.bench.session import LOG_NAME
    from edgeprune.bench.stored import across
    from edgeprune.measurement import load_measurements
    from edgeprune.timing_tables import print_across

    logs = [path / LOG_NAME if path.is_dir() else path for path in (first, second)]
    wanted = _counts(threads)
    runs = [[one for one in load_measurements(log) if one.threads in wanted or not wanted] for log in logs]
    found = across(*runs, mixed=allow_mixed)
    print_across([one.to_json() for one in found], as_json)
    fatal = next((doubt for one in found for doubt in one.doubts if doubt.fatal), None)
    if fatal:
        raise TrustError(f"not trustworthy: {fatal}", fix=fatal.reason.value.remedy)


def doctor(device: Devices = None, as_json: AsJson = False) -> None:
    """What is installed and what the sensors say, here or on a board, and what to do about it."""
    from edgeprune.bench.doctor import examine
    from edgeprune.bench.fleet import Opener, side_by_side
    from edgeprune.bench.transport import open_device
    from edgeprune.timing_tables import print_findings

    def look(name: str, opened: Opener) -> list[dict[str, Any]]:
        with opened(name) as transport:
            return [vars(one) for one in examine(transport)]

    found, failures = side_by_side(tuple(dict.fromkeys(device or ("local",))), open_device, look)
    print_findings(found, as_json)
    _fail(Talk(), failures)


def _fail(talk: Talk, failures: Mapping[str, EdgepruneError]) -> None:
    """Of several devices, tell of each that failed; the first one's exit code counts."""
    first, *others = failures.values() or (None,)
    for error in others:
        talk.failed(error)
    if first:
        raise first


def _words(text: str | None) -> tuple[str, ...]:
    return tuple(dict.fromkeys(text.split(","))) if text else ()


def _seconds(text: str | None) -> float | None:
    match = re.fullmatch(r"(\d{1,6}(?:\.\d{1,3})?)([smh])", text or "", re.ASCII)
    if text is not None and not match:
        raise UsageError(
            f"--sustained must be a time as 90s, 10m or 1h, got {text!r}", fix="For example: --sustained 10m"
        )
    return float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]] if match else None


def _counts(text: str | None) -> tuple[int, ...]:
    if text is None:
        return ()
    if not all(word.isdecimal() and int(word) for word in text.split(",")):
        raise UsageError(f"--threads must be whole numbers above 0, got {text!r}", fix="For example: --threads 1,4")
    return tuple(sorted({int(word) for word in text.split(",")}))
