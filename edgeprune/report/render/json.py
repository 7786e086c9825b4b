"""A report as JSON, schema 1 of its kind, in `edgeprune/report`: of a run, of single files (bench) or of a sweep."""

from __future__ import annotations

import json
from typing import Any, Protocol


class Document(Protocol):
    """What knows itself as JSON."""

    def to_json(self) -> dict[str, Any]:
        """This as a JSON document."""


def render(report: Document) -> str:
    """The report as an indented JSON document."""
    return json.dumps(report.to_json(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
