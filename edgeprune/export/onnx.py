"""ONNX: torch's exporter, then onnxsim with its check, then onnx's own checker."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import fx

from edgeprune import __version__
from edgeprune.artifact import Artifact
from edgeprune.errors import EdgepruneError, ExportError
from edgeprune.export.calibration import Calibration
from edgeprune.export.channels_last import flatten_channels_last
from edgeprune.export.graph import export_error, inference_graph
from edgeprune.export.once import made_once
from edgeprune.export.onnx_half import half
from edgeprune.export.onnx_int8 import activations_for, quantised
from edgeprune.export.onnx_opset import OPSET, in_older_opset
from edgeprune.export.onnx_pads import keep_pads_from_max_pools
from edgeprune.export.onnx_pixels import from_pixels
from edgeprune.export.onnx_run import optimised
from edgeprune.export.onnx_store import Stored, laid_out
from edgeprune.export.quiet import quiet
from edgeprune.export.write import Feed, described, require, tools_of, write_artifact
from edgeprune.model import Model
from edgeprune.plan import Cost
from edgeprune.progress import Tick, silent
from edgeprune.registry import unknown
from edgeprune.target import Target
from edgeprune.worker.infer import PIXEL

_STEPS = 5
"""Converted, simplified, in its precision, laid out, checked: what is told of how far an export is."""
BATCHES = ("dynamic", "1")
"""How many images a file takes at once: any number, or one."""


def export_onnx(
    model: Model,
    cost: Cost,
    target: Target,
    precision: str,
    out: Path,
    calibration: Calibration | None = None,
    *,
    fold_preprocessing: bool = False,
    batch: str = "dynamic",
    tick: Tick = silent,
) -> Artifact:
    """Write a model as ONNX: NCHW float32 `input`, `output` (or `output_0`, `output_1` ...), any batch size.

    Weights that are too large for one file go into one beside it, see `edgeprune.export.onnx_store`.

    Args:
        model: what to write; it is not changed.
        cost: of the model, for the manifest.
        target: the board: its processor decides how int8 activations are stored, its runtimes the opset.
        precision: one of `edgeprune.export.PRECISIONS`.
        out: the file, written whole or not at all. The same model and versions give the same bytes.
        calibration: images for int8.
        fold_preprocessing: the input is raw pixels, uint8 NHWC, which the file normalises itself.
        batch: one of `BATCHES`.
        tick: told of each step; of a network of some GB one takes minutes.

    Raises:
        UsageError: another precision, or int8 without images.
        ExportError: an operator has no ONNX form.
        OutputError: the file cannot be written.
    """
    require("onnx", precision, calibration)
    if batch not in BATCHES:
        raise unknown("--onnx-batch", batch, BATCHES)
    opset = target.onnx_opset or OPSET
    convert = partial(_converted, opset=opset, any_batch=batch == "dynamic", tick=tick)
    found = made_once(model, f"onnx {opset} {batch}", convert)
    written, told = _in_precision(found.copied(), precision, target, calibration)
    tick(3, _STEPS)
    entry, layout = Feed("input", "float32"), "NCHW"
    if fold_preprocessing:
        from_pixels(written, model.input)
        entry, layout = Feed("input", "uint8", PIXEL, 0, raw=True), "NHWC"
    ends = entry, Feed(written.graph.output[0].name, "float32")
    _describe(written, model, precision, described(model, ends, layout))
    with laid_out(written, out) as file:
        tick(4, _STEPS)
        _check(file)
        tick(5, _STEPS)
        with quiet():
            run = optimised(file)
        details: dict[str, Any] = {
            "opset": opset,
            "batch": "N" if found.any_batch else 1,
            "nodes_exported": found.nodes_exported,
            "nodes_simplified": len(found.simplified.graph.node),
            "nodes": len(written.graph.node),
            "operators": dict(sorted(Counter(node.op_type for node in written.graph.node).items())),
            **run,
            **told,
            "warnings": [*found.warnings, *told.get("warnings", [])],
        }
        return write_artifact(model, cost, file, out, ("onnx", precision, layout), details, ends)


@dataclass(frozen=True, eq=False)
class _Converted:
    """A model in ONNX fp32, before it is described: what every precision begins with.

    Attributes:
        simplified: a ModelProto, not to be changed.
        any_batch: whether it takes any number of images.
        nodes_exported: before it was simplified.
        warnings: each one sentence.
    """

    simplified: Any
    any_batch: bool
    nodes_exported: int
    warnings: tuple[str, ...]

    def copied(self) -> Any:
        """A ModelProto that may be changed."""
        proto = type(self.simplified)()
        proto.CopyFrom(self.simplified)
        return proto


def _converted(model: Model, opset: int = OPSET, any_batch: bool = True, tick: Tick = silent) -> _Converted:
    asked = any_batch
    graph, any_batch = inference_graph(model.module, model.input.shape, any_batch)
    exported = _convert(graph, model.input.shape, any_batch, opset)
    tick(1, _STEPS)
    nodes = len(exported.graph.node)
    simplified, warnings = _simplify(exported, model.input.shape)
    tick(2, _STEPS)
    fixed = [] if any_batch == asked else ["the model's code fixes the batch size: the file takes one image at a time"]
    return _Converted(simplified, any_batch, nodes, (*warnings, *fixed))


def one_image_onnx(model: Model) -> bytes:
    """The bare network in ONNX fp32 for one image, as TensorFlow is given it: flattened channels last.

    Raises:
        ExportError: an operator has no ONNX form.
    """
    graph, _ = inference_graph(model.module, model.input.shape, any_batch=False)
    exported = _convert(flatten_channels_last(graph), model.input.shape, any_batch=False)
    content: bytes = _simplify(exported, model.input.shape)[0].SerializeToString(deterministic=True)
    return content


def named_weights(model: Model) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """Names and shapes of a model's weights, in the order they are computed with; a name without ".weight".

    Raises:
        ExportError: an operator has no ONNX form.
    """
    graph = made_once(model, f"onnx {OPSET} {BATCHES[0]}", _converted).simplified.graph
    stored = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    used = dict.fromkeys(name for node in graph.node for name in node.input if len(stored.get(name, ())) > 1)
    return tuple((name.removesuffix(".weight"), stored[name]) for name in used)


def _in_precision(
    proto: Any, precision: str, target: Target, calibration: Calibration | None
) -> tuple[Any, dict[str, Any]]:
    """The model in another precision, and what to tell of it."""
    if precision == "fp32":
        return proto, {}
    with quiet() as said:
        try:
            if precision == "fp16":
                short, warnings = half(proto)
                return short, {"warnings": warnings}
            assert calibration is not None
            stepped, told = quantised(proto, calibration, activations_for(target))
            _forget_origin(stepped)
            settled: dict[str, Any] = {key: told.pop(key) for key in ("mixed", "race") if key in told}
            return stepped, {"quantisation": told, **settled}
        except (OSError, EdgepruneError):  # the disk is told of by who writes
            raise
        except Exception as error:  # the converters raise many unrelated classes
            what = f"the ONNX model cannot be written in {precision}"
            raise export_error(what, error, said=said.text()) from error


def _convert(graph: fx.GraphModule, shape: tuple[int, int, int], any_batch: bool, opset: int = OPSET) -> Any:
    """The ModelProto that torch's exporter makes of a graph, without its stack traces, zeros before maxima kept."""
    proto = _exported(graph, shape, any_batch, opset)
    _forget_origin(proto)
    keep_pads_from_max_pools(proto.graph)
    return proto


