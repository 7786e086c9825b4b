"""The fastest file within an accuracy: what is tried, what is handed over, and what is said where there is none."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jsonschema
import pytest
from program_runs import Ran, Tiny, fault, run_forked, run_here

from edgeprune import bracketing, candidates, fastest, profiling, trying
from edgeprune.artifact import Artifact
from edgeprune.bench import compare
from edgeprune.bench.compare import Comparison
from edgeprune.bench.faults import ConnectionLostError
from edgeprune.deciding import predicted_times
from edgeprune.errors import ParityError, UsageError
from edgeprune.fastest import walked_formats
from edgeprune.latency import Conditions, LatencyTable
from edgeprune.pipeline import Outcome, compress
from edgeprune.plan import Budget
from edgeprune.report.document import SCHEMA_FILE
from edgeprune.request import Request

Speed = Callable[[float, str], float]


class Stopwatch:
    """A board on which a file is so many times as fast, by its share of the uncut file's MACs and its precision."""

    def __init__(self, speed: Speed, ends: BaseException | None = None, after: int = 2) -> None:
        """It may end so, after so many calls."""
        self._speed, self._ends, self._after = speed, ends, after
        self.calls: list[list[str]] = []

    def timed(self, artifacts: Sequence[Artifact], folder: Path) -> dict[str, Comparison]:
        uncut, *others = artifacts
        if self._ends and len(self.calls) == self._after:
            raise self._ends
        self.calls.append([one.path for one in others])
        found = {}
        for one in others:
            assert (folder / one.path).is_file()
            ratio = self._speed(uncut.macs / one.macs, one.precision)
            ends = (0.99 * ratio, 1.01 * ratio)
            told = (uncut.path, one.path, "onnxruntime", 1, ratio, ends, "faster", 16, 0.01, MappingProxyType({}))
            found[one.path] = Comparison(*told)
        return found


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Stopwatch]:
    """Lets a stopwatch be the board; two cuts do."""
    monkeypatch.setattr(bracketing, "ROUNDS", 2)

    def install(*given: Any) -> Stopwatch:
        watch = Stopwatch(*given)

        def speeds(request: Any, uncut: Any, target: Any, times: Any, *_: object) -> tuple[Any, Any]:
            return predicted_times(times, uncut, request.scope, target.channel_multiple), watch

        monkeypatch.setattr(fastest, "_speeds", speeds)
        return watch

    return install


def run(tiny: Tiny, folder: Path, most: float = 90.0, precisions: tuple[str, ...] = ("fp32", "int8")) -> Outcome:
    """A run that may lose nearly everything: what is too much is not the question here."""
    given = {"model": tiny.net, "weights": tiny.weights, "data": str(tiny.data), "input_shape": (1, 8, 8)}
    few = {"images": 16, "calibration_images": 16, "formats": ("onnx",), "recover": "none", "scope": "all"}
    request = Request(
        **given,  # type: ignore[arg-type]
        **few,  # type: ignore[arg-type]
        precisions=precisions,
        max_drop=most,
        budget=Budget(max_drop=most),
        bench=False,
        out=folder / "run",
    )
    return compress(request)


def files(done: Outcome) -> list[str]:
    assert done.report is not None
    return [one.path for one in done.report.artifacts]


@pytest.mark.slow
def test_the_fastest_is_handed_over_in_its_precision_beside_fp32(
    timed: Callable[..., Stopwatch], tiny: Tiny, tmp_path: Path
) -> None:
    timed(lambda cut, precision: cut * (2.0 if precision == "int8" else 1.0))
    done = run(tiny, tmp_path)
    assert done.report is not None
    front = done.report.front
    assert front is not None
    assert (front.chosen.precision, front.chosen.round > 0, done.missed) == ("int8", True, "")
    assert front.chosen.measured == max(one.measured for one in front.candidates if one.fits and one.measured)
    assert files(done) == ["baseline-fp32.onnx", "pruned-fp32.onnx", "baseline-int8.onnx", "pruned-int8.onnx"]
    assert done.plan.fingerprint == front.chosen.plan
    document = json.loads((tmp_path / "run" / "report.json").read_text())
    jsonschema.Draft202012Validator(json.loads(SCHEMA_FILE.read_text())).validate(document)
    assert document["budget"]["asked"] == {"max_drop": 90.0}
    assert json.loads((tmp_path / "run" / "plan.json").read_text())["asked"] == {"max_drop": 90.0}
    assert front.sentences()[0] in document["notes"]


@pytest.mark.slow
def test_images_to_choose_by_are_not_those_reported_on(
    timed: Callable[..., Stopwatch], tiny: Tiny, tmp_path: Path
) -> None:
    timed(lambda cut, _: cut)
    done = run(tiny, tmp_path, precisions=("fp32",))
    assert done.report is not None
    assert done.report.front is not None
    assert done.report.accuracy is not None
    assert done.report.front.images + done.report.accuracy.images == 16


