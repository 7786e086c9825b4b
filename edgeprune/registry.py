"""Tables of names: `name -> "module:attribute"`, imported only when asked for.

A criterion, exporter or runtime is added by one file and one line in its room's table; third parties add rows by entry
points.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from edgeprune.errors import UsageError


@dataclass(frozen=True)
class Registry:
    """One table of names.

    Args:
        kind: what a row is, for error messages ("criterion").
        rows: our own names, each `"module:attribute"`.
        group: the entry-point group by which third parties add rows; empty for none.
    """

    kind: str
    rows: Mapping[str, str]
    group: str = ""

    def table(self) -> dict[str, str]:
        """All rows, ours first; a third party cannot replace one of ours."""
        added = {point.name: point.value for point in entry_points(group=self.group)} if self.group else {}
        return {**added, **self.rows}

    def load(self, name: str) -> Any:
        """The object behind `name`.

        Raises:
            UsageError: no row has that name; the nearest one is suggested.
        """
        table = self.table()
        if name not in table:
            raise unknown(self.kind, name, table)
        module, _, attribute = table[name].partition(":")
        return getattr(importlib.import_module(module), attribute)


def unknown(kind: str, name: str, known: Iterable[str]) -> UsageError:
    """The error for a name that is in no table: the nearest name first, then all of them."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"Did you mean {near[0]!r}? " if near else ""
    return UsageError(f"unknown {kind} {name!r}", fix=f"{hint}Known: {', '.join(names)}")


def shipped(name: str) -> Path:
    """`devices`, `models`, `docker` or `LICENSE`: inside the package in a wheel, beside it in a checkout."""
    package = Path(__file__).parent
    inside = package / name
    return inside if inside.exists() else package.parent / name
