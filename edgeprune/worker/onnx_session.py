"""ONNX files in onnxruntime, on the processor or on what one of its execution providers drives."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgeprune.worker.infer import PIXEL, stored
from edgeprune.worker.loaded import LoadedModel, UnfitError

CPU = "CPUExecutionProvider"
ENGINES = "~/.cache/edgeprune/engines"
"""Where engines that were built on this machine are kept: building one takes minutes on a Jetson."""
_TOO_NEW = re.compile(r"Unsupported model IR version: \d+, max supported IR version: \d+|.urrent official .*opset \d+")
_OLDER = (
    "Update onnxruntime there, or let onnx_opset in the board's file be an opset that it reads, and run compress again."
)
_NEEDS = {
    "XnnpackExecutionProvider": "a build of onnxruntime with --use_xnnpack (the wheels on PyPI for Linux have none)",
    "CUDAExecutionProvider": "onnxruntime-gpu, on a Jetson the wheel NVIDIA makes for its JetPack",
    "TensorrtExecutionProvider": "onnxruntime-gpu and TensorRT, on a Jetson the wheel NVIDIA makes for its JetPack",
}


def load_onnxruntime(path: str, threads: int, provider: str = CPU) -> LoadedModel:
    """Load an ONNX file into onnxruntime, operators one after another.

    With a provider other than the CPU's the first call is profiled: what onnxruntime then says it executed where is
    the placement, and without a single operator there it is an error.

    Args:
        path: the file.
        threads: for the CPU, or for XNNPACK's own threads.
        provider: an execution provider; what it cannot execute falls to the CPU's.

    Raises:
        UnfitError: the provider is not in this build, or its session does not hold it.
        ValueError: the file's input is of a type that cannot be fed.
    """
    if provider == CPU:
        session, version = open_session(path, threads, provider)
        return LoadedModel(version, *calls_of(session), lambda: {CPU: 1.0})
    scratch = tempfile.TemporaryDirectory(prefix="edgeprune-")
    try:
        session, version = open_session(path, threads, provider, Path(scratch.name) / "placement")
    except BaseException:
        scratch.cleanup()
        raise

    def placement() -> Mapping[str, float]:
        with scratch:
            return placed(node_events(Path(session.end_profiling())), provider)

    return LoadedModel(version, *calls_of(session), placement)


def open_session(path: str, threads: int, provider: str, profile: Path | None = None) -> tuple[Any, str]:
    """A session that holds the provider, and onnxruntime's version.

    Args:
        path: the file.
        threads: for the CPU, or for XNNPACK's own threads.
        provider: an execution provider; what it cannot execute falls to the CPU's.
        profile: how the name of the profile begins; None for no profile.

    Raises:
        UnfitError: the provider is not in this build, its session does not hold it, or the file is too new for it.
    """
    # From 1.29 on it tells its makers of every import, and its uploader's thread would be timed too.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    version = str(onnxruntime.__version__)
    _check_available(provider, onnxruntime.get_available_providers(), version)
    options = _options(onnxruntime.SessionOptions(), threads, provider)
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    if profile:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile)
    try:
        session = onnxruntime.InferenceSession(path, options, providers=_providers(provider, threads))
    except Exception as error:  # classes of its own, which differ by version
        limit = _TOO_NEW.search(str(error))
        if limit is None:
            raise
        raise UnfitError(f"onnxruntime {version} is too old for the file: {limit[0]}", _OLDER) from error
    session.disable_fallback()
    if provider not in session.get_providers():
        raise UnfitError(
            f"onnxruntime {version} could not start its {provider}: the session holds only "
            f"{', '.join(session.get_providers())}",
            f"Is what it needs installed, in matching versions? It takes {_NEEDS[provider]}.",
        )
    return session, version


def node_events(path: Path, wanted: str = "_kernel_time") -> list[dict[str, Any]]:
    """The executed operators in a profile that onnxruntime wrote, in the order they ran, of all calls.

    Args:
        path: the profile.
        wanted: how the events' names end; "model_run" for whole calls.
    """
    events = json.loads(path.read_text(encoding="utf-8"))
    found = [event for event in events if event["name"].endswith(wanted)]
    return sorted(found, key=lambda event: int(event["ts"]))


def placed(events: list[dict[str, Any]], provider: str) -> dict[str, float]:
    """The share of the executed operators by provider; what a provider fused into one counts as one.

    Raises:
        UnfitError: none was executed by `provider`.
    """
    counts = Counter(event["args"]["provider"] for event in events)
    if not counts[provider]:
        places = ", ".join(f"{count} by {name}" for name, count in counts.items()) or "none at all"
        raise UnfitError(
            f"{provider} executed none of the file's operators: {places}",
            "It does not support this file's operators or number format; leave this --runtime out.",
        )
    return {name: count / sum(counts.values()) for name, count in counts.items()}


def _check_available(provider: str, available: list[str], version: str) -> None:
    if provider not in available:
        raise UnfitError(
            f"onnxruntime {version} has no {provider} here, only {', '.join(available)}",
            f"It takes {_NEEDS[provider]}; or leave this --runtime out.",
        )


def _options(options: Any, threads: int, provider: str) -> Any:
    xnnpack = provider == "XnnpackExecutionProvider"
    # XNNPACK has threads of its own; onnxruntime's documentation of it asks for one thread and no spinning beside them.
    options.intra_op_num_threads = 1 if xnnpack else threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    if xnnpack:
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # The pool's threads spin while they wait for work, also after a call has returned, and would steal the cores of
    # the file that is measured next. This lets them spin within a call and stops them at its end
    # (onnxruntime_session_options_config_keys.h).
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return options


def _providers(provider: str, threads: int) -> list[Any]:
    """The provider asked for, then what it falls back on."""
    engines = Path(ENGINES).expanduser()
    if provider == "XnnpackExecutionProvider":
        return [(provider, {"intra_op_num_threads": str(threads)}), CPU]
    if provider == "TensorrtExecutionProvider":
        engines.mkdir(parents=True, exist_ok=True)
        cache = {"trt_engine_cache_enable": "1", "trt_engine_cache_path": str(engines)}
        return [(provider, cache), "CUDAExecutionProvider", CPU]
    return list(dict.fromkeys((provider, CPU)))


def calls_of(session: Any) -> tuple[Callable[[np.ndarray], Any], Callable[[Any], np.ndarray]]:
    """`prepare` and `run` of a LoadedModel.

    Raises:
        ValueError: the file's input is of a type that cannot be fed.
    """
    name, kind = session.get_inputs()[0].name, session.get_inputs()[0].type
    dtypes = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(uint8)": np.uint8}
    if kind not in dtypes:
        raise ValueError(f"input {name!r} is a {kind}; float, float16 and uint8 inputs are supported")
    output = [session.get_outputs()[0].name]

    def prepare(image: np.ndarray) -> Any:
        return {name: stored(image, dtypes[kind], PIXEL, 0)}

    def run(feed: Any) -> np.ndarray:
        return np.asarray(session.run(output, feed)[0])

    return prepare, run
