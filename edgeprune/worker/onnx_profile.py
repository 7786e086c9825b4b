"""What each operator of an ONNX file takes, by onnxruntime's own profiler."""

from __future__ import annotations

import itertools
import tempfile
from bisect import bisect_left
from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from edgeprune.worker.onnx_session import CPU, calls_of, node_events, open_session

WARM_UP_CALLS = 10
"""Discarded: the first calls fill caches and allocate."""


def profile_onnxruntime(path: str, threads: int, image: np.ndarray, calls: int, provider: str = CPU) -> dict[str, Any]:
    """Profile a file in onnxruntime.

    Args:
        path: the file.
        threads: for the runtime to use.
        image: float32 [1, ...] in the file's layout.
        calls: how many to take the medians of.
        provider: an execution provider.

    Returns:
        version, call_ns (its operators and what is between them) and operators in the order they ran: name, kind, ns,
        place, bytes (of inputs, weights and outputs; weights that were packed before are missing), weights (shape of
        the second input) and shape (of the first output), each median over the calls.

    Raises:
        UnfitError: the provider cannot be had.
    """
    with tempfile.TemporaryDirectory(prefix="edgeprune-") as folder:
        session, version = open_session(path, threads, provider, Path(folder) / "profile")
        prepare, run = calls_of(session)
        feed = prepare(image)
        for _ in range(WARM_UP_CALLS + calls):
            run(feed)
        written = Path(session.end_profiling())
        events, whole = node_events(written), node_events(written, "model_run")
    operators: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for event in events:
        operators[event["args"].get("node_index", ""), event["name"]].append(event)
    found = [_operator(name, its[WARM_UP_CALLS:]) for (_, name), its in operators.items()]
    call_ns = sum(one["ns"] for one in found) + between_ns(whole[WARM_UP_CALLS:], events)
    return {"version": version, "call_ns": call_ns, "operators": found}


def between_ns(calls: list[dict[str, Any]], operators: list[dict[str, Any]]) -> float:
    """What a call takes beside its operators, the median over the calls.

    Taken call by call: the median of whole calls would hold what other programs took from one operator or another,
    which the medians of the operators do not.

    Args:
        calls: events of whole calls.
        operators: events of operators, in the order they ran.
    """
    starts = [int(one["ts"]) for one in operators]
    sums = [0, *itertools.accumulate(int(one["dur"]) for one in operators)]
    rests = []
    for call in calls:
        begin, took = int(call["ts"]), int(call["dur"])
        inside = sums[bisect_left(starts, begin + took)] - sums[bisect_left(starts, begin)]
        rests.append(max(0, took - inside))
    return median(rests) * 1e3


def _operator(name: str, events: list[dict[str, Any]]) -> dict[str, Any]:
    told = events[0]["args"]
    inputs, outputs = (_shapes(told.get(key)) for key in ("input_type_shape", "output_type_shape"))
    sizes = [int(told.get(key) or 0) for key in ("activation_size", "parameter_size", "output_size")]
    return {
        "name": name.removesuffix("_kernel_time"),
        "kind": told["op_name"],
        "ns": _median_ns(events),
        "place": told["provider"],
        "bytes": sum(sizes),
        "weights": inputs[1] if len(inputs) > 1 else [],
        "shape": outputs[0] if outputs else [],
    }


def _shapes(told: list[dict[str, list[int]]] | None) -> list[list[int]]:
    return [next(iter(one.values())) for one in told or [] if one]


def _median_ns(events: list[dict[str, Any]]) -> float:
    """Of events whose durations are in microseconds, without fractions."""
    return median(int(event["dur"]) for event in events) * 1e3
