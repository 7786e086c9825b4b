"""GraphNetwork: a network that is a graph of ATen operators; it needs no class of the user's."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx, nn

from edgeprune.conditions import holds
from edgeprune.errors import ModelError, TraceError

Result = Any
"""How outputs are given back, as JSON: the name of a node; None, a number or a bool as it is; or one of {"tuple":
[Result, ...]}, {"list": [Result, ...]}, {"dict": {name: Result}}, {"ordered_dict": {name: Result}}."""

CONSTANTS = "_constants"
"""Where a network holds the tensors that the forward pass made itself."""
_COMPUTATION = "its.computation"
"""The attribute that holds it: no part of a user's network is called so, because of the dot."""
_SEQUENCES: dict[str, Callable[..., Any]] = {"tuple": tuple, "list": list}
_MAPPINGS: dict[str, Callable[..., Any]] = {"dict": dict, "ordered_dict": OrderedDict}


@dataclass(frozen=True, eq=False)
class Computation:
    """What a `GraphNetwork` performs.

    Attributes:
        graph: placeholders for stored tensors, constants and inputs, functional ATen operators, and a tuple returned.
        stored: placeholder -> name of the parameter or buffer.
        constants: placeholders of the tensors that the forward pass made itself.
        inputs: placeholders of the inputs, in order.
        result: how the outputs are given back.
        conditions: on the shapes of inputs, see `edgeprune.conditions`: where one is not met, the graph does not stand
            for what was captured.
    """

    graph: fx.Graph
    stored: Mapping[str, str]
    constants: tuple[str, ...]
    inputs: tuple[str, ...]
    result: Result
    conditions: tuple[str, ...]


class GraphNetwork(nn.Module):
    """A network that performs a graph; its parameters and buffers stand under the names that the user gave them.

    The keys of `state_dict` are those of the user's own class. It can be deep-copied, trained and exported.

    Args:
        graph: as in `Computation`; not copied, so not to be changed afterwards.
        stored: placeholder -> name of the parameter or buffer, "layer1.0.conv.weight".
        tensors: name -> parameter or buffer, those that no operator reads included; held, not copied.
        constants: placeholder -> tensor that the forward pass made itself.
        inputs: placeholders of the inputs, in order.
        result: how to give the outputs back.
        unsaved: names of the buffers that `state_dict` leaves out.
        conditions: as in `Computation`.

    Raises:
        ModelError: a part of the network has the name that this class keeps for itself.
    """

    def __init__(
        self,
        graph: fx.Graph,
        stored: Mapping[str, str],
        tensors: Mapping[str, Tensor],
        constants: Mapping[str, Tensor],
        inputs: tuple[str, ...],
        result: Result,
        unsaved: Collection[str] = (),
        conditions: Collection[str] = (),
    ) -> None:
        super().__init__()
        own = {f"{CONSTANTS}.{name}" for name in constants}  # a graph that is cut again has them among its tensors
        if any(name.partition(".")[0] == CONSTANTS and name not in own for name in tensors):
            what = f"the model has a part named {CONSTANTS!r}, where a graph keeps numbers of its own"
            raise ModelError(what, fix="Give that attribute another name.")
        does = Computation(graph, dict(stored), tuple(constants), tuple(inputs), result, tuple(conditions))
        setattr(self, _COMPUTATION, does)
        for name, tensor in tensors.items():
            _hold(self, name, tensor, saved=name not in unsaved)
        for name, tensor in constants.items():
            _hold(self, f"{CONSTANTS}.{name}", tensor, saved=False)
        self.eval()

    def forward(self, image: Tensor, *more: Tensor) -> Any:
        """Perform the operators; returns tensors in the same tuples, lists and dicts as the user's own class does.

        Raises:
            ModelError: the graph does not stand for inputs of these shapes.
        """
        does = computation_of(self)
        graph = does.graph
        known: dict[str, Tensor] = dict(zip(does.inputs, (image, *more), strict=True))
        check_shapes(does, {name: tensor.shape for name, tensor in known.items()})
        known |= {placeholder: _tensor(self, name) for placeholder, name in does.stored.items()}
        known |= constants_of(self)
        start = {node: known[node.name] for node in graph.find_nodes(op="placeholder")}
        values = fx.Interpreter(self, graph=graph).run(initial_env=start)
        returned = graph.output_node().args[0]
        assert isinstance(returned, tuple)
        return give(does.result, dict(zip(map(str, returned), values, strict=True)))


