"""One file for each way a report is drawn: a function `render(report) -> str`."""

from __future__ import annotations

from edgeprune.registry import Registry

RENDERERS = Registry(
    "report format",
    {name: f"edgeprune.report.render.{name}:render" for name in ("json", "markdown", "html", "terminal")},
    group="edgeprune.renderers",
)

FILES = {"report.json": "json", "report.md": "markdown", "report.html": "html"}
"""The files of a run folder, and who draws them."""
