"""A GraphNetwork as JSON, but for the numbers in its tensors. Reading one runs no code from the file."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from edgeprune.conditions import understood
from edgeprune.errors import ModelError
from edgeprune.graph import CONSTANTS, GraphNetwork, computation_of, leaves
from edgeprune.resize import all_tensors

_FUNCTIONS: dict[str, Callable[..., Any]] = {
    f"{module.__name__}.{name}": getattr(module, name)
    for module, names in (
        (operator, "getitem add sub mul truediv floordiv mod pow neg eq ne lt le gt ge and_ or_ not_"),
        (math, "ceil floor trunc"),
        (torch, "sym_max sym_min sym_int sym_float sym_not sym_ite sym_sum"),
    )
    for name in names.split()
}
"""What a graph may hold beside ATen operators: arithmetic on sizes, and the choice of one of several outputs."""
_FUNCTION_NAMES = {function: name for name, function in _FUNCTIONS.items()}
_FILE_OPERATORS = frozenset({"aten::from_file", "aten::save"})
_TYPES: dict[str, type] = {"dtype": torch.dtype, "layout": torch.layout, "memory_format": torch.memory_format}
"""Arguments of operators that are written as their name in torch."""


def to_json(network: GraphNetwork) -> dict[str, Any]:
    """All of a network but the numbers in its tensors.

    Raises:
        ModelError: the graph holds an operator that is not ATen's.
    """
    does, saved = computation_of(network), network.state_dict().keys()
    return {
        "inputs": list(does.inputs),
        "stored": dict(does.stored),
        "constants": list(does.constants),
        "nodes": [_node_to_json(node) for node in does.graph.nodes if node.op == "call_function"],
        "result": does.result,
        "conditions": list(does.conditions),
        "tensors": {name: _tensor_to_json(tensor, name in saved) for name, tensor in all_tensors(network).items()},
    }


def from_json(document: Mapping[str, Any]) -> GraphNetwork:
    """The network that `to_json` wrote, with tensors that hold no numbers: `edgeprune.resize.with_tensors` gives them.

    Until then they are on torch's "meta" device. Only functional ATen operators that open no file are taken.

    Raises:
        ModelError: there is an operator that is not taken, or the document is not whole.
    """
    try:
        tensors = {name: _tensor_from_json(told) for name, told in document["tensors"].items()}
        graph, nodes = fx.Graph(), {}
        for name in (*document["stored"], *document["constants"], *document["inputs"]):
            nodes[name] = _named(graph.placeholder(name), name)
        for told in document["nodes"]:
            nodes[told["name"]] = _node_from_json(graph, told, nodes)
        graph.output(tuple(nodes[name] for name in dict.fromkeys(leaves(document["result"]))))
        prefix = f"{CONSTANTS}."
        conditions = [condition for condition in document["conditions"] if understood(condition, document["inputs"])]
        if conditions != document["conditions"]:
            raise ValueError("a condition on the shapes of inputs cannot be read")
        return GraphNetwork(
            graph=graph,
            stored=document["stored"],
            tensors={name: tensor for name, tensor in tensors.items() if not name.startswith(prefix)},
            constants={name: tensors[prefix + name] for name in document["constants"]},
            inputs=tuple(document["inputs"]),
            result=document["result"],
            unsaved={name for name, told in document["tensors"].items() if told["kind"] == "unsaved buffer"},
            conditions=conditions,
        )
    except (KeyError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        raise ModelError(f"the saved graph is not whole: {type(error).__name__}: {error}") from error


def _node_to_json(node: fx.Node) -> dict[str, Any]:
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    path, kind = stack[-1] if stack else ("", "")
    return {
        "name": node.name,
        "target": _target_name(node.target),
        "layer": [path, kind if isinstance(kind, str) else kind.__name__],
        "args": [_argument_to_json(argument) for argument in node.args],
        "kwargs": {name: _argument_to_json(argument) for name, argument in node.kwargs.items()},
    }


def _node_from_json(graph: fx.Graph, told: Mapping[str, Any], nodes: Mapping[str, fx.Node]) -> fx.Node:
    args = tuple(_argument_from_json(argument, nodes) for argument in told["args"])
    kwargs = {name: _argument_from_json(argument, nodes) for name, argument in told["kwargs"].items()}
    node = graph.create_node("call_function", _target(told["target"]), args, kwargs, name=told["name"])
    path, kind = told["layer"]
    if kind:
        node.meta["nn_module_stack"] = {path: (str(path), str(kind))}
    return _named(node, told["name"])


def _named(node: fx.Node, name: str) -> fx.Node:
    if node.name != name:
        raise ValueError(f"{name!r} is there twice, or is not a name")
    return node


def _target_name(target: Any) -> str:
    name = _FUNCTION_NAMES.get(target, str(target))
    _target(name)
    return name


def _target(name: str) -> Callable[..., Any]:
    """The function of that name, if a graph may hold it."""
    if name in _FUNCTIONS:
        return _FUNCTIONS[name]
    parts = name.split(".")
    found = getattr(getattr(torch.ops.aten, parts[1], None), parts[2], None) if _is_aten(parts) else None
    if not isinstance(found, torch._ops.OpOverload):
        fix = "Only ATen operators can be saved without code; leave this one out of the network."
        raise ModelError(f"operator {name} is not one of ATen's", fix=fix)
    if found._schema.is_mutable or found._schema.name in _FILE_OPERATORS:
        raise ModelError(f"operator {name} changes what it reads, or opens a file")
    return found


def _is_aten(parts: Sequence[str]) -> bool:
    """Whether a name in parts is "aten", an operator and one of its overloads."""
    return len(parts) == 3 and parts[0] == "aten" and all(parts)


def _argument_to_json(argument: Any) -> Any:
    if isinstance(argument, fx.Node):
        return {"node": argument.name}
    if isinstance(argument, list | tuple):
        return [_argument_to_json(part) for part in argument]
    if isinstance(argument, float) and not math.isfinite(argument):
        return {"float": str(argument)}
    if isinstance(argument, torch.device):
        return {"device": str(argument)}
    for name, kind in _TYPES.items():
        if isinstance(argument, kind):
            return {name: str(argument).removeprefix("torch.")}
    if argument is None or isinstance(argument, bool | int | float | str):
        return argument
    raise ModelError(f"an operator's argument cannot be saved: {argument!r}")


def _argument_from_json(told: Any, nodes: Mapping[str, fx.Node]) -> Any:
    if isinstance(told, list):
        return [_argument_from_json(part, nodes) for part in told]
    if not isinstance(told, dict):
        return told
    ((kind, name),) = told.items()
    if kind == "node":
        return nodes[name]
    if kind == "device":
        return torch.device(name)
    return float(name) if kind == "float" else _of_type(_TYPES[kind], name)


def _of_type(kind: type, name: str) -> Any:
    found = getattr(torch, name)
    if not isinstance(found, kind):
        raise TypeError(f"torch.{name} is not a {kind.__name__}")
    return found


def _tensor_to_json(tensor: Tensor, saved: bool) -> dict[str, Any]:
    if isinstance(tensor, nn.Parameter):
        kind = "parameter" if tensor.requires_grad else "frozen parameter"
    else:
        kind = "buffer" if saved else "unsaved buffer"
    return {"shape": list(tensor.shape), "dtype": str(tensor.dtype).removeprefix("torch."), "kind": kind}


def _tensor_from_json(told: Mapping[str, Any]) -> Tensor:
    empty = torch.empty(told["shape"], dtype=_of_type(torch.dtype, told["dtype"]), device="meta")
    if told["kind"] in ("parameter", "frozen parameter"):
        return nn.Parameter(empty, requires_grad=told["kind"] == "parameter")
    return empty
