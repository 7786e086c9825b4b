"""What `torch.export` finds a module to do, as a graph of functional ATen operators."""

from __future__ import annotations

import copy
import io
import logging
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._subclasses import FakeTensorMode
from torch.export import Dim, ExportedProgram
from torch.export.graph_signature import OutputKind
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode
from torch.utils import _pytree as pytree

from edgeprune.conditions import from_guard, understood
from edgeprune.errors import TraceError
from edgeprune.functional import DROPOUTS, functional
from edgeprune.graph import Result, result_of
from edgeprune.resize import all_tensors
from edgeprune.traceable import check_traceable

BATCH, BATCH_AND_SIZE = (0,), (0, 2, 3)
"""Axes of images that may have any length."""
_OWN_NAMES = frozenset(dir(fx.GraphModule(nn.Module(), fx.Graph()))) - frozenset(dir(nn.Module()))
"""What torch's graphs call their own parts: a module may not have parts of these names where they meet."""

_CHOOSE = "Rewrite the named line so that it does not depend on the values of tensors, for example with torch.where."
_SIMPLIFY = "Does the model itself run on such images? If it does, rewrite the named line with plain torch operators."


@dataclass(frozen=True, eq=False)
class Exported:
    """A forward pass.

    Attributes:
        graph: placeholders, functional ATen operators, a tuple returned; nodes know their module and line of code.
        stored: placeholder -> name of the parameter or buffer.
        constants: placeholder -> tensor that the forward pass made itself.
        written: names of the buffers that the forward pass writes.
        inputs: placeholders of the inputs.
        result: how the outputs are given back.
        shapes: node -> shape of its (first) tensor for the example; a node without a tensor is absent.
        free: the axes of images that may have any length: (), (0,) or (0, 2, 3).
        conditions: on the shapes of inputs for which the graph stands, see `edgeprune.conditions`.
    """

    graph: fx.Graph
    stored: Mapping[str, str]
    constants: Mapping[str, Tensor]
    written: frozenset[str]
    inputs: tuple[str, ...]
    result: Result
    shapes: Mapping[str, tuple[int, ...]]
    free: tuple[int, ...]
    conditions: tuple[str, ...]


def export(module: nn.Module, images: tuple[Tensor, ...], *, any_size: bool) -> Exported:
    """Export a module, which is not changed, for any number of images where its own code allows it.

    Args:
        module: in eval mode.
        images: an example of each input.
        any_size: whether to try for images of any height and width, too.

    Raises:
        TraceError: the module is of a kind that cannot be exported, or `torch.export` cannot follow it.
    """
    check_traceable(module)
    failure: Exception | None = None
    for free in (BATCH_AND_SIZE, BATCH, ()) if any_size else (BATCH, ()):
        try:
            with _quiet(), torch.no_grad():
                found = _export(_twin(module), tuple(image.clone() for image in images), free)
        except TraceError:
            raise
        except Exception as error:  # torch.export raises many unrelated classes; the last try tells what is wrong
            failure = error
            continue
        if not free or _takes_other_sizes(found, all_tensors(module), images):
            return found
    assert failure is not None
    raise TraceError(
        "the model cannot be traced by torch.export",
        where=_told(failure),
        fix=_CHOOSE if "data-dependent" in str(failure) else _SIMPLIFY,
    ) from failure


