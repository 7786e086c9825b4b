"""Program: a model as the list of tensor operators it performs.

The operators come from `torch.export` (functional ATen, nothing decomposed), so what is seen here is what is exported
to ONNX, and a network that can be exported can be traced. Stored tensors are looked up in the module by name each time
they are used: changing a weight of the module changes what the next operator computes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_arg

from edgeprune.errors import TraceError
from edgeprune.exported import BATCH, BATCH_AND_SIZE, export, run_shapes, takes_other_sizes
from edgeprune.graph import GraphNetwork, Result, check_shapes, computation_of, constants_of, perform
from edgeprune.resize import all_tensors

Shape = tuple[int, ...]
_WHOLE = frozenset({torch.int64, torch.int32})


@dataclass(frozen=True, eq=False)
class Program:
    """A model's forward pass as a graph.

    Attributes:
        graph: functional ATen operators in the order they run.
        stored: graph placeholder -> name of the module's parameter or buffer.
        constants: graph placeholder -> tensor that the forward pass made itself.
        places: graph placeholder -> stored whole numbers that code may count channels by, [n]: none that it writes.
        inputs: the placeholders of the inputs, in order.
        result: the structure in which the model returns its outputs, with names of nodes at its leaves.
        shapes: node -> shape of its (first) tensor for a batch of `batch` images; a node without a tensor is absent.
        batch: the batch size of `shapes`.
        any_batch: whether other batch sizes may be run.
        conditions: on the shapes of inputs for which the graph stands, see `edgeprune.conditions`.
        any_size: whether images of another height and width may be run; False also where that was not tried.
    """

    graph: fx.Graph
    stored: Mapping[str, str]
    constants: Mapping[str, Tensor]
    inputs: tuple[str, ...]
    result: Result
    shapes: Mapping[str, Shape]
    batch: int
    any_batch: bool
    any_size: bool = False
    conditions: tuple[str, ...] = ()
    places: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def input(self) -> str:
        """The placeholder of the (first) images."""
        return self.inputs[0]

    @cached_property
    def nodes(self) -> tuple[fx.Node, ...]:
        """The operators, in the order they run."""
        return tuple(node for node in self.graph.nodes if node.op == "call_function")

    @cached_property
    def outputs(self) -> tuple[fx.Node, ...]:
        """The nodes whose values the model returns."""
        found: list[fx.Node] = []
        map_arg(self.graph.output_node().args[0], found.append)
        return tuple(found)

    @cached_property
    def position(self) -> Mapping[str, int]:
        """Node name -> its place in `nodes`; the inputs come before all of them, at -1."""
        return {**dict.fromkeys(self.inputs, -1), **{node.name: place for place, node in enumerate(self.nodes)}}

    @cached_property
    def last_use(self) -> Mapping[str, int]:
        """Node name -> place of the last operator that reads it (after the end for outputs)."""
        last = {node.name: len(self.nodes) for node in self.outputs}
        for node in self.graph.nodes:
            places = [self.position[user.name] for user in node.users if user.name in self.position]
            last[node.name] = max([last.get(node.name, -1), *places])
        return last

    @cached_property
    def alive_bytes(self) -> tuple[int, ...]:
        """For each operator, the bytes of fp32 values still needed right after it, for one image."""
        alive = self.image_bytes(self.input)
        sizes: list[int] = []
        ending: dict[int, int] = {}
        ending[self.last_use[self.input]] = alive
        for place, node in enumerate(self.nodes):
            size = self.image_bytes(node.name)
            last = max(self.last_use[node.name], place)
            ending[last] = ending.get(last, 0) + size
            alive += size - ending.get(place, 0)
            sizes.append(alive)
        return tuple(sizes)

    @cached_property
    def peak_bytes(self) -> int:
        """The most bytes of fp32 values alive at once for one image: read, written, or waiting for later."""
        before = (self.image_bytes(self.input), *self.alive_bytes)
        return max(
            (kept + self.image_bytes(node.name) for kept, node in zip(before, self.nodes, strict=False)),
            default=before[0],
        )

    def image_bytes(self, name: str) -> int:
        """Bytes of a node's fp32 value for one image."""
        shape = self.shapes.get(name, ())
        return 4 * torch.Size(shape).numel() // self.batch if shape else 0


def layer_of(node: fx.Node) -> str:
    """The module path a node comes from, "features.3.conv"; the node's own name where there is none."""
    path, _ = module_of(node)
    return path if path and not path.startswith("_") else node.name


def module_of(node: fx.Node) -> tuple[str, str]:
    """(path, class with its package) of the innermost module a node comes from; both empty where it comes from none."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    path, kind = stack[-1] if stack else ("", "")
    return path, kind if isinstance(kind, str) else f"{kind.__module__}.{kind.__name__}"


def operator_of(node: fx.Node) -> str:
    """The operator's plain name: "conv2d", "add", "view"."""
    target = node.target
    return (
        target._schema.name.removeprefix("aten::")
        if isinstance(target, torch._ops.OpOverload)
        else str(getattr(target, "__name__", target))
    )


