"""A pass of its own that asks the runtimes what each operator takes, and tells which layer of the model each is."""

from __future__ import annotations

import math
import re
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeprune.artifact import Artifact
from edgeprune.bench.entries import Entry, entries
from edgeprune.bench.intake import failure
from edgeprune.bench.roofline import forbidden
from edgeprune.bench.session import carried, events_of, job_for
from edgeprune.bench.transport import Transport
from edgeprune.bench.work import LayerWork, layers_of, renamed
from edgeprune.profile import OperatorTime, Profile
from edgeprune.progress import Tick, silent

PROFILES_NAME = "profiles.jsonl"
CALLS = 50
"""Of each file and pass, to take the medians of."""
_PASSES = 2  # the worker takes all files once, and once more from the last to the first

_LAYER_KINDS = re.compile(r"conv|gemm|matmul|fully.connected|matrix multiply", re.IGNORECASE)
_NO_LAYER = re.compile(r"^(convert|.*integertofloat)", re.IGNORECASE)
_MOST_PADDING = 16  # channels: what a vector of 512 bits holds


@dataclass(frozen=True)
class Refusal:
    """A file that could not be profiled in a runtime.

    Attributes:
        path: the file.
        runtime: that refused.
        reason: in its own words.
        fix: what to do.
    """

    path: str
    runtime: str
    reason: str
    fix: str


def profile(
    artifacts: Sequence[Artifact],
    run: Path,
    images: np.ndarray,
    threads: int,
    *,
    transport: Transport,
    runtimes: Sequence[str] = (),
    calls: int = CALLS,
    tick: Tick = silent,
) -> tuple[tuple[Profile, ...], tuple[Refusal, ...]]:
    """Profile artifacts, one after another.

    Args:
        artifacts: files in the run folder, all of one input shape.
        run: the run folder.
        images: float32 [k, C, H, W]; the first is used.
        threads: for the runtimes to use.
        transport: the device, entered.
        runtimes: to profile in, those of them that read the artifact; empty for each format's default.
        calls: of each, to take the medians of.
        tick: told of each artifact.

    Returns:
        The profiles, and what could not be profiled.

    Raises:
        DeviceError: the worker cannot be run.
        MissingExtraError: a runtime is not installed on this machine.
    """
    asked = {entry.id: entry for entry in entries(artifacts, runtimes, (threads,))}
    work = _work(artifacts, run)
    told: dict[str, list[Mapping[str, Any]]] = {name: [] for name in asked}
    device: Mapping[str, Any] = {}
    tick(0, _PASSES * len(asked))
    with tempfile.TemporaryDirectory(prefix="edgeprune-") as folder:
        scratch = Path(folder)
        job = job_for(list(asked.values()), run) | {"profile_calls": calls}
        with closing(events_of(transport, carried(job, images[:1], scratch, transport))) as events:
            for event in events:
                if event["event"] == "start":
                    device = event["device"]
                elif event["event"] == "error":
                    raise failure(event, asked, transport.name)
                elif event["event"] == "profile":
                    told[event["entry"]].append(event)
                    tick(sum(map(len, told.values())), _PASSES * len(asked))
    found = [
        _profiled(asked[name], quieter(its), work[asked[name].artifact.path], calls, device)
        for name, its in told.items()
    ]
    profiles = tuple(one for one in found if isinstance(one, Profile))
    return profiles, tuple(one for one in found if isinstance(one, Refusal))


