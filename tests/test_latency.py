"""The table of times of a board, as a file."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from edgeprune.errors import EdgepruneError
from edgeprune.latency import Conditions, LatencyTable, LayerTime, Variant

CONDITIONS = Conditions("Raspberry Pi 4 Model B", "onnxruntime", "1.31.1", 4, "onnx")
VARIANT = Variant({"conv": 8}, 1.5, 2.0, (LayerTime("conv2d 3x3 8x8 relu", 3, 8, 0.7),), 0.1, 0.25)


def test_a_table_is_read_as_it_was_written_and_grows_network_by_network(tmp_path: Path) -> None:
    table = LatencyTable(CONDITIONS).with_variants("f1", "one", (VARIANT,)).with_variants("f1", "one", (VARIANT,))
    table = table.with_variants("f2", "other", (VARIANT,))
    table.save(tmp_path / "table.json")
    read = LatencyTable.load(tmp_path / "table.json")
    assert read == table
    assert {key: (one.name, len(one.variants)) for key, one in read.networks.items()} == {
        "f1": ("one", 2),
        "f2": ("other", 1),
    }


@pytest.mark.parametrize(
    "broken",
    [
        lambda text: text[:-40],
        lambda text: text.replace('"schema": 2', '"schema": 7'),
        lambda text: text.replace('"ms": 1.5', '"ms": NaN'),
        lambda text: text.replace('"ms": 1.5', '"ms": -1.5'),
        lambda text: text.replace('"ms": 0.7', '"ms": 0'),
        lambda text: text.replace('"rest_ms": 0.1', '"rest_ms": NaN'),
        lambda text: text.replace('"activation_mb": 0.25', '"activation_mb": -1'),
        lambda text: text.replace('"rest_ms"', '"rest"'),
        lambda text: text.replace('"conditions"', '"circumstances"'),
        lambda _: "[]",
    ],
)
def test_a_corrupt_table_is_refused_by_name(tmp_path: Path, broken) -> None:
    path = tmp_path / "table.json"
    LatencyTable(CONDITIONS).with_variants("f1", "one", (VARIANT,)).save(path)
    path.write_text(broken(path.read_text()))
    with pytest.raises(EdgepruneError) as caught:
        LatencyTable.load(path)
    assert str(path) in caught.value.where
    assert caught.value.fix


def test_other_conditions_are_told_by_what_differs() -> None:
    other = replace(CONDITIONS, threads=1, board="another")
    assert CONDITIONS.differ(other) == "board: Raspberry Pi 4 Model B and another; threads: 4 and 1"
    assert not CONDITIONS.differ(CONDITIONS)


def test_a_table_that_cannot_be_written_leaves_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    LatencyTable(CONDITIONS).save(path)
    before = path.read_text()
    with pytest.raises(ValueError, match="not JSON compliant"):
        LatencyTable(CONDITIONS).with_variants("f", "n", (replace(VARIANT, ms=float("nan")),)).save(path)
    assert path.read_text() == before
    assert json.loads(before)["kind"] == "latency table"
