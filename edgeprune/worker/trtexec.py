"""ONNX files as TensorRT engines, built and timed by NVIDIA's `trtexec`, which comes with TensorRT on a Jetson.

One process a block: it loads the engine, warms up and times itself, and its times are read in. What the options and
files mean: NVIDIA TensorRT documentation, "Command-Line Programs", and `trtexec --help`.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeprune.worker import infer, sensors
from edgeprune.worker.infer import PIXEL, stored
from edgeprune.worker.lifetime import die_with_parent
from edgeprune.worker.loaded import LoadedModel, UnfitError
from edgeprune.worker.onnx_header import Header, read_header
from edgeprune.worker.onnx_session import ENGINES

PLACES = ("/usr/src/tensorrt/bin/trtexec", "/usr/local/tensorrt/bin/trtexec")
"""Where it lies if not on PATH: JetPack does not put it there."""
WARM_UP_MS = 200
"""trtexec's own default: so long each of its processes runs before it measures."""
_ONCE = ("--iterations=1", "--duration=0", "--warmUp=0")
_NO_PRECISION_FLAGS = (11, 0, 0)  # from this version on, networks are strongly typed and the flags are gone


def find_trtexec() -> str | None:
    """Its path; None where it is not installed."""
    return shutil.which("trtexec") or next((place for place in PLACES if shutil.which(place)), None)


def load_trtexec(path: str, threads: int, more: Sequence[str] = _ONCE) -> LoadedModel:  # noqa: ARG001
    """Build the engine of an ONNX file, unless one is kept from before, and be ready to time it.

    The engine is kept under `ENGINES`, by the file's content, TensorRT's version, the device and the precision flags.

    Args:
        path: the file.
        threads: not used; every runtime is loaded alike.
        more: options of the process that `run` starts.

    Raises:
        UnfitError: trtexec is not there, or cannot build the engine.
    """
    program = find_trtexec()
    if program is None:
        raise UnfitError("there is no trtexec here", "It comes with TensorRT: on PATH or in /usr/src/tensorrt/bin.")
    release = version(_run([program, "--help"], "tell its version"))
    header = read_header(path)
    flags = _precision_flags(header, release)
    engine = Path(ENGINES).expanduser() / _engine_name(path, header, release, flags)
    if not engine.exists():
        _build(program, path, engine, header, flags)
    scratch = tempfile.TemporaryDirectory(prefix="edgeprune-")
    run = _Trtexec(program, str(engine), header, scratch, tuple(more))

    def prepare(image: np.ndarray) -> np.ndarray:
        dtype = np.float16 if header.float16 else np.uint8 if header.uint8 else np.float32
        return stored(image, dtype, PIXEL, 0)

    def placement() -> Mapping[str, float]:
        return {"TensorRT": 1.0}  # an engine holds all of the file's operators, or it is not built

    return LoadedModel(".".join(map(str, release)), prepare, run.output, placement, run.times)


def profile_trtexec(path: str, threads: int, image: np.ndarray, calls: int) -> dict[str, Any]:
    """Profile a file's engine by `--exportProfile`.

    Args:
        path: the file.
        threads: not used.
        image: float32 [1, ...] in the file's layout.
        calls: how many to take the times of.

    Returns:
        version, call_ns (the sum of its layers) and operators: name, kind (empty: trtexec does not say), ns (the
        median, before TensorRT 8.5 the mean) and place.
    """
    with tempfile.TemporaryDirectory(prefix="edgeprune-") as folder:
        result = Path(folder) / "profile.json"
        model = load_trtexec(
            path, threads, (f"--iterations={calls}", "--duration=0", "--warmUp=0", f"--exportProfile={result}")
        )
        model.run(model.prepare(image))
        operators = read_profile(result.read_text(encoding="utf-8"))
    return {"version": model.version, "call_ns": sum(one["ns"] for one in operators), "operators": operators}


def read_profile(text: str) -> list[dict[str, Any]]:
    """The layers in a file that `--exportProfile` wrote."""
    return [
        {"name": layer["name"], "kind": "", "ns": layer.get("medianMs", layer["averageMs"]) * 1e6, "place": "TensorRT"}
        for layer in json.loads(text)
        if "name" in layer
    ]


