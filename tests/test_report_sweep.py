"""The table of a sweep: what it says of each task, on every page."""

from __future__ import annotations

import json
from dataclasses import replace
from io import StringIO

import jsonschema
import pytest
from report_samples import FULL, speed_up
from rich.console import Console

from edgeprune.report.bench import SCHEMA_FILE as BENCH_SCHEMA_FILE
from edgeprune.report.precisions import FileAccuracy
from edgeprune.report.render import sweep as pages
from edgeprune.report.render.pareto import Spot, chart, front
from edgeprune.report.scores import Accuracy, Change, Step
from edgeprune.report.sweep import SCHEMA_FILE, Row, SweepReport, with_findings

EVIL = "<script>alert(1)</script>|`x`*y*\n# [a](b)"
ROW = Row("qsfm-macs-0.65-fp32", "qsfm", {"macs": 0.65}, "fp32", 0, "", 12.5)


def in_int8(report=FULL):
    """A report with an int8 file of the cut model in each format."""
    cuts = tuple(
        replace(one, path=one.path.replace("fp32", "int8"), precision="int8")
        for one in report.artifacts
        if one.role == "pruned"
    )
    files = tuple(
        FileAccuracy(one.path, "int8", "pruned.fp32.onnx", "top1", 1044, share, None, Change(lost, (lost - 0.02, lost)))
        for one, share, lost in zip(cuts, (0.695, 0.69), (-0.084, -0.089), strict=True)
    )
    faster = replace(speed_up("onnxruntime", 2, 2.5, (2.4, 2.6), "faster"), candidate=cuts[0].path)
    return replace(report, artifacts=(*report.artifacts, *cuts), files=files, comparisons=(*report.comparisons, faster))


def a_report() -> SweepReport:
    rows = (
        with_findings(ROW, "tasks/qsfm-macs-0.65-fp32", FULL),
        with_findings(replace(ROW, task="b", precision="int8", exit_code=1), "tasks/b", in_int8()),
        Row("c", "fscl", {"speedup": 1.5}, "fp32", 5, "pruned-fp32.onnx does not compute what the model computes"),
        Row("d", "fscl", {"speedup": 2.0}, "fp32"),
    )
    return SweepReport("0.1.0", "mobilenet_v2_tf", "rpi4", rows, "One by one.", ("edgeprune", "sweep"), "2026-11-22")


def test_a_task_in_fp32_has_the_numbers_of_the_cut_model():
    row = with_findings(ROW, "tasks/a", FULL)
    assert (row.macs_kept, row.accuracy.share, row.accuracy.change.difference) == (0.6487, 0.701, -0.078)
    assert [one.ratio for one in row.comparisons] == [1.3124, 1.3102, 1.0081]
    assert row.least.ratio == 1.0081
    assert row.doubts == ("THROTTLED",)


def test_a_task_in_int8_has_those_of_its_files_the_worst_where_there_are_several():
    row = with_findings(replace(ROW, precision="int8"), "tasks/a", in_int8())
    assert (row.accuracy.share, row.accuracy.change.difference) == (0.69, -0.089)
    assert [one.ratio for one in row.comparisons] == [2.5]
    assert row.doubts == ()


def test_without_labels_the_change_is_what_agreement_with_the_uncut_model_lacks_of_1():
    accuracy = Accuracy("agreement", 400, (Step("uncut", 1.0), Step("cut", 0.9)))
    scored = with_findings(ROW, "tasks/a", replace(FULL, accuracy=accuracy)).accuracy
    assert (scored.metric, scored.share, scored.change.difference) == ("agreement", 0.9, pytest.approx(-0.1))
    low, high = scored.change.ci95
    assert -0.15 < low < -0.1 < high < 0
    file = replace(in_int8().files[0], metric="agreement", share=0.99, against_uncut=Change(-0.12, (-0.15, -0.09)))
    found = with_findings(replace(ROW, precision="int8"), "tasks/a", replace(in_int8(), files=(file,))).accuracy
    assert found.share == pytest.approx(0.88)


def test_a_run_without_accuracy_and_times_has_neither():
    row = with_findings(ROW, "tasks/a", replace(FULL, accuracy=None, comparisons=(), measurements=()))
    assert (row.accuracy, row.least) == (None, None)
    assert (row.macs_kept, row.result) == (0.6487, "done")


@pytest.mark.parametrize(
    ("code", "run", "result", "failed"),
    [
        (None, "", "not run", False),
        (0, "tasks/a", "done", False),
        (1, "tasks/a", "goal missed", False),
        (1, "", "failed (1)", True),
        (4, "tasks/a", "failed (4)", True),
    ],
)
def test_how_a_task_ended_is_told_in_words(code, run, result, failed):
    row = replace(ROW, exit_code=code, run=run)
    assert (row.result, row.failed) == (result, failed)


def test_the_document_is_valid_by_its_published_schema():
    schema = json.loads(SCHEMA_FILE.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    document = json.loads(pages.FILES["sweep.json"](a_report()))
    jsonschema.validate(document, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**document, "more": 1}, schema)
    shared = json.loads(BENCH_SCHEMA_FILE.read_text())["properties"]["comparisons"]["items"]
    assert schema["properties"]["rows"]["items"]["properties"]["comparisons"]["items"] == shared


