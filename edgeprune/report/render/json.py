"""A report as JSON, schema 1 (`edgeprune/report/schema.json`)."""

from __future__ import annotations

import json

from edgeprune.report.document import Report


def render(report: Report) -> str:
    """The report as an indented JSON document."""
    return json.dumps(report.to_json(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