@dataclass(frozen=True)
class _Trtexec:
    """An engine, and where its inputs and results are put."""

    program: str
    engine: str
    header: Header
    scratch: tempfile.TemporaryDirectory[str]
    more: tuple[str, ...]

    def output(self, image: np.ndarray) -> np.ndarray:
        """The first output for an image; by a process that does nothing else."""
        result = Path(self.scratch.name) / "output.json"
        self._call(image, *self.more, f"--exportOutput={result}")
        return read_output(result.read_text(encoding="utf-8"), self.header.output)

    def times(self, image: np.ndarray, seconds: float, at_least: int) -> list[int]:
        """Nanoseconds of each call, the input's way to the GPU and the output's way back included."""
        result = Path(self.scratch.name) / "times.json"
        self._call(
            image,
            f"--iterations={at_least}",
            f"--duration={seconds:g}",
            f"--warmUp={WARM_UP_MS}",
            "--exposeDMA",  # one call after another: no transfer hides behind the call before
            f"--exportTimes={result}",
        )
        return read_times(result.read_text(encoding="utf-8"))

    def _call(self, image: np.ndarray, *options: str) -> None:
        source = Path(self.scratch.name) / "input.bin"
        image.tofile(source)
        inputs = f"--loadInputs={_quoted(self.header.input)}:{source}"
        _run([self.program, f"--loadEngine={self.engine}", *_shapes(self.header), inputs, *options], "run the engine")


def read_times(text: str) -> list[int]:
    """The times, in nanoseconds, of a file that `--exportTimes` wrote: host to device, compute and device to host."""
    return [round(float(call["latencyMs"]) * 1e6) for call in json.loads(text)]


def read_output(text: str, name: str) -> np.ndarray:
    """One output, float32, of a file that `--exportOutput` wrote."""
    found = {output["name"]: output for output in json.loads(text)}
    shape = [int(size) for size in re.findall(r"\d+", found[name]["dimensions"])]
    return np.array(found[name]["values"], np.float32).reshape(shape)


def version(said: str) -> tuple[int, int, int]:
    """TensorRT's version, of the line with which trtexec begins: v8201 is 8.2.1, v100300 is 10.3.0.

    Raises:
        UnfitError: there is no such line.
    """
    match = re.search(r"\[TensorRT v(\d+)(\d\d)(\d\d)\]", said) or re.search(r"\[TensorRT v(\d)(\d)(\d\d)\]", said)
    if not match:
        raise UnfitError("trtexec does not say its version", "Does it start? Run trtexec --help on the device.")
    major, minor, patch = map(int, match.groups())
    return major, minor, patch


def _build(program: str, path: str, engine: Path, header: Header, flags: Sequence[str]) -> None:
    """Build an engine under another name; it takes its own only when it is whole."""
    engine.parent.mkdir(parents=True, exist_ok=True)
    partial = engine.with_name(f"{engine.name}.{time.time_ns()}.partial")
    # It times what it built; the option that stops that has two names, by version.
    wanted = [program, f"--onnx={path}", f"--saveEngine={partial}", *flags, *_shapes(header), *_ONCE]
    try:
        said = _run(wanted, "build the engine")
        if not partial.exists():
            raise UnfitError(f"trtexec saved no engine: {_last(said)}", "Run the same command on the device.")
        partial.replace(engine)
    finally:
        partial.unlink(missing_ok=True)


def _run(argv: Sequence[str], what: str) -> str:
    """What it says."""
    done = subprocess.run(
        argv,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
        preexec_fn=die_with_parent,
    )
    if done.returncode:
        how = f"killed by signal {-done.returncode}" if done.returncode < 0 else f"exit code {done.returncode}"
        raise UnfitError(
            f"trtexec cannot {what} ({how}): {_last(done.stdout)}", f"Run it on the device: {' '.join(argv)}"
        )
    return done.stdout


def _last(said: str) -> str:
    """The last two errors it named, else its last line."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    errors = [re.sub(r"^\[[^\]]*\] \[E\] ?", "", line) for line in lines if " [E] " in line]
    return " | ".join(errors[-2:] or lines[-1:]) or "it says nothing"


def _precision_flags(header: Header, release: tuple[int, int, int]) -> list[str]:
    """What older versions must be told of the file's own precision; TF32 and fp32 are what they take unasked."""
    if release >= _NO_PRECISION_FLAGS:
        return []
    return ["--fp16"] * header.float16 + ["--int8"] * header.quantised


def _engine_name(path: str, header: Header, release: tuple[int, int, int], flags: Sequence[str]) -> str:
    board: Any = sensors.Board()
    gpu = sensors.facts(board).get("model") or board.run(("nvidia-smi", "-L")) or ""
    found = hashlib.sha256(Path(path).read_bytes())
    for name in header.beside:
        found.update(infer.sha256_of(Path(path).with_name(name)).encode())
    found.update(gpu.encode())
    digest = found.hexdigest()[:24]
    return f"{digest}-tensorrt-{'.'.join(map(str, release))}{''.join(flags)}.engine"


def _shapes(header: Header) -> list[str]:
    """The option for a file with open axes; for others trtexec refuses it."""
    return [f"--shapes={_quoted(header.input)}:{'x'.join(map(str, header.shape))}"] if header.open else []


def _quoted(name: str) -> str:
    return f"'{name}'" if re.search(r"[:,]", name) else name
