"""A criterion of one's own, as edgeprune/criteria/README.md tells it: that very text, from file to scores."""

from __future__ import annotations

import json
import re
import textwrap
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import edgeprune.registry as registry
from edgeprune.cli import app
from edgeprune.criteria import CRITERIA, FilterView, configure

README = Path(__file__).parent.parent / "edgeprune" / "criteria" / "README.md"


@pytest.fixture
def loudness(tmp_path, monkeypatch):
    blocks = [textwrap.dedent(block) for block in re.findall(r"(?:^    .*\n|^\n)+", README.read_text(), re.MULTILINE)]
    (code,) = [block for block in blocks if "def loudness" in block]
    (row,) = [block for block in blocks if "entry-points" in block]
    name, value = re.findall(r'^(\w+) = "(.+)"$', row, re.MULTILINE)[0]
    (tmp_path / "loudness.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    point = EntryPoint(name, value, "edgeprune.criteria")
    monkeypatch.setattr(registry, "entry_points", lambda group: [point] if group == "edgeprune.criteria" else [])
    return name


def test_the_readme_s_criterion_scores_filters(loudness):
    maps = torch.zeros(3, 2, 4, 4)
    maps[:, 1] = -2.0
    view = FilterView("space", 2, (torch.zeros(2, 1),), lambda side: iter(maps.split(2)))
    assert configure(loudness, {"images": "2"})(view).scores.tolist() == [0.0, 2.0]


def test_the_list_says_of_each_its_paper_whether_it_wants_images_its_cost_and_one_line():
    rows = json.loads(CliRunner().invoke(app, ["criteria", "--json"]).output)["criteria"]
    assert {row["name"] for row in rows} >= set(CRITERIA.rows)
    assert {row["name"] for row in rows if not row["paper"]} == {"random"}
    assert {row["name"] for row in rows if row["images"] == "yes"} == {"qsfm", "hrank", "reconstruction"}
    assert all(row["grows_with"] and row["title"].endswith(".") for row in rows)


def test_it_is_listed_with_ours_and_explained(loudness):
    listed = CliRunner().invoke(app, ["criteria", "--json"]).output
    assert '"loudness"' in listed
    assert '"Doe 2026"' in listed
    told = CliRunner().invoke(app, ["criteria", loudness]).output
    assert "quiet filters go first" in told
    assert "images=32" in told
