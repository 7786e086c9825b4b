"""Program: a model as the list of tensor operators it performs.

The operators come from `torch.export` (functional ATen, nothing decomposed), so what is seen here is what is exported
to ONNX, and a network that can be exported can be traced. Stored tensors are looked up in the module by name each time
they are used: changing a weight of the module changes what the next operator computes.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping
from contextlib import redirect_stderr
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export.graph_signature import OutputKind
from torch.fx.node import map_arg

from edgeprune.errors import TraceError
from edgeprune.resize import all_tensors

Shape = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Program:
    """A model's forward pass as a graph.

    Attributes:
        graph: functional ATen operators in the order they run.
        stored: graph placeholder -> name of the module's parameter or buffer.
        constants: graph placeholder -> tensor that the forward pass made itself.
        input: the placeholder of the images (exactly one).
        shapes: node -> shape of its (first) tensor for a batch of `batch` images; a node without a tensor is absent.
        batch: the batch size of `shapes`.
        any_batch: whether other batch sizes may be run.
    """

    graph: fx.Graph
    stored: Mapping[str, str]
    constants: Mapping[str, Tensor]
    input: str
    shapes: Mapping[str, Shape]
    batch: int
    any_batch: bool

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
        """Node name -> its place in `nodes`; the images come before all of them, at -1."""
        return {self.input: -1, **{node.name: place for place, node in enumerate(self.nodes)}}

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
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    path = stack[-1][0] if stack else ""
    return path if path and not path.startswith("_") else node.name


def operator_of(node: fx.Node) -> str:
    """The operator's plain name: "conv2d", "add", "view"."""
    target = node.target
    return (
        target._schema.name.removeprefix("aten::")
        if isinstance(target, torch._ops.OpOverload)
        else str(getattr(target, "__name__", target))
    )


def capture(module: nn.Module, shape: Shape, batch: int = 2) -> Program:
    """Trace a module in eval mode for images of `shape` (channels, height, width).

    Any batch size is allowed for where the model's own code allows it.

    Raises:
        TraceError: `torch.export` cannot follow the model; the message is its own.
    """
    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    # Values are of no matter to the graph, but a constant image hides nothing from a model that divides by its range.
    images = torch.linspace(-1, 1, batch * torch.Size(shape).numel(), device=device).reshape(batch, *shape)
    exported, any_batch = _export(module, images)
    signature = exported.graph_signature
    constants = {name: exported.constants[key] for name, key in signature.inputs_to_lifted_tensor_constants.items()}
    if len(signature.user_inputs) != 1:
        raise TraceError(f"the model takes {len(signature.user_inputs)} inputs, only one image tensor is supported")
    program = Program(
        graph=_graph(exported),
        stored=_first_names({**signature.inputs_to_parameters, **signature.inputs_to_buffers}, all_tensors(module)),
        constants={name: value for name, value in constants.items() if isinstance(value, Tensor)},
        input=str(signature.user_inputs[0]),
        shapes={},
        batch=batch,
        any_batch=any_batch,
    )
    return Program(**{**program.__dict__, "shapes": _shapes(program, module, images)})


def _export(module: nn.Module, images: Tensor) -> tuple[torch.export.ExportedProgram, bool]:
    dynamic = ({0: torch.export.Dim.DYNAMIC},)
    # On failure torch prints the whole graph on stderr, past any warning filter or log level.
    with warnings.catch_warnings(), redirect_stderr(io.StringIO()), torch.no_grad():
        warnings.simplefilter("ignore")
        try:
            return torch.export.export(module, (images,), dynamic_shapes=dynamic).run_decompositions({}), True
        except Exception:  # torch.export raises many unrelated classes; the second try tells what is really wrong
            pass
        try:
            # A copy, because the first try has marked the images as having any batch size.
            return torch.export.export(module, (images.clone(),)).run_decompositions({}), False
        except Exception as error:
            raise TraceError(
                "the model cannot be traced by torch.export",
                where=_first_lines(error),
                fix="Rewrite the named line so that it does not depend on the values of tensors.",
            ) from error


def _graph(exported: torch.export.ExportedProgram) -> fx.Graph:
    """The graph, giving what the model returns; export lets it also give the buffers that the forward pass wrote."""
    graph: fx.Graph = exported.graph
    given = graph.output_node().args[0]
    assert isinstance(given, list | tuple)
    pairs = zip(given, exported.graph_signature.output_specs, strict=True)
    results = tuple(value for value, spec in pairs if spec.kind is OutputKind.USER_OUTPUT)
    graph.output_node().args = (results,)
    for node in graph.nodes:
        if node.target is torch.ops.aten.view.default:  # the same, and does not mind how the memory is laid out
            node.target = torch.ops.aten.reshape.default
    return graph


def _first_names(stored: Mapping[str, str], state: Mapping[str, Tensor]) -> dict[str, str]:
    """The same table, with one name for a tensor that the module holds under several."""
    first: dict[int, str] = {}
    for name, tensor in state.items():
        first.setdefault(id(tensor), name)
    return {placeholder: first[id(state[name])] for placeholder, name in stored.items()}


def _first_lines(error: Exception) -> str:
    """The cause as torch tells it, and the last line of the user's code that it names."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    places = [line for line in lines if line.startswith('File "') and "/torch/" not in line]
    return "\n".join([f"{type(error).__name__}: {lines[0] if lines else ''}", *places[-1:]])


def _shapes(program: Program, module: nn.Module, images: Tensor) -> dict[str, Shape]:
    """The shape of every value, found by running the program once."""
    values: dict[str, Any] = {program.input: images}
    state = all_tensors(module)
    shapes: dict[str, Shape] = {program.input: tuple(images.shape)}
    for name, tensor in program.stored.items():
        shapes[name] = tuple(state[tensor].shape)
    for name, constant in program.constants.items():
        shapes[name] = tuple(constant.shape)
    for place, node in enumerate(program.nodes):
        value = values[node.name] = run_node(program, node, values, state)
        first = value[0] if isinstance(value, tuple | list) and value else value
        if isinstance(first, Tensor):
            shapes[node.name] = tuple(first.shape)
        forget(program, values, place)
    return shapes


def run_node(program: Program, node: fx.Node, values: Mapping[str, Any], state: Mapping[str, Tensor]) -> Any:
    """Perform one operator on the values it reads."""

    def read(argument: fx.Node) -> Any:
        if argument.name in program.stored:
            return state[program.stored[argument.name]]
        return program.constants[argument.name] if argument.name in program.constants else values[argument.name]

    arguments = map_arg(node.args, read)
    named = map_arg(node.kwargs, read)
    assert callable(node.target)
    with torch.no_grad():
        return node.target(*arguments, **named)


def forget(program: Program, values: dict[str, Any], place: int) -> None:
    """Drop the values no later operator reads."""
    for name in [name for name in values if program.last_use[name] <= place]:
        del values[name]