def run_shapes(graph: fx.Graph, known: Mapping[str, Tensor], images: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """The shape of every node's (first) tensor, found by running the graph on tensors without numbers.

    Args:
        graph: what to run.
        known: placeholder -> stored tensor or constant.
        images: placeholder -> shape of the input.

    Raises:
        Exception: whatever an operator raises at such a shape.
    """
    shapes: dict[str, Any] = {}

    class Noting(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            value = super().run_node(n)
            if n.op != "output":
                _note_shape(shapes, n.name, value)
            return value

    device = next((tensor.device for tensor in known.values()), torch.device("cpu"))
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        values = {**known, **{name: torch.empty(shape, device=device) for name, shape in images.items()}}
        placeholders = graph.find_nodes(op="placeholder")
        Noting(nn.Module(), graph=graph).run(*(values[node.name] for node in placeholders))
    return shapes


def takes_other_sizes(
    graph: fx.Graph, known: Mapping[str, Tensor], images: Mapping[str, tuple[int, ...]], free: tuple[int, ...]
) -> bool:
    """Whether a graph can run at other lengths of the free axes: a view may have the example's written into it.

    Args:
        graph: what to run.
        known: placeholder -> stored tensor or constant.
        images: placeholder -> shape of the input in the example.
        free: `BATCH` (tried with one image more) or `BATCH_AND_SIZE` (with twice the height and width, too).
    """
    complaints = logging.getLogger("torch._subclasses.fake_tensor")
    level = complaints.level
    complaints.setLevel(logging.CRITICAL)  # that it fails is an answer, not an error
    try:
        run_shapes(graph, known, {name: _other(shape, free) for name, shape in images.items()})
    except Exception:  # operators raise many unrelated classes
        return False
    finally:
        complaints.setLevel(level)
    return True


def _other(shape: tuple[int, ...], free: tuple[int, ...]) -> tuple[int, ...]:
    twice = free == BATCH_AND_SIZE and len(shape) == 4
    return (shape[0] + 1, *(length * (1 + (twice and axis > 1)) for axis, length in enumerate(shape) if axis))


def _shapes(graph: fx.Graph) -> dict[str, tuple[int, ...]]:
    """The shapes that export left at the nodes; the rest of what it left there, tensors without numbers, is dropped.

    Raises:
        TraceError: the shape of a node depends on the values of tensors.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for node in graph.nodes:
        try:
            _note_shape(shapes, node.name, node.meta.get("val"))
        except GuardOnDataDependentSymNode as error:
            lines = [line.strip() for line in str(node.meta.get("stack_trace", "")).splitlines() if line.strip()]
            what = "the values of tensors decide how large another one is"
            raise TraceError(what, where=": ".join(lines[-2:]), fix=_CHOOSE) from error
        node.meta = {key: node.meta[key] for key in ("nn_module_stack", "stack_trace") if key in node.meta}
    return shapes


def _note_shape(shapes: dict[str, tuple[int, ...]], name: str, value: Any) -> None:
    """Enter the shape of a value, or of the first of several, if it is a tensor."""
    first = value[0] if isinstance(value, tuple | list) and value else value
    if isinstance(first, Tensor):
        shapes[name] = tuple(int(length) for length in first.shape)


def _twin(module: nn.Module) -> nn.Module:
    """A copy with the same tensors in it: what a forward pass assigns to its own attributes stays in the copy."""
    shared = {id(tensor): tensor for tensor in all_tensors(module).values()}
    try:
        return copy.deepcopy(module, shared)
    except Exception as error:  # a user's own __deepcopy__ or __reduce__ may raise anything
        raise TraceError(
            f"the model cannot be copied: {type(error).__name__}: {str(error).partition(chr(10))[0]}",
            fix="Keep only modules, tensors and plain values in its attributes; copy.deepcopy(model) must work.",
        ) from error


def _export(module: nn.Module, images: tuple[Tensor, ...], free: tuple[int, ...]) -> Exported:
    axes = [{axis: Dim.DYNAMIC for axis in free if axis < 1 or image.ndim == 4} for image in images]
    program = torch.export.export(module, images, dynamic_shapes=tuple(axes) if free else None)
    for node in program.graph.find_nodes(op="call_function", target=torch.ops.aten._assert_tensor_metadata.default):
        program.graph.erase_node(node)  # says what type a cast had before; nothing is computed with it
    graph = functional(program.graph)
    if graph is None:
        program = _decomposed(program, module)
        graph = copy.deepcopy(program.graph)
        for node in graph.nodes:
            if node.target in (torch.ops.aten.view.default, torch.ops.aten._unsafe_view.default):
                node.target = torch.ops.aten.reshape.default  # the same, and does not mind how the memory is laid out
    signature = program.graph_signature
    outputs = _outputs(graph, program)
    stored = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    made = signature.inputs_to_lifted_tensor_constants
    # A copied graph has other names for placeholders that are called as a built-in of Python is, "input".
    pairs = zip(*(one.find_nodes(op="placeholder") for one in (program.graph, graph)), strict=True)
    names = {old.name: new.name for old, new in pairs}
    inputs = tuple(names[str(name)] for name in signature.user_inputs)
    return Exported(
        graph=graph,
        stored={names[name]: tensor for name, tensor in stored.items()},
        constants={names[name]: program.constants[key] for name, key in made.items()},
        written=frozenset(signature.buffers_to_mutate.values()),
        inputs=inputs,
        result=result_of(pytree.tree_unflatten(outputs, program.call_spec.out_spec)),
        shapes=_shapes(graph),
        free=free,
        conditions=_conditions(program, inputs, images, axes),
    )


def _conditions(
    program: ExportedProgram, names: tuple[str, ...], images: tuple[Tensor, ...], free: Sequence[Mapping[int, Any]]
) -> tuple[str, ...]:
    """For which inputs the graph stands: what export took for granted when it chose a branch, and the fixed lengths.

    Any number of images from one on: that the graph stands for a single one is for its user to check.

    Raises:
        ValueError: export took something for granted that is not a condition on shapes.
    """
    found = []
    for name, image, own in zip(names, images, free, strict=True):
        for axis, length in enumerate(image.shape):
            if axis not in own:
                found.append(f"{name}[{axis}] == {length}")
            elif axis > 0:
                found.append(f"{name}[{axis}] >= 2")  # export takes a free length to be more than one
    noted = [from_guard(guard) for guard in getattr(program, "_guards_code", None) or ()]
    strange = [guard for guard in noted if not understood(guard, names)]
    if strange:
        raise ValueError(f"the graph depends on {strange[0]}")
    return (*found, *noted)


def _decomposed(program: ExportedProgram, module: nn.Module) -> ExportedProgram:
    taken = [name for name in (*module._modules, *module._parameters, *module._buffers) if name in _OWN_NAMES]
    if taken:
        what = f"the model has a part named {taken[0]!r}, which torch.export takes for its own"
        raise TraceError(what, where=type(module).__name__, fix="Give that attribute another name.")
    for node in program.graph.nodes:
        if node.target is torch.ops.aten.detach.default or (node.target in DROPOUTS and not node.args[2]):
            # These give back the memory that they read (dropout: in eval mode); torch's pass takes them for copies.
            node.target, node.args = torch.ops.aten.alias.default, node.args[:1]
    decomposed: ExportedProgram = program.run_decompositions({})
    return decomposed


def _outputs(graph: fx.Graph, program: ExportedProgram) -> list[Any]:
    """What the model returns: nodes and plain values. From now on the graph returns these nodes and nothing else."""
    given = graph.output_node().args[0]
    assert isinstance(given, list | tuple)
    pairs = zip(given, program.graph_signature.output_specs, strict=True)
    # An exported graph also gives the buffers that the forward pass wrote.
    returned = [value for value, spec in pairs if spec.kind is OutputKind.USER_OUTPUT]
    graph.output_node().args = (tuple(value for value in returned if isinstance(value, fx.Node)),)
    return returned


def _takes_other_sizes(found: Exported, state: Mapping[str, Tensor], images: tuple[Tensor, ...]) -> bool:
    known = {name: state[tensor] for name, tensor in found.stored.items()} | dict(found.constants)
    shapes = {name: tuple(image.shape) for name, image in zip(found.inputs, images, strict=True)}
    return takes_other_sizes(found.graph, known, shapes, found.free)


def _told(error: Exception) -> str:
    """The cause as torch tells it, and the last line of the user's own code that it went through."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    places = traceback.extract_tb(error.__traceback__)
    own = [place for place in places if not _is_foreign(place.filename)]
    told = [f'File "{own[-1].filename}", line {own[-1].lineno}, in {own[-1].name}: {own[-1].line}'] if own else []
    return "\n".join([f"{type(error).__name__}: {lines[0] if lines else ''}", *told])


def _is_foreign(file: str) -> bool:
    """Whether a file is not the user's own: torch's, or of this package."""
    path = Path(file)
    return file.startswith("<") or any(path.is_relative_to(Path(home).parent) for home in (torch.__file__, __file__))


@contextmanager
def _quiet() -> Iterator[None]:
    # On failure torch prints the whole graph on stderr, past any warning filter or log level.
    with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