@pytest.mark.slow
def test_where_no_cut_is_faster_the_uncut_model_is_handed_over_in_its_fastest_precision(
    timed: Callable[..., Stopwatch], tiny: Tiny, tmp_path: Path
) -> None:
    timed(lambda cut, precision: (2.0 if precision == "int8" else 1.0) / cut)
    done = run(tiny, tmp_path)
    assert done.report is not None
    assert done.plan.keep == {}
    assert done.missed == ""
    assert files(done)[-1] == "pruned-int8.onnx"
    assert done.report.cost.pruned == done.report.cost.baseline
    assert done.report.recovery.name == "none"
    assert any(note.startswith("Nothing is cut: no cut that loses at most 90 points") for note in done.report.run.notes)


@pytest.mark.slow
def test_where_nothing_is_surely_faster_the_goal_is_missed_and_nothing_is_cut(
    timed: Callable[..., Stopwatch], tiny: Tiny, tmp_path: Path
) -> None:
    timed(lambda cut, _: 1 / (2 * cut))
    done = run(tiny, tmp_path)
    assert done.missed.endswith("is surely faster than the uncut model in fp32")
    assert done.plan.keep == {}
    assert files(done) == ["baseline-fp32.onnx", "pruned-fp32.onnx"]


@pytest.mark.slow
def test_a_precision_that_fails_parity_is_no_candidate_and_costs_no_run(
    timed: Callable[..., Stopwatch], tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export = candidates.export_file

    def failing(made: Any, wanted: Any, precision: str, *rest: Any) -> Artifact:
        if precision == "int8":
            raise ParityError("it computes something else")
        return export(made, wanted, precision, *rest)

    monkeypatch.setattr(candidates, "export_file", failing)
    timed(lambda cut, _: cut)
    done = run(tiny, tmp_path)
    assert done.report is not None
    assert done.report.front is not None
    assert {one.precision for one in done.report.front.candidates} == {"fp32"}
    assert "a candidate in int8 is left out: it computes something else" in done.report.run.warnings


def doubled(cut: float, precision: str) -> float:
    return cut * (2.0 if precision == "fp16" else 1.0)


QUICK = ("--formats", "onnx", "--recover", "none", "--images", "16", "--calibration-images", "16", "--scope", "all")


def walked(tiny: Tiny, out: Path, *more: str) -> Ran:
    """The same in the program; to be timed by a stopwatch."""
    given = ("--max-drop", "90", "--precisions", "fp16", *QUICK, "--no-bench", "--out", str(out))
    return run_here(*tiny.compress(*given, *more))


def result(out: Path) -> tuple[Any, Any, bytes]:
    """What a walk came to: the front, the plan, and the file that is handed over."""
    report = json.loads((out / "report.json").read_text())
    return report["front"], report["budget"], (out / "pruned-fp16.onnx").read_bytes()


@pytest.mark.slow
def test_an_interrupted_walk_goes_on_to_the_same_files(
    timed: Callable[..., Stopwatch], tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    whole = timed(doubled)
    assert walked(tiny, tmp_path / "whole").code == 0
    out, kept = tmp_path / "run", tmp_path / "run.front.jsonl"
    first = timed(doubled, KeyboardInterrupt())
    ran = walked(tiny, out)
    assert (ran.code, ran.out) == (130, "")
    assert f"what was tried so far is in {kept}: the same command goes on from there" in ran.err
    assert sorted(path.name for path in tmp_path.iterdir()) == [kept.name, "whole"]
    rest = timed(doubled)
    with monkeypatch.context() as patch:  # once more, when the walk is over
        patch.setattr("edgeprune.pipeline.export_files", interrupted)
        ran = walked(tiny, out)
    assert ran.code == 130
    tried = 1 + sum(map(len, first.calls))  # the uncut file in fp32, too
    assert f"{tried} candidates were tried before; going on from {kept}" in ran.err
    assert rest.calls
    assert first.calls + rest.calls == whole.calls
    nothing = timed(doubled)
    ran = walked(tiny, out)
    assert ran.code == 0, ran.err
    assert nothing.calls == []
    assert not kept.exists()
    assert result(out) == result(tmp_path / "whole")


@pytest.mark.slow
def test_a_board_that_is_lost_in_mid_walk_is_a_device_error_that_says_how_to_go_on(
    timed: Callable[..., Stopwatch], tiny: Tiny, tmp_path: Path
) -> None:
    timed(doubled, ConnectionLostError("ssh://pi"), 1)
    said = fault(walked(tiny, tmp_path / "run"), 3, "lost the connection", "ssh://pi")
    assert "What was tried before is kept: the same command goes on." in said
    assert [path.name for path in tmp_path.iterdir()] == ["run.front.jsonl"]


@pytest.mark.slow
def test_another_request_takes_nothing_over(timed: Callable[..., Stopwatch], tiny: Tiny, tmp_path: Path) -> None:
    def began(*more: str) -> tuple[list[list[str]], str]:
        """What is tried of a walk that is interrupted after its first round, and what is said."""
        watch = timed(doubled, KeyboardInterrupt(), 1)
        ran = walked(tiny, tmp_path / "run", *more)
        assert ran.code == 130, ran.err
        return watch.calls, ran.err

    uncut = [["0-fp16.onnx"]]
    assert began()[0] == uncut
    calls, said = began("--max-drop", "89")
    assert calls == uncut
    assert "was tried under other conditions (--max-drop): all is tried anew" in said
    calls, said = began("--max-drop", "89", "--restart")
    assert calls == uncut
    assert "tried before" not in said


@pytest.mark.slow
def test_without_a_board_what_is_chosen_is_predicted_and_nothing_is_shown_as_measured(
    tiny: Tiny, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    ran = run_forked(*tiny.compress("--max-drop", "90", *QUICK, "--no-bench", "--out", str(out)))
    assert ran.code == 0, ran.err
    assert "PREDICTED, not measured: " in ran.err
    report = json.loads((out / "report.json").read_text())
    assert report["budget"]["predicted"]["speedup"] > 1
    assert {one["measured"] for one in report["front"]["candidates"] if one["plan"]} == {None}
    assert {one["precision"] for one in report["artifacts"]} == {"fp32"}
    assert " ms" not in ran.out


def test_a_dry_run_ends_with_the_plan(tiny: Tiny, tmp_path: Path) -> None:
    ran = run_forked(*tiny.compress("--max-drop", "90", *QUICK, "--dry-run", "--json", "--out", str(tmp_path / "run")))
    assert ran.code == 0, ran.err
    assert json.loads(ran.out)["asked"] == {"max_drop": 90.0}
    assert not list(tmp_path.iterdir())


def test_files_are_of_the_tables_format_unless_others_are_named() -> None:
    table = LatencyTable(Conditions("a board", "onnxruntime", "1.31.1", 1, "onnx"))
    asked = Request(max_drop=1.0, budget=Budget(max_drop=1.0))
    assert walked_formats(asked, ("tflite", "onnx"), table) == ("onnx",)
    both = replace(asked, formats=("tflite", "onnx"))
    assert walked_formats(both, ("tflite", "onnx"), table) == ("onnx", "tflite")
    assert walked_formats(asked, ("tflite", "onnx"), None) == ("tflite", "onnx")
    assert walked_formats(Request(), ("tflite", "onnx"), table) == ("tflite", "onnx")
    with pytest.raises(UsageError, match="the table is of onnx files, and --formats names tflite only"):
        walked_formats(replace(asked, formats=("tflite",)), ("tflite",), table)


def test_all_that_the_board_computes_in_is_tried_where_it_is_at_hand(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Request] = []
    many = ("--target", "rpi5", "--threads", "4")
    monkeypatch.setattr("edgeprune.compressing_command._run", lambda request, *_: asked.append(request))
    for more in (("--device", "local"), ("--device", "local", *many), (), ("--macs", "0.5")):
        given = (*more, "--precisions", "int8") if more[:1] == ("--macs",) else more
        assert run_here(*tiny.compress("--max-drop", "1", *given, "--out", str(tmp_path / "run"))).code == 0
    assert [one.precisions for one in asked] == [
        ("fp32", "int8"),
        ("fp32", "fp16", "int8"),
        ("fp32",),
        ("fp32", "int8"),
    ]
    assert [one.budget for one in asked] == [Budget(max_drop=1.0)] * 3 + [Budget(macs=0.5)]
    assert asked[0].table == Path("runs/local.table.json")
    assert (asked[1].table, asked[1].threads) == (Path("runs/local.4-threads.table.json"), 4)


@pytest.mark.slow
def test_the_demo_network_on_this_machine_from_the_table_to_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every step is real; how fast anything comes out is the machine's affair, and what chance it leaves."""
    for module in (profiling, trying):
        monkeypatch.setattr(module, "doubts", lambda _: ())
    monkeypatch.setattr(compare, "clean_blocks", lambda one: one.blocks)  # other programs are not minded
    out, table = tmp_path / "run", tmp_path / "table.json"
    ran = run_here("compress", "--max-drop", "2", "--device", "local", "--table", str(table), "--out", str(out))
    assert ran.code in (0, 1), ran.err
    document = json.loads((out / "report.json").read_text())
    jsonschema.Draft202012Validator(json.loads(SCHEMA_FILE.read_text())).validate(document)
    front = document["front"]
    assert (front["images"], front["format"]) == (300, "onnx")
    (chosen,) = [one for one in front["candidates"] if one["chosen"]]
    assert chosen["fits"]
    assert {one["precision"] for one in front["candidates"]} == {"fp32", "int8"}
    assert all(one["measured"] and one["ci95"] for one in front["candidates"])
    assert {one["precision"] for one in document["artifacts"]} == {"fp32", chosen["precision"]}
    assert (document["budget"]["plan"] == chosen["plan"]) or not chosen["plan"]
    assert (ran.code == 1) == ("goal missed" in ran.err)
