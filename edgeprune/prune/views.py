"""Which stored tensor a value is a view of."""

from __future__ import annotations

from typing import Any

from torch import fx

from edgeprune.program import Program, operator_of

_SAME = frozenset({"alias", "detach"})
_VIEWS = _SAME | {"view", "reshape", "unsqueeze", "squeeze", "_unsafe_view"}
"""Operators that give the same elements in the same order."""
_TURNS = _SAME | {"t", "transpose", "permute", "numpy_T"}
"""Operators that may turn a matrix around."""


def origin(program: Program, node: fx.Node) -> fx.Node:
    """The stored tensor that a node is a view of with axes of length 1 more or less; else the node itself."""
    source = node
    while source.op == "call_function" and operator_of(source) in _VIEWS:
        source = source.all_input_nodes[0]
    stored, seen = ([length for length in program.shapes.get(one.name, ()) if length > 1] for one in (source, node))
    return source if source.name in program.stored and stored == seen else node


def matrix(program: Program, operand: Any) -> tuple[fx.Node | None, bool]:
    """(the stored matrix that an operand is, whether it is turned around); (None, False) if it is no such one."""
    source, turned = operand, False
    while isinstance(source, fx.Node) and source.op == "call_function" and operator_of(source) in _TURNS:
        if len(program.shapes.get(source.name, ())) != 2:
            break
        turned = turned != _swaps(source)
        source = source.all_input_nodes[0]
    if not isinstance(source, fx.Node) or source.name not in program.stored or len(program.shapes[source.name]) != 2:
        return None, False
    return source, turned


def _swaps(node: fx.Node) -> bool:
    """Whether an operator swaps the two axes of a matrix."""
    axes: Any = node.args[1:]
    if operator_of(node) == "transpose":
        return bool((axes[0] - axes[1]) % 2)
    if operator_of(node) == "permute":
        return bool(axes[0][0] % 2)
    return operator_of(node) in ("t", "numpy_T")
