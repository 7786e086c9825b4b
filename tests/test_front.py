"""What was tried for an accuracy that alone was asked for, in every form of the report."""

from __future__ import annotations

import json
from dataclasses import replace

import jsonschema
import pytest
from report_samples import FRONT, FULL

from edgeprune.report.document import SCHEMA_FILE, Report
from edgeprune.report.front import Front
from edgeprune.report.headline import headline
from edgeprune.report.parts import BudgetFacts
from edgeprune.report.render import html, markdown, terminal
from edgeprune.report.render.front_chart import front_chart
from edgeprune.report.tables import tables
from edgeprune.report.wording import budget

WALKED = replace(FULL, front=FRONT)


def taken(front: Front, place: int, **changes: object) -> Front:
    """The front with another candidate chosen, and changes to all candidates."""
    found = (
        replace(one, chosen=at == place, **({} if one.is_reference else changes))  # type: ignore[arg-type]
        for at, one in enumerate(front.candidates)
    )
    return replace(front, candidates=tuple(found))


def test_the_table_has_a_row_for_each_file_that_was_tried() -> None:
    drawn = tables(WALKED)["front"]
    assert drawn.rows[0] == ("uncut", "fp32", "100.0 %", "-", "-", "-", "1x", "kept")
    assert drawn.rows[1] == ("uncut", "int8", "100.0 %", "2", "-0.4 [-0.9, +0.1]", "-", "1.84x [1.81, 1.87]", "kept")
    assert drawn.rows[3][4:] == ("-4.1 [-5.4, -2.8]", "-", "3.90x [3.80, 4.00]", "too much lost")
    assert [row[-1] for row in drawn.rows].count("chosen") == 1
    assert "front" not in tables(FULL)


@pytest.mark.parametrize("renderer", [html, markdown, terminal])
def test_every_report_draws_it(renderer: object) -> None:
    text = " ".join(renderer.render(WALKED).split())  # type: ignore[attr-defined]
    assert "Speed against accuracy" in text
    assert "2.61x" in text
    assert "too much lost" in text


def test_the_report_with_it_is_valid_and_comes_back() -> None:
    document = WALKED.to_json()
    jsonschema.Draft202012Validator(json.loads(SCHEMA_FILE.read_text())).validate(document)
    assert Report.from_json(document) == WALKED
    assert "front" not in FULL.to_json()


def test_what_was_asked_is_said() -> None:
    asked = replace(FULL, budget=BudgetFacts({"max_drop": 1.0}, {"macs": 0.6}, "5f0c"))
    assert budget(asked).startswith("Asked: the fastest that loses at most 1 points of accuracy; reached: 60 %")


def test_the_fastest_cut_is_named_with_what_it_costs() -> None:
    assert FRONT.missed == ""
    (said,) = FRONT.sentences()
    assert said == (
        "Of 6 files tried, the fastest that loses at most 1 point of top-1 (on 1,000 images to choose by): cut for "
        "1.56x, in int8: 2.61x [2.56, 2.66], -0.8 [-1.5, -0.1] points."
    )


def test_where_no_cut_fits_the_uncut_model_in_the_best_precision_is_named() -> None:
    none = replace(FRONT, candidates=tuple(replace(one, fits=one.fits and not one.plan) for one in FRONT.candidates))
    (said,) = taken(none, 1).sentences()
    assert said.startswith(
        "Nothing is cut: no cut that loses at most 1 point of top-1 (on 1,000 images to choose by) was"
    )
    assert said.endswith("The uncut model in int8: 1.84x [1.81, 1.87], -0.4 [-0.9, +0.1] points.")
    (said,) = taken(FRONT, 1).sentences()
    assert "no cut that loses at most 1 point of top-1 (on 1,000 images to choose by) is faster." in said
    assert taken(none, 1).missed == ""