def test_the_markdown_page_tells_all_tasks_and_what_went_wrong():
    page = pages.markdown(a_report())
    lines = [line for line in page.splitlines() if line.startswith("| ") and "---" not in line]
    assert len(lines) == 5
    assert "64.9 % | 70.1 % [67.3, 72.8] | \\-7.8 [-9.9, -5.7] | 1.01x [0.97, 1.04] |" in lines[1]
    assert lines[1].endswith("| done (THROTTLED) |")
    assert lines[2].endswith("2.50x [2.40, 2.60] | onnxruntime, 2 thr | goal missed |")
    assert lines[3].endswith("| failed (5) |")
    assert lines[4].endswith("| not run |")
    assert "c: exit code 5: pruned-fp32.onnx does not compute" in page
    assert "4 tasks: 1 done, 1 goal missed, 1 failed, 1 not run." in page


def test_the_terminal_shows_the_same_in_80_columns():
    page = StringIO()
    Console(file=page, width=80, color_system=None).print(pages.renderable(a_report()))
    lines = page.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert any(line.startswith("fscl") and line.rstrip().endswith("failed (5)") for line in lines)
    assert "failed: c: exit code 5" in page.getvalue()


def test_no_text_of_the_user_becomes_markup():
    rows = (replace(a_report().rows[2], task=EVIL, criterion=EVIL, error=EVIL),)
    report = replace(a_report(), model=EVIL, rows=rows, command=("edgeprune", EVIL))
    assert "<script>alert" not in pages.html(report)
    table = [line for line in pages.markdown(report).splitlines() if line.startswith("| ")]
    assert len(table) == 3
    assert "<script>" not in "".join(table)


# The plot


def a_spot(speed: float, points: float, name: str = "") -> Spot:
    return Spot(
        speed, (speed - 0.1, speed + 0.1), Change(points / 100, ((points - 1) / 100, (points + 1) / 100)), "fp32", name
    )


def test_the_front_is_what_none_beats_in_both():
    spots = [a_spot(1.2, -0.5), a_spot(2.0, -4.0), a_spot(1.5, -1.0), a_spot(1.4, -2.0), a_spot(1.5, -3.0)]
    assert [(one.speed, one.change.difference) for one in front(spots)] == [(2.0, -0.04), (1.5, -0.01), (1.2, -0.005)]


def test_a_faster_one_stands_to_the_right_and_a_worse_one_below():
    drawn = chart([a_spot(1.2, -0.5, "a"), a_spot(2.0, -4.0, "b")], missing=3)
    first, second = drawn.points
    assert first.left < first.at < first.right < second.left < second.at < second.right
    assert first.top < first.height < first.bottom
    assert first.height < second.height
    assert 0 < drawn.one < first.left
    assert all(
        0 <= value <= 100 for point in drawn.points for value in (point.left, point.right, point.top, point.bottom)
    )
    assert drawn.front == f"M{second.at} {second.height}V{first.height}H{first.at}"
    assert (drawn.limit, drawn.missing) == (None, 3)


def test_a_limit_is_drawn_where_it_is_and_what_is_chosen_comes_last():
    drawn = chart([replace(a_spot(2.0, -0.5), verdict="chosen"), a_spot(1.2, -0.1)], limit=-3.0)
    assert [point.verdict for point in drawn.points] == ["kept", "chosen"]
    assert max(point.bottom for point in drawn.points) < drawn.limit < 100


def test_nothing_is_drawn_of_nothing():
    assert chart([]) is None
    assert "<figure>" not in pages.html(replace(a_report(), rows=a_report().rows[2:]))


def test_one_spot_alone_has_axes_too():
    exact = Change(0.0, (0.0, 0.0))
    drawn = chart([Spot(1.0, None, exact, "fp32", "")])
    assert [(point.at, point.height) for point in drawn.points] == [(50.0, 50.0)]


def test_the_page_draws_tasks_that_have_accuracy_and_speed_up():
    drawn = pages.plot(a_report())
    assert [point.text for point in drawn.points] == [
        "qsfm-macs-0.65-fp32, -7.8 [-9.9, -5.7] points, 1.01x [0.97, 1.04], THROTTLED",
        "b, -8.9 [-10.9, -8.9] points, 2.50x [2.40, 2.60]",
    ]
    assert [point.verdict for point in drawn.points] == ["lost", "kept"]
    page = pages.html(a_report())
    assert "Points of accuracy against speed-up over</b>" in page
    assert "2 have no accuracy or no speed-up and are not drawn." in page


def test_where_nothing_was_timed_it_is_drawn_against_macs():
    rows = tuple(replace(row, comparisons=()) for row in a_report().rows)
    page = pages.html(replace(a_report(), rows=rows))
    assert "Points of accuracy against times fewer MACs than</b>" in page
    assert "1.54x fewer MACs" in page
    assert "speed-up over</b>" not in page
