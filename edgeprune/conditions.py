"""Conditions on the shapes of a network's inputs, as text that is stored, and checked without running code.

`x[2] > 10` says that axis 2 of input x is longer than 10. The language has whole numbers, lengths of axes, comparisons,
`+ - * // %`, `min`, `max`, `and`, `or` and `not`; it is a part of Python's.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from edgeprune.errors import ModelError

_OPERATORS: dict[type[ast.AST], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_FUNCTIONS: dict[str, Callable[..., Any]] = {"min": min, "max": max}
_LENGTH_IN_GUARD = re.compile(r"L\['(\w+)'\]\.size\(\)\[(\d+)\]")


def from_guard(guard: str) -> str:
    """A condition from what torch.export notes, `L['x'].size()[2] > 10`: `x[2] > 10`."""
    return _LENGTH_IN_GUARD.sub(r"\1[\2]", guard)


def understood(condition: str, names: Iterable[str]) -> bool:
    """Whether a text is a condition on inputs of these names."""
    try:
        holds(condition, dict.fromkeys(names, (1,) * 8))
    except ModelError:
        return False
    return True


def holds(condition: str, shapes: Mapping[str, Sequence[int]]) -> bool:
    """Whether a condition is met.

    Args:
        condition: in the language above.
        shapes: of the inputs, by their names.

    Raises:
        ModelError: the text is not in the language.
    """
    try:
        return bool(_value(ast.parse(condition, mode="eval").body, shapes))
    except ZeroDivisionError:
        return False
    except (SyntaxError, KeyError, IndexError, TypeError, RecursionError) as error:
        raise ModelError(f"not a condition on the shapes of inputs: {condition[:100]!r}") from error


def _value(node: ast.AST, shapes: Mapping[str, Sequence[int]]) -> Any:
    if isinstance(node, ast.Constant) and isinstance(node.value, int):
        return node.value
    if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and isinstance(node.slice, ast.Constant):
        return shapes[node.value.id][node.slice.value]  # type: ignore[index]
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
        return _FUNCTIONS[node.func.id](*(_value(argument, shapes) for argument in node.args))
    if isinstance(node, ast.BinOp):
        return _OPERATORS[type(node.op)](_value(node.left, shapes), _value(node.right, shapes))
    if isinstance(node, ast.BoolOp):
        values = (bool(_value(part, shapes)) for part in node.values)
        return all(values) if isinstance(node.op, ast.And) else any(values)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub):
        value = _value(node.operand, shapes)
        return not value if isinstance(node.op, ast.Not) else -value
    if isinstance(node, ast.Compare):
        sides = [_value(side, shapes) for side in (node.left, *node.comparators)]
        pairs = zip(node.ops, sides, sides[1:], strict=False)
        return all(_OPERATORS[type(sign)](left, right) for sign, left, right in pairs)
    raise SyntaxError