def test_where_nothing_is_surely_faster_that_is_a_missed_goal() -> None:
    front = taken(FRONT, 0)
    assert front.missed == "no file that loses at most 1 point of top-1 is surely faster than the uncut model in fp32"
    assert front.sentences() == (f"Nothing is cut: {front.missed} (on 1,000 images to choose by).",)
    untimed = replace(
        front, candidates=(*front.candidates[:-1], replace(front.candidates[-1], measured=None, fits=True))
    )
    assert untimed.missed.endswith("in fp32; 1 that could not be timed may be")


def test_what_is_only_foretold_is_called_so() -> None:
    front = taken(FRONT, 4, measured=None, ci95=None)
    assert not front.is_measured
    (said,) = front.sentences()
    assert said == (
        "Cut for 1.56x, the most that was tried of which fp32 and int8 lost at most 1 point of top-1 (on 1,000 images "
        "to choose by); foretold, not measured."
    )
    rows = tables(replace(FULL, front=front))["front"].rows
    assert {row[6] for row in rows} == {"1x", "not measured"}
    assert "not measured" in tables(replace(FULL, front=front))["front"].note


def test_the_headline_begins_with_the_precision_that_was_chosen() -> None:
    first, *_ = FULL.comparisons
    int8 = replace(FULL.artifacts[1], path="pruned.int8.onnx", precision="int8")
    faster = replace(first, candidate=int8.path, ratio=2.61, ci95=(2.56, 2.66), verdict="faster")
    report = replace(WALKED, artifacts=(*FULL.artifacts, int8), comparisons=(first, faster))
    assert headline(report).startswith("2.61x faster [2.56, 2.66] in onnxruntime with 1 thread, for int8 and ")
    assert headline(replace(report, front=None)).startswith("1.31x faster")


def test_the_plot_has_what_was_measured_where_it_was_measured() -> None:
    chart = front_chart(FRONT)
    assert chart is not None
    assert len(chart.points) == len(FRONT.candidates)
    *others, chosen = chart.points
    assert (chosen.verdict, chosen.precision) == ("chosen", "int8")
    assert chosen.text == "cut for 1.56x, int8 2.61x [2.56, 2.66], -0.8 [-1.5, -0.1] points"
    assert sorted(one.verdict for one in others) == ["kept"] * 4 + ["lost"]
    for one in chart.points:
        assert 0 <= one.left <= one.at <= one.right <= 100
        assert 0 <= one.top <= one.height <= one.bottom <= 100
        assert (one.height > chart.limit) == (one.verdict == "lost")
        assert one.at >= chart.one
    reference = others[0]
    assert (reference.at, reference.left, reference.right) == (chart.one,) * 3
    assert reference.top == reference.bottom == reference.height


def test_the_line_joins_the_files_that_none_beats_in_both() -> None:
    chart = front_chart(FRONT)
    assert chart is not None
    assert chart.front.count("H") == 4  # all but cut for 2.45x in fp32: 1.56x in int8 is faster and more accurate
    beaten = next(one for one in chart.points if one.text.startswith("cut for 2.45x, fp32"))
    assert f"H{beaten.at}" not in chart.front


def test_what_is_foretold_is_not_drawn() -> None:
    assert front_chart(None) is None
    assert front_chart(taken(FRONT, 4, measured=None, ci95=None)) is None
    one_missing = replace(FRONT.candidates[2], measured=None, ci95=None)
    chart = front_chart(replace(FRONT, candidates=(*FRONT.candidates[:2], one_missing, *FRONT.candidates[3:])))
    assert chart is not None
    assert (len(chart.points), chart.missing) == (5, 1)


def test_the_page_draws_the_plot_and_marks_the_chosen_one() -> None:
    def drawing(front: Front | None) -> str:
        return html.render(replace(FULL, front=front)).partition("</style>")[2]

    assert drawing(FRONT).count('class="ring"') == 1
    assert drawing(FRONT).count('<g class="int8 lost">') == 1
    assert "pareto" not in drawing(None)
    assert "pareto" not in drawing(taken(FRONT, 4, measured=None, ci95=None))