def quieter(passes: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """One answer of several for the same file: for each operator the lowest time, as other programs only add to it.

    The passes are taken as they are where one of them was refused, or they do not have the same operators.
    """
    first = passes[0]
    names = {tuple(one["name"] for one in its.get("operators", ())) for its in passes}
    if len(names) > 1 or "refused" in first:
        return first
    operators = [
        {**same[0], "ns": min(one["ns"] for one in same)}
        for same in zip(*(its["operators"] for its in passes), strict=True)
    ]
    # What is between the operators is taken from the pass that had least of it.
    between = min(its["call_ns"] - sum(one["ns"] for one in its["operators"]) for its in passes)
    return {**first, "call_ns": sum(one["ns"] for one in operators) + max(0.0, between), "operators": operators}


def attributed(operators: Sequence[Mapping[str, Any]], layers: Sequence[LayerWork]) -> tuple[OperatorTime, ...]:
    """Operators as a runtime tells of them, with the layers they are.

    Runtimes name operators after what they fused, so names do not tell. The k-th operator that computes a layer is the
    k-th layer of the file that has its output's shape, where the runtime says one, and its kernel's, where it says
    that, padded channels allowed; without shapes it is the k-th layer if there are equally many. Of layers in parallel
    branches that are alike in all of this, one may stand for the other.

    Args:
        operators: name, kind, ns, place and, where the runtime says them, bytes, shape (of the output) and weights
            (their shape), in the order they ran.
        layers: of the file.
    """
    total = sum(one["ns"] for one in operators) or 1.0
    computing = [at for at, one in enumerate(operators) if _computes(one["kind"])]
    left, matched = list(layers), dict[int, LayerWork]()
    if all(operators[at].get("shape") for at in computing):
        for at in computing:
            layer = next((layer for layer in left if _fits(operators[at], layer)), None)
            if layer:
                left.remove(layer)
                matched[at] = layer
    elif len(computing) == len(layers):
        matched = dict(zip(computing, layers, strict=True))
    return tuple(_operator(one, one["ns"] / total, matched.get(at)) for at, one in enumerate(operators))


def _computes(kind: str) -> bool:
    return bool(_LAYER_KINDS.search(kind)) and not _NO_LAYER.match(kind)


def _fits(operator: Mapping[str, Any], layer: LayerWork) -> bool:
    shape, kernel = operator["shape"], operator.get("weights", [])
    if len(kernel) == len(layer.weights) > 2:  # packed weights, and scales before quantised ones, have fewer axes
        padding = kernel[1] - layer.weights[1]
        if tuple(kernel[2:]) != layer.weights[2:] or not 0 <= padding < _MOST_PADDING:
            return False
    if math.prod(shape) == math.prod(layer.shape):
        return True
    if len(shape) < 3 or len(shape) != len(layer.shape):
        return False
    padding = shape[1] - layer.shape[1]
    return tuple(shape[2:]) == layer.shape[2:] and 0 < padding < _MOST_PADDING


def _operator(told: Mapping[str, Any], share: float, layer: LayerWork | None) -> OperatorTime:
    shape = told.get("shape", [])
    padded = bool(layer) and len(shape) > 2 and math.prod(shape) != math.prod(layer.shape if layer else ())
    return OperatorTime(
        name=told["name"],
        kind=told["kind"],
        ms=told["ns"] / 1e6,
        share=share,
        place=told["place"],
        layer=layer.name if layer else "",
        macs=layer.macs if layer else 0,
        bytes=layer.bytes if layer else told.get("bytes", 0),
        channels=layer.channels if layer else (0, 0),
        widths=shape[1] if padded else layer.channels[1] if layer and shape else 0,
    )


def _work(artifacts: Sequence[Artifact], run: Path) -> dict[str, tuple[LayerWork, ...]]:
    """The layers of each file; those of a TFLite file under the names of the ONNX file of the same role, if there."""
    found = {one.path: layers_of(run / one.path) for one in artifacts}
    named = {one.role: found[one.path] for one in artifacts if one.format == "onnx"}
    return {one.path: renamed(found[one.path], named.get(one.role, ())) for one in artifacts}


def _profiled(
    entry: Entry, event: Mapping[str, Any], layers: Sequence[LayerWork], calls: int, device: Mapping[str, Any]
) -> Profile | Refusal:
    artifact = entry.artifact
    if "refused" in event:
        return Refusal(artifact.path, entry.runtime, event["refused"], event["fix"])
    found = Profile(
        artifact=artifact.sha256,
        path=artifact.path,
        role=artifact.role,
        format=artifact.format,
        precision=artifact.precision,
        runtime=entry.runtime,
        runtime_version=event["version"],
        threads=entry.threads,
        calls=calls,
        call_ms=event["call_ns"] / 1e6,
        operators=attributed(event["operators"], layers),
        device=device,
    )
    said = forbidden(found, artifact.macs)
    return Refusal(artifact.path, entry.runtime, f"physics forbids it: {said}", "Profile again.") if said else found
