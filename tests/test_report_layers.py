"""Why a cut file is not faster, in a report: in JSON and back, in Markdown, in HTML that a phone can show."""

from __future__ import annotations

import json
from dataclasses import replace

import jsonschema
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from report_samples import FULL

from edgeprune.explanation import Explanation, Finding, LayerChange
from edgeprune.report.bench import SCHEMA_FILE as BENCH_SCHEMA
from edgeprune.report.bench import BenchReport
from edgeprune.report.document import SCHEMA_FILE, Report
from edgeprune.report.layers import change_table, slowest
from edgeprune.report.render import bench, html, markdown
from edgeprune.report.render.layer_bars import layer_times


def a_change(name: str, before: float, after: float) -> LayerChange:
    return LayerChange(name, (before, after), (2000, 1000), (4.0, 2.0), (64, 40), "memory", 0.1)


EXPLAINED = Explanation(
    baseline="baseline-fp32.onnx",
    candidate="pruned-fp32.onnx",
    runtime="onnxruntime",
    threads=1,
    ms=(21.0, 16.0),
    macs=(300, 200),
    layers=(a_change("stem <b>", 2.0, 2.0), a_change("body | x", 10.0, 5.0), a_change("everything else", 0.0, 0.0)),
    findings=(Finding("UNCUT", "1 layer was not cut", 0.3, "See why.", ("stem <b>",)),),
    peak_gflops=12.0,
    peak_source="devices/rpi4.toml, at 1.5 GHz",
    device="Raspberry Pi 4 Model B",
)
REPORT = replace(FULL, explanations=(EXPLAINED,))


def single_files() -> BenchReport:
    parts = ("edgeprune_version", "artifacts", "devices", "measurements", "comparisons", "run")
    return BenchReport(**{name: getattr(FULL, name) for name in parts}, explanations=(EXPLAINED,))


def test_a_report_keeps_its_explanations_and_one_without_any_is_as_before():
    document = json.loads(json.dumps(REPORT.to_json()))
    jsonschema.validate(document, json.loads(SCHEMA_FILE.read_text()))
    assert Report.from_json(document) == REPORT
    assert "explanations" not in FULL.to_json()
    jsonschema.validate(json.loads(bench.FILES["bench.json"](single_files())), json.loads(BENCH_SCHEMA.read_text()))


def test_a_cause_that_is_not_in_the_closed_list_is_no_valid_report():
    wrong = replace(REPORT, explanations=(replace(EXPLAINED, findings=(Finding("MAGIC", "", 0.1, ""),)),))
    with pytest.raises(jsonschema.ValidationError, match="MAGIC"):
        jsonschema.validate(json.loads(json.dumps(wrong.to_json())), json.loads(SCHEMA_FILE.read_text()))


@pytest.mark.parametrize("text", [markdown.render(REPORT), bench.markdown(single_files())], ids=["run", "files"])
def test_markdown_shows_the_reasons_and_every_layer_with_its_text_made_plain(text):
    assert "## Time of each layer" in text
    assert "pruned-fp32.onnx beside baseline-fp32.onnx (onnxruntime, 1 thread, Raspberry Pi 4 Model B)" in text
    assert "- UNCUT: 1 layer was not cut. See why." in text.replace("\\", "")
    assert "| stem &lt;b> |" in text
    assert r"| body \| x | 64 -> 40 | 10.0 | 5.00 | 50% | 50% | 2.00 | 17% |" in text


@pytest.mark.parametrize("page", [html.render(REPORT), bench.html(single_files())], ids=["run", "files"])
def test_html_draws_a_pair_of_bars_for_each_layer(page):
    assert page.count('class="bar-before" x="0"') == page.count('class="bar-after" x="0"') == 3
    assert "stem &lt;b&gt;" in page
    assert "UNCUT: 1 layer was not cut. See why." in page
    assert "Time of each layer" not in html.render(FULL)


def test_the_slowest_layer_reaches_the_end_and_the_others_their_share():
    (chart,) = layer_times(REPORT)
    assert [(bar.label, bar.before, bar.after) for bar in chart.bars] == [
        ("body | x", 100.0, 50.0),
        ("stem <b>", 20.0, 20.0),
        ("everything else", 0.0, 0.0),
    ]
    assert chart.bars[0].text == "10.0 -> 5.00"
    assert chart.bars[-1].text == "< 0.001 -> < 0.001"


@example([(0.0, 5e-324)], 1)
@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 100)), min_size=1, max_size=60), st.integers(1, 40))
def test_no_time_is_lost_where_layers_are_added_up(times, most):
    one = replace(EXPLAINED, layers=tuple(a_change(f"l{at}", *pair) for at, pair in enumerate(times)))
    shown = slowest(one, most)
    assert len(shown) == min(len(times), most + 1)
    for side in (0, 1):
        assert sum(layer.ms[side] for layer in shown) == pytest.approx(sum(pair[side] for pair in times))
    assert len(change_table(one).rows) == min(len(times), 13) + 1
    assert all(
        0 <= bar.before <= 100 and 0 <= bar.after <= 100
        for bar in layer_times(replace(REPORT, explanations=(one,)))[0].bars
    )
