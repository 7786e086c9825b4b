"""A budget of time on the emulated arm64 board: every step works over SSH, and nothing is called a time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import simulated_board
from arm_board import ArmBoard, missing
from program_runs import Tiny, run_here

from edgeprune.bench.setup import clean, set_up
from edgeprune.cutting import traced
from edgeprune.journal import Journal, Nobody
from edgeprune.latency import Conditions, LatencyTable
from edgeprune.model import load_model
from edgeprune.prune.shapes import Shapes
from edgeprune.variants import choices_of, variant

pytestmark = [pytest.mark.arm, pytest.mark.slow, pytest.mark.skipif(bool(missing()), reason=missing() or "-")]
QUICK = ("--formats", "onnx", "--recover", "none", "--images", "16", "--calibration-images", "16")


@pytest.fixture(scope="module")
def ready(board: ArmBoard) -> Iterator[str]:
    set_up(board.device, ["onnxruntime"])
    yield board.device
    clean(board.device)


def test_profile_works_there_and_makes_no_table(ready: str, tiny: Tiny, tmp_path: Path) -> None:
    table = tmp_path / "table.json"
    ran = run_here("profile", tiny.net, "--input", "1x8x8", "--device", ready, "--table", str(table))
    assert ran.code == 4, ran.err
    assert "EMULATED: 5 files work there, and their times say nothing: no table is made of them" in ran.err
    assert " ms" not in ran.out + ran.err
    assert not table.exists()


def test_with_a_real_boards_table_the_plan_is_tried_and_nothing_is_called_a_time(
    ready: str, tiny: Tiny, tmp_path: Path
) -> None:
    found = traced(load_model(tiny.net, input_shape=(1, 8, 8)), Journal(Nobody()))
    shapes, choices = Shapes(found.program, found.channel_map), choices_of(found, "inner", 8)
    measured = simulated_board.network(shapes, [variant(choices, number) for number in range(16)])
    there = Conditions("a real board", "onnxruntime", "1.31.1", 1, "onnx")
    table, out = tmp_path / "table.json", tmp_path / "run"
    LatencyTable(there, {shapes.fingerprint: measured}).save(table)
    asked = ("--device", ready, "--speedup", "1.05", "--table", str(table), "--out", str(out))
    ran = run_here(*tiny.compress(*QUICK, *asked))
    assert ran.code == 4, ran.err
    assert "EMULATED: the plan's file works there" in ran.err
    report = json.loads((out / "report.json").read_text())
    assert report["measurements"] == report["comparisons"] == report["devices"] == []
    assert [line for line in report["warnings"] if line.startswith("EMULATED: the files work on")]
    assert (out / "pruned-fp32.onnx").is_file()  # the run is whole, but for its times
