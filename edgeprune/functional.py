"""An exported graph without in-place operators: quickly where that is plain to see, else by torch's own pass.

`ExportedProgram.run_decompositions` traces the whole network a second time, which takes twice as long as the export
itself. Nearly all networks hold only a few operators that it would change; those are written here as it writes them.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.node import map_arg

aten = torch.ops.aten


class _NotPlainError(Exception):
    """This graph is a case for torch's own pass."""


def functional(graph: fx.Graph) -> fx.Graph | None:
    """A copy of an exported graph whose operators change nothing they read; None where that takes torch's own pass.

    Nodes are named after their operators, and know their module (`nn_module_stack`) and value (`val`) as before.
    """
    try:
        return _Rewriting(graph).graph
    except _NotPlainError:
        return None


class _Rewriting:
    """Writes a graph anew, front to back.

    Attributes:
        graph: what has been written.
    """

    def __init__(self, source: fx.Graph) -> None:
        self.graph = fx.Graph()
        self._now: dict[fx.Node, Any] = {}  # node of the source -> what stands for its present value
        self._memory: dict[fx.Node, fx.Node] = {}  # node of the source -> the one whose memory it lives in
        self._same: dict[fx.Node, list[fx.Node]] = {}  # owner of memory -> nodes that are the whole of it
        self._viewed: set[fx.Node] = set()  # owners of memory that is also seen in other shapes, or is not the graph's
        for node in source.nodes:
            self._memory[node] = node
            if node.op == "placeholder":
                self._viewed.add(node)
                self._now[node] = self.graph.node_copy(node)
            elif node.op == "output":
                self.graph.output(map_arg(node.args[0], self._now.__getitem__))
            else:
                self._now[node] = self._written(node)

    def _written(self, node: fx.Node) -> Any:
        target = node.target
        if not isinstance(target, torch._ops.OpOverload):
            if isinstance(target, str) or target.__module__ not in ("_operator", "math", "torch"):
                raise _NotPlainError
            self._see(node, node.all_input_nodes)
            return self.add(target, node, *self._read(node))
        if target in _SPELLINGS:
            if target in DROPOUTS:
                self._is_now(node, node.all_input_nodes[0])
            elif target is not aten.batch_norm.default:
                self._see(node, node.all_input_nodes[:1])
            args, kwargs = self._read(node)
            return _SPELLINGS[target](self, node, *args, **kwargs)
        if target._schema.is_mutable:
            return self._out_of_place(node, target)
        if _is_taken_apart(target):
            raise _NotPlainError
        if any(argument.alias_info for argument in target._schema.arguments):
            self._see(node, node.all_input_nodes)
        return self.add(target, node, *self._read(node))

    def _read(self, node: fx.Node) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return map_arg(node.args, self._now.__getitem__), map_arg(node.kwargs, self._now.__getitem__)

    def add(self, target: Callable[..., Any], node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Write an operator in the place of a node of the source."""
        name = target._schema.name.removeprefix("aten::") if isinstance(target, torch._ops.OpOverload) else None
        new = self.graph.create_node("call_function", target, args, kwargs, name=name)
        new.meta = dict(node.meta)
        return new

    def _see(self, node: fx.Node, sources: Iterable[fx.Node]) -> None:
        """Note that a node may live in the memory of others, in another shape."""
        for source in sources:
            self._memory[node] = self._memory[source]
            self._viewed.add(self._memory[source])

    def _is_now(self, node: fx.Node, source: fx.Node) -> None:
        """Note that a node is another name for the whole of what a source is."""
        owner = self._memory[node] = self._memory[source]
        self._same.setdefault(owner, [owner]).append(node)

    def _out_of_place(self, node: fx.Node, target: torch._ops.OpOverload) -> Any:
        """The operator that gives what this one writes into its first argument; from now on it is read instead."""
        name, overload = target._schema.name.removeprefix("aten::"), target._overloadname
        twin = getattr(getattr(aten, name.removesuffix("_"), None), overload, None)
        changed = node.args[0] if node.args else None
        kinds = {source.meta["val"].dtype for source in node.all_input_nodes if _is_tensor(source)}
        # A comparison in place keeps the type of what it writes into; its twin gives a bool.
        if twin is None or name in _COMPARISONS or not isinstance(changed, fx.Node) or len(kinds) != 1:
            raise _NotPlainError
        owner = self._memory[changed]
        if owner in self._viewed:
            raise _NotPlainError
        new = self.add(twin, node, *self._read(node))
        self._is_now(node, changed)
        self._now |= dict.fromkeys(self._same[owner], new)
        return new

    def sizes(self, node: fx.Node) -> list[Any]:
        """The shape of a node of the source as an argument: free lengths as nodes that read them off an input."""
        return [length if isinstance(length, int) else self._free(length) for length in node.meta["val"].shape]

    def _free(self, length: torch.SymInt) -> Any:
        for node in filter(_is_tensor, self.graph.find_nodes(op="placeholder")):
            for axis, free in enumerate(node.meta["val"].shape):
                if isinstance(free, torch.SymInt) and str(free) == str(length):
                    return self._size_node(node, axis)
        raise _NotPlainError

    def _size_node(self, source: fx.Node, axis: int) -> Any:
        for node in source.users:
            if node.target is aten.sym_size.int and node.args[1] == axis:
                return node
        return self.graph.create_node("call_function", aten.sym_size.int, (source, axis), name="sym_size")


def _is_tensor(node: fx.Node) -> bool:
    return isinstance(node.meta.get("val"), Tensor)


def _is_taken_apart(operation: torch._ops.OpOverload) -> bool:
    """Whether torch's own pass writes other operators in its place."""
    aliases = any(argument.alias_info for argument in operation._schema.arguments)
    aliases |= torch.Tag.maybe_aliasing_or_mutating in operation.tags
    return aliases and operation.has_kernel_for_dispatch_key(torch._C.DispatchKey.CompositeImplicitAutograd)


def _batch_norm(
    writing: _Rewriting, node: fx.Node, x: fx.Node, weight: Any, bias: Any, mean: Any, var: Any,
    training: bool, momentum: float, eps: float, _: bool,
) -> Any:  # fmt: skip
    if training:
        raise _NotPlainError
    args = (x, weight, bias, mean, var, momentum, eps)
    values = writing.add(aten._native_batch_norm_legit_no_training.default, node, args, {})
    return writing.add(operator.getitem, node, (values, 0), {})


def _dropout(writing: _Rewriting, node: fx.Node, x: fx.Node, share: float, training: bool) -> Any:  # noqa: ARG001
    if training:
        raise _NotPlainError
    return x


def _reshape(writing: _Rewriting, node: fx.Node, x: fx.Node, sizes: Any) -> Any:
    return writing.add(aten.reshape.default, node, (x, sizes), {})


def _flatten(writing: _Rewriting, node: fx.Node, x: fx.Node, *_: int) -> Any:
    return _reshape(writing, node, x, writing.sizes(node))


def _expand_as(writing: _Rewriting, node: fx.Node, x: fx.Node, _: fx.Node) -> Any:
    return writing.add(aten.expand.default, node, (x, writing.sizes(node)), {})


def _contiguous(writing: _Rewriting, node: fx.Node, x: fx.Node, memory_format: Any = torch.contiguous_format) -> Any:
    return writing.add(aten.clone.default, node, (x,), {"memory_format": memory_format})


def _chunk(writing: _Rewriting, node: fx.Node, x: fx.Node, count: int, axis: int = 0) -> Any:
    length = x.meta["val"].shape[axis]
    if not isinstance(length, int) or not length:
        raise _NotPlainError
    return writing.add(aten.split.Tensor, node, (x, -(-length // count), axis), {})


_COMPARISONS = frozenset(
    {"eq_", "ne_", "lt_", "le_", "gt_", "ge_", "logical_and_", "logical_or_", "logical_xor_", "logical_not_"}
)
DROPOUTS = frozenset({aten.dropout.default, aten.dropout_.default})
_SPELLINGS: dict[torch._ops.OpOverload, Callable[..., Any]] = {
    aten.batch_norm.default: _batch_norm,
    **dict.fromkeys(DROPOUTS, _dropout),
    aten.flatten.using_ints: _flatten,
    aten.reshape.default: _reshape,
    aten.view.default: _reshape,  # the same, and does not mind how the memory is laid out
    aten.contiguous.default: _contiguous,
    aten.chunk.default: _chunk,
    aten.expand_as.default: _expand_as,
}
"""Operators that are written otherwise, and how: as torch's own pass does."""
