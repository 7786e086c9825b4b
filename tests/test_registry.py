"""Tables of names: loaded when asked for, extended by entry points, wrong names answered with the nearest."""

from __future__ import annotations

import math
from importlib.metadata import EntryPoint

import pytest

import edgeprune.registry as module
from edgeprune.criteria import CRITERIA
from edgeprune.errors import UsageError
from edgeprune.export import EXPORTERS
from edgeprune.registry import Registry, shipped, unknown

TABLE = Registry("animal", {"cosine": "math:cos", "sine": "math:sin", "ghost": "no_such_module:x"}, "edgeprune.test")


def test_a_name_gives_its_object():
    assert TABLE.load("cosine") is math.cos


def test_a_row_is_imported_only_when_asked_for():
    assert "ghost" in TABLE.table()
    with pytest.raises(ModuleNotFoundError):
        TABLE.load("ghost")


def test_an_unknown_name_is_answered_with_the_nearest_and_all():
    with pytest.raises(UsageError) as caught:
        TABLE.load("cosin")
    assert str(caught.value) == "unknown animal 'cosin'\nDid you mean 'cosine'? Known: cosine, ghost, sine"


def test_a_name_like_no_other_suggests_none():
    assert unknown("animal", "zzz", ["cat"]).fix == "Known: cat"


def test_third_parties_add_rows_but_replace_none(monkeypatch):
    points = [EntryPoint("tangent", "math:tan", "edgeprune.test"), EntryPoint("sine", "math:tan", "edgeprune.test")]
    monkeypatch.setattr(module, "entry_points", lambda group: points if group == "edgeprune.test" else [])
    assert TABLE.load("tangent") is math.tan
    assert TABLE.load("sine") is math.sin
    assert "tangent" not in Registry("animal", {}).table()


@pytest.mark.parametrize("table", [CRITERIA, EXPORTERS], ids=lambda table: table.kind)
def test_every_row_of_our_own_tables_exists(table):
    for name in table.rows:
        assert callable(table.load(name))


@pytest.mark.parametrize("folder", ["devices", "models"])
def test_the_shipped_folders_are_found(folder):
    assert any(shipped(folder).glob("*.toml"))