def capture(module: nn.Module, shape: Shape | Sequence[Shape], batch: int = 2, *, any_size: bool = False) -> Program:
    """Trace a module in eval mode; the module is not changed.

    Any batch size is allowed for where the model's own code allows it.

    Args:
        module: in eval mode, in float32.
        shape: of one image (channels, height, width), or a sequence with the shape of each input.
        batch: how many images to trace with.
        any_size: whether to allow for images of any height and width, too, where the model's own code does.

    Raises:
        TraceError: the model is of a kind that cannot be traced, or `torch.export` cannot follow it; the message is
            its own.
    """
    shapes: Any = [shape] if isinstance(shape[0], int) else shape
    if isinstance(module, GraphNetwork):
        return _own_program(module, shapes, batch, any_size=any_size)
    found = export(module, tuple(_example((batch, *one), module) for one in shapes), any_size=any_size)
    state = all_tensors(module)
    return Program(
        graph=found.graph,
        stored=_first_names(found.stored, state),
        constants=found.constants,
        inputs=found.inputs,
        result=found.result,
        shapes=found.shapes,
        batch=batch,
        any_batch=0 in found.free,
        any_size=2 in found.free,
        conditions=found.conditions,
        places=_places({name: state[tensor] for name, tensor in found.stored.items() if tensor not in found.written}),
    )


def _places(stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: one.detach().clone() for name, one in stored.items() if one.ndim == 1 and one.dtype in _WHOLE}


def may_take_any_size(program: Program) -> bool:
    """Whether it is worth while to capture the same model for images of any size.

    Not where positions are padded with a constant: the amounts may be calculated from the size at every layer ("same"
    padding, as TensorFlow counts it), and the expressions that torch.export then carries along take minutes to compare.
    """
    pads: list[Any] = [
        node.args[1]
        for node in program.nodes
        if operator_of(node) == "constant_pad_nd"
        or (operator_of(node) == "pad" and (*node.args, "constant", "constant")[2] == "constant")
        if not module_of(node)[1].startswith("torch.nn.modules.padding.")  # whose amounts are fixed
    ]
    return not any(amount != 0 for amounts in pads for amount in amounts[:4])


def _example(shape: Shape, module: nn.Module) -> Tensor:
    """Values are of no matter to the graph, but a model may divide by their range."""
    device = next((parameter.device for parameter in module.parameters()), torch.device("cpu"))
    return torch.linspace(-1, 1, torch.Size(shape).numel(), device=device).reshape(shape)


def network_of(program: Program, module: nn.Module, graph: fx.Graph | None = None) -> GraphNetwork:
    """A network that performs a program, with the tensors of the module that the program is of: the same, not copies.

    Args:
        program: of `module`.
        module: its parameters and buffers keep their names.
        graph: performed in place of the program's own; with the same placeholders, returning nodes of the same names.
    """
    saved, tensors = module.state_dict(keep_vars=True), all_tensors(module)
    return GraphNetwork(
        graph=graph or program.graph,
        stored=program.stored,
        tensors=tensors,
        constants=program.constants,
        inputs=program.inputs,
        result=program.result,
        unsaved=tensors.keys() - saved.keys(),
        conditions=program.conditions,
    )


def _own_program(network: GraphNetwork, shapes: Sequence[Shape], batch: int, *, any_size: bool) -> Program:
    """The program that a network is: its own graph, not traced again."""
    does, constants, state = computation_of(network), constants_of(network), all_tensors(network)
    known = {name: state[tensor] for name, tensor in does.stored.items()} | constants
    try:
        images = {name: (batch, *shape) for name, shape in zip(does.inputs, shapes, strict=True)}
        check_shapes(does, images)
        found = run_shapes(does.graph, known, images)
    except Exception as error:  # operators raise many unrelated classes
        sizes = ", ".join("x".join(map(str, shape)) for shape in shapes)
        raise TraceError(
            f"the network does not take inputs of {sizes}",
            where=f"{type(error).__name__}: {str(error).partition(chr(10))[0]}",
            fix=f"It takes {len(does.inputs)}; pass the shape of each, without the batch.",
        ) from error
    return Program(
        graph=does.graph,
        stored=does.stored,
        constants=constants,
        inputs=does.inputs,
        result=does.result,
        shapes=found,
        batch=batch,
        any_batch=takes_other_sizes(does.graph, known, images, BATCH),
        any_size=any_size and takes_other_sizes(does.graph, known, images, BATCH_AND_SIZE),
        conditions=does.conditions,
        places=_places({name: known[name] for name in does.stored}),
    )


def _first_names(stored: Mapping[str, str], state: Mapping[str, Tensor]) -> dict[str, str]:
    """The same table, with one name for a tensor that the module holds under several."""
    first: dict[int, str] = {}
    for name, tensor in state.items():
        first.setdefault(id(tensor), name)
    return {placeholder: first[id(state[name])] for placeholder, name in stored.items()}


def run_node(
    program: Program, node: fx.Node, values: Mapping[str, Any], state: Mapping[str, Tensor], *, gradients: bool = False
) -> Any:
    """Perform one operator on the values it reads."""

    def read(argument: fx.Node) -> Any:
        if argument.name in program.stored:
            return state[program.stored[argument.name]]
        return program.constants[argument.name] if argument.name in program.constants else values[argument.name]

    with torch.set_grad_enabled(gradients):
        return perform(node, read)


def forget(program: Program, values: dict[str, Any], place: int) -> None:
    """Drop the values no later operator reads."""
    for name in [name for name in values if program.last_use[name] <= place]:
        del values[name]