def _exported(graph: fx.GraphModule, shape: tuple[int, int, int], any_batch: bool, opset: int) -> Any:
    """As torch's exporter leaves it."""
    image = torch.zeros(1, *shape)
    names = _output_names(graph)
    with quiet() as said, torch.no_grad():
        try:
            if opset < OPSET:
                return in_older_opset(graph, shape, opset, names, any_batch)
            program = torch.onnx.export(
                graph,
                (image,),
                dynamo=True,
                opset_version=opset,
                external_data=False,
                input_names=["input"],
                output_names=names,
                dynamic_shapes=({0: "N"},) if any_batch else None,
                verbose=False,
            )
            assert program is not None
            return program.model_proto
        except Exception as error:  # the exporter raises many unrelated classes
            what = f"the model cannot be written as ONNX, opset {opset}"
            raise export_error(what, error, graph.graph, said.text()) from error


def _output_names(graph: fx.GraphModule) -> list[str]:
    leaves = torch.utils._pytree.tree_leaves(graph.graph.output_node().args[0])
    return ["output"] if len(leaves) == 1 else [f"output_{place}" for place in range(len(leaves))]


def _forget_origin(proto: Any) -> None:
    """Remove the stack traces that torch leaves at every node: they hold paths of this machine."""

    def clear(items: Iterable[Any]) -> None:
        for item in items:
            item.ClearField("metadata_props")
            item.ClearField("doc_string")

    clear([proto, proto.graph, *proto.functions])
    for graph in (proto.graph, *proto.functions):
        clear([*graph.node, *graph.value_info])
        for node in graph.node:
            for attribute in node.attribute:
                for inner in (attribute.g, *attribute.graphs):
                    clear([inner, *inner.node, *inner.value_info]) if inner.node else None
    clear([*proto.graph.input, *proto.graph.output, *proto.graph.initializer])


def _simplify(proto: Any, shape: tuple[int, int, int]) -> tuple[Any, list[str]]:
    """The model simplified, or as it was with a warning where onnxsim fails its own check."""
    with quiet():
        import onnxsim

        try:
            simplified, same = onnxsim.simplify(proto, check_n=1, test_input_shapes={"input": [1, *shape]})
        except Exception as error:  # not worth losing a good file over: the parity check judges it
            return proto, [f"onnxsim failed, the file is not simplified: {type(error).__name__}"]
    return (simplified, []) if same else (proto, ["onnxsim changed the outputs, the file is not simplified"])


def _describe(proto: Any, model: Model, precision: str, told: Mapping[str, Any]) -> None:
    """Put into the file what a program on the board must know to feed it."""
    from onnx import helper

    # The file format's version that goes with the opset (onnx/docs/Versioning.md), 8 with opset 18: torch writes 10,
    # which ONNX Runtime 1.16, the newest for old aarch64 systems, refuses, though nothing in the file needs it.
    proto.ir_version = helper.find_min_ir_version_for(proto.opset_import, ignore_unknown=True)
    proto.producer_name, proto.producer_version = "edgeprune", __version__
    facts = {
        "model": model.name,
        "precision": precision,
        "plan_fingerprint": model.plans[-1] if model.plans else "",
        "input_layout": told["input"]["layout"],
        "input_mean": json.dumps(told["input"]["mean"]),
        "input_std": json.dumps(told["input"]["std"]),
        **{key: json.dumps(value) for key, value in told.items()},
        "tools": json.dumps(tools_of("onnx")),
    }
    for key, value in facts.items():
        proto.metadata_props.add(key=key, value=value)


def _check(file: Stored) -> None:
    import onnx

    try:
        onnx.checker.check_model(file, full_check=True)
    except onnx.checker.ValidationError as error:
        raise export_error("the ONNX checker refuses the written model", error) from error
    except (ValueError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(
            "the model does not make a valid ONNX file",
            where=str(error)[:300],
            fix="Please report the model.",
        ) from error