def computation_of(network: GraphNetwork) -> Computation:
    """What a network performs. It is no attribute of its own, because those have the names that the user gave."""
    does: Computation = getattr(network, _COMPUTATION)
    return does


def check_shapes(does: Computation, shapes: Mapping[str, Sequence[int]]) -> None:
    """Refuse inputs that a computation does not stand for.

    Raises:
        ModelError: a condition is not met.
    """
    for condition in does.conditions:
        if not holds(condition, shapes):
            told = ", ".join(f"{name}: {'x'.join(map(str, shape))}" for name, shape in shapes.items())
            raise ModelError(
                f"this network was captured for inputs where {condition}, and is not known for others",
                where=told,
                fix="Capture and cut it again with --input of that size.",
            )


def perform(node: fx.Node, read: Callable[[fx.Node], Any]) -> Any:
    """Perform one operator on the values that `read` gives for the nodes it reads."""
    assert callable(node.target)
    return node.target(*fx.node.map_arg(node.args, read), **fx.node.map_arg(node.kwargs, read))


def constants_of(network: GraphNetwork) -> dict[str, Tensor]:
    """Placeholder -> tensor that the forward pass made itself."""
    return {name: _tensor(network, f"{CONSTANTS}.{name}") for name in computation_of(network).constants}


def result_of(output: Any) -> Result:
    """The `Result` that a forward pass's output is, in which nodes stand for tensors.

    Raises:
        TraceError: an object of another class is in it.
    """
    if isinstance(output, fx.Node):
        return output.name
    if output is None or isinstance(output, int | float):
        return output
    for name, kind in _SEQUENCES.items():
        if type(output) is kind:
            return {name: [result_of(part) for part in output]}
    for name, kind in _MAPPINGS.items():
        if type(output) is kind and all(isinstance(key, str) for key in output):
            return {name: {key: result_of(part) for key, part in output.items()}}
    raise TraceError(
        f"the model returns a {type(output).__name__}, not a tensor, or a tuple, list or dict by name of tensors",
        fix="Wrap the model in one that returns a tuple of tensors.",
    )


def leaves(result: Result) -> list[str]:
    """The names of the nodes in a result, in order."""
    if not isinstance(result, dict):
        return [result] if isinstance(result, str) else []
    ((form, parts),) = result.items()
    if form not in _SEQUENCES and form not in _MAPPINGS:
        raise KeyError(form)
    return [name for part in (parts.values() if isinstance(parts, dict) else parts) for name in leaves(part)]


def give(result: Result, values: Mapping[str, Any]) -> Any:
    """The outputs, given back as `result` says."""
    if isinstance(result, str):
        return values[result]
    if not isinstance(result, dict):
        return result
    ((form, parts),) = result.items()
    if form in _SEQUENCES:
        return _SEQUENCES[form](give(part, values) for part in parts)
    return _MAPPINGS[form]((key, give(part, values)) for key, part in parts.items())


def _hold(module: nn.Module, name: str, tensor: Tensor, *, saved: bool) -> None:
    """Put a tensor under its full name, in plain modules made on the way."""
    path, _, leaf = name.rpartition(".")
    for part in path.split(".") if path else ():
        if part not in module._modules:
            module.add_module(part, nn.Module())
        module = module.get_submodule(part)
    if isinstance(tensor, nn.Parameter):
        module.register_parameter(leaf, tensor)
    else:
        module.register_buffer(leaf, tensor, persistent=saved)


def _tensor(module: nn.Module, name: str) -> Tensor:
    path, _, leaf = name.rpartition(".")
    tensor: Tensor = getattr(module.get_submodule(path), leaf)
    return tensor
