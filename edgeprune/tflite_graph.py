"""The operators of a TFLite file, by name; the schema's own classes have them by number only."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

LAYERS = ("CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "FULLY_CONNECTED", "BATCH_MATMUL")
"""The operators that multiply and accumulate."""


def nameless(kind: str, number: int) -> str:
    """What a layer is called whose file keeps no name of it, by its number among the layers of its file.

    Not among all operators: a file in int8 has more of them than the same network in float.
    """
    return f"{kind.lower()} {number}"


def operators_of(model: Any, graph: Any) -> Iterator[tuple[str, Any]]:
    """Name and operator, for each of one graph of a model, in the order they run.

    Args:
        model: a `Model` of `ai_edge_litert.schema_py_generated`.
        graph: one of its `Subgraphs`.

    Returns:
        Names of built-in operators are in upper case, as the schema has them; a custom one has its own.
    """
    from ai_edge_litert import schema_py_generated as schema

    names = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}
    for operator in map(graph.Operators, range(graph.OperatorsLength())):
        code = model.OperatorCodes(operator.OpcodeIndex())
        # Old files hold the code in one byte only, where 127 means: see the other field.
        number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
        yield (names[number] if number != schema.BuiltinOperator.CUSTOM else code.CustomCode().decode()), operator
