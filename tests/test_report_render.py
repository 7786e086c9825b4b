import json
import os
import re
from dataclasses import replace
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path

import jsonschema
import pytest
from report_samples import FULL, MACHINE, SUSTAINED
from rich.console import Console

from edgeprune.errors import UsageError
from edgeprune.report.bench import SCHEMA_FILE, BenchReport
from edgeprune.report.document import SCHEMA_FILE as RUN_SCHEMA_FILE
from edgeprune.report.energy import Energy
from edgeprune.report.heat import sentences
from edgeprune.report.parts import Images, Protected
from edgeprune.report.render import FILES, RENDERERS, bench, charts
from edgeprune.report.render.markdown import escape
from edgeprune.report.render.terminal import renderable
from edgeprune.report.render.timeline import heated, timelines
from edgeprune.report.tables import tables

GOLDEN = Path(__file__).parent / "golden" / "report"
EVIL = "<script>alert(1)</script>|`x`*y*\n# [a](b)"


def evil_report():
    return replace(
        FULL,
        model=replace(FULL.model, name=EVIL, source=EVIL),
        target=replace(FULL.target, title=EVIL, warnings=(EVIL,)),
        data=replace(FULL.data, scoring=Images(EVIL, 3, (EVIL,))),
        layers=tuple(replace(layer, name=EVIL) for layer in FULL.layers),
        protected=(Protected(EVIL, EVIL),),
        artifacts=tuple(replace(one, path=EVIL) for one in FULL.artifacts),
        measurements=tuple(replace(one, artifact=EVIL, runtime=EVIL) for one in FULL.measurements),
        comparisons=tuple(replace(one, candidate=EVIL, runtime=EVIL) for one in FULL.comparisons),
        run=replace(FULL.run, command=("edgeprune", EVIL), warnings=(EVIL,), notes=(EVIL,)),
    )


def draw(name, report=FULL):
    return RENDERERS.load(name)(report)


@pytest.mark.parametrize(("file", "renderer"), [*FILES.items(), ("report.txt", "terminal")])
def test_the_drawing_is_the_golden_one(file, renderer):
    path, text = GOLDEN / file, draw(renderer)
    if os.environ.get("EDGEPRUNE_UPDATE_GOLDEN") == "1":
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8"), "EDGEPRUNE_UPDATE_GOLDEN=1 writes it anew"


def test_an_unknown_format_is_answered_with_the_nearest():
    with pytest.raises(UsageError, match="'markdown'"):
        RENDERERS.load("markdwon")


class Reader(HTMLParser):
    """Collects tags and their attributes, and checks that they nest."""

    VOID = frozenset({"meta", "line", "circle", "rect", "path"})

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.text = [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.mark.parametrize("report", [FULL, evil_report()], ids=["full", "evil"])
def test_the_html_nests_and_asks_nothing_of_the_network(report):
    page = Reader(draw("html", report))
    assert page.open == []
    assert not {tag for tag, _ in page.tags} & {"script", "link", "img", "iframe", "a", "object"}
    assert not [attrs for _, attrs in page.tags if attrs.keys() & {"src", "href", "onload", "style"}]
    assert not re.search(r"url\(|@import", draw("html", FULL))


def test_text_of_the_user_cannot_become_html():
    text = draw("html", evil_report())
    assert "<script" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text


def test_text_of_the_user_cannot_become_markdown():
    text = draw("markdown", evil_report())
    assert not re.search(r"(?m)^[^ \n].*<script", text)
    heads = re.findall(r"(?m)^# ", text)
    assert len(heads) == 1
    for table in re.findall(r"(?m)(?:^\|.*\|$\n?)+", text):
        bars = {len(re.findall(r"(?<!\\)\|", row)) for row in table.splitlines()}
        assert len(bars) == 1


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("plain_name.v2 [1.27, 1.35] a > b", "plain_name.v2 [1.27, 1.35] a > b"),
        ("a|b", r"a\|b"),
        ("_it_ *b* `c` ~~d~~", r"\_it\_ \*b\* \`c\` \~\~d\~\~"),
        ("[a](b) ![c][d]", r"[a\](b) ![c\][d]"),
        ("<b> & &lt;", "&lt;b> &amp; &amp;lt;"),
        ("# head", r"\# head"),
        ("> quote", r"\> quote"),
        ("1. one\ntwo", r"1\. one two"),
        ("1.31x faster", "1.31x faster"),
    ],
)
def test_markdown_marks_are_escaped_where_they_would_mark(text, safe):
    assert escape(text) == safe


def on_terminal(width, report=FULL, **options):
    page = StringIO()
    Console(file=page, width=width, legacy_windows=False, **options).print(renderable(report))
    return page.getvalue()


@pytest.mark.parametrize("width", [40, 60, 80, 120, 200])
def test_the_terminal_never_breaks_a_number(width):
    text = on_terminal(width, color_system=None)
    assert max(len(line) for line in text.splitlines()) <= width
    for timing in FULL.measurements:
        assert f"{timing.p50_ms:.3g}" in text
    assert "1.310x [1.303, 1.317]" in text


def test_a_wide_terminal_shows_the_minor_columns_too():
    assert "onnxruntime 1.22.1" in on_terminal(160, color_system=None)
    assert "onnxruntime 1.22.1" not in on_terminal(80, color_system=None)


def test_the_terminal_has_colours_only_where_wanted(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[32m" in on_terminal(100, force_terminal=True, color_system="standard")
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[32m" not in on_terminal(100, force_terminal=True, color_system="standard")


def test_brackets_in_names_are_no_style_marks():
    artifacts = tuple(replace(one, path="[bold]x[/bold]") for one in FULL.artifacts)
    assert "[bold]x[/bold]" in on_terminal(100, replace(FULL, artifacts=artifacts), color_system=None)


def test_the_speed_chart_holds_one_and_every_interval():
    chart = charts.speed(FULL)
    for row in chart.rows:
        assert 0 <= row.low <= row.at <= row.high <= 100
    faster = [row for row in chart.rows if row.verdict == "faster"]
    assert faster
    assert all(row.low > chart.one for row in faster)
    assert any(tick.text == "1x" and tick.at == chart.one for tick in chart.ticks)


def test_the_layer_chart_scales_to_the_widest():
    chart = charts.widths(FULL)
    assert chart.bars[-1].before == 100
    assert chart.bars[-1].after == 62.5
    assert all(bar.after <= bar.before for bar in chart.bars)


def test_times_of_one_setting_share_a_scale():
    groups = charts.times(FULL)
    assert [group.label for group in groups] == ["onnxruntime, 1 thread", "onnxruntime, 2 threads", "litert, 1 thread"]
    uncut, pruned = groups[0].rows
    assert (uncut.pruned, pruned.pruned) == (False, True)
    for row in (uncut, pruned):
        assert list(row.strip) == sorted(row.strip)
        assert row.strip[0] < row.p50 < row.p90 < row.p99 <= 100
    per_ms = (uncut.p50 - pruned.p50) / (21.4 - 16.3)
    assert uncut.p90 - uncut.p50 == pytest.approx(per_ms * 0.055 * 21.4, rel=1e-3)


def test_one_very_slow_call_does_not_set_the_scale():
    slow = tuple(replace(one, p99_ms=50 * one.p99_ms) for one in FULL.measurements)
    uncut, pruned = charts.times(replace(FULL, measurements=slow))[0].rows
    assert uncut.p99 == pruned.p99 == 100
    assert uncut.p50 - pruned.p50 > 10


def test_the_hill_rises_to_its_top_where_most_calls_are():
    hill = charts.times(FULL)[0].rows[0].hill
    assert hill.startswith("M")
    assert hill.endswith("100Z")
    heights = [float(place.split()[1]) for place in re.findall(r"L([\d. ]+)", hill)]
    assert min(heights) == 4
    assert max(heights) <= 100


def test_times_through_the_run_have_temperature_and_clock_on_the_same_axis():
    whole = timelines(FULL)
    assert [group.label for group in whole] == ["onnxruntime, 1 thread", "onnxruntime, 2 threads", "litert, 1 thread"]
    group = whole[2]
    assert [row.label for row in group.rows] == [
        "baseline.fp32.tflite",
        "pruned.fp32.tflite",
        "temperature",
        "clock",
    ]
    uncut, pruned, temperature, clock = group.rows
    assert (temperature.text, clock.text) == ("47 to 80 C", "1000 to 1800 MHz")
    assert [bool(point.why) for point in pruned.points] == [False] * 8 + [True] * 8
    assert (uncut.remark, pruned.remark) == ("", "THROTTLED: 8 of 16")
    assert max(point.height for point in pruned.points[8:]) < min(point.height for point in pruned.points[:8])
    assert (group.unit, group.missing) == ("s", "")
    assert float(group.ticks[0].text) >= 9
    assert [point.at for point in uncut.points] == sorted(point.at for point in uncut.points)


def test_a_machine_without_sensors_is_said_to_have_none():
    blind = tuple(
        replace(one, blocks=tuple(replace(block, temperature_c=None, clock_mhz=None) for block in one.blocks))
        for one in FULL.measurements
    )
    group = timelines(replace(FULL, measurements=blind))[0]
    assert group.missing == "This machine does not tell its temperature and clock."
    assert [row.kind for row in group.rows] == ["uncut", "pruned"]


def test_sustained_load_is_drawn_over_the_cold_times_with_a_mark_where_it_throttled():
    (group,) = heated(FULL)
    uncut, _, temperature, clock = group.rows
    assert (group.unit, [row.kind for row in group.rows]) == ("min", ["uncut", "pruned", "sensor", "sensor"])
    assert (temperature.text, clock.text) == ("46 to 82 C", "1000 to 1500 MHz")
    assert uncut.points == ()  # too many to be told apart
    assert 25 < group.mark < 35
    assert heated(replace(FULL, sustained=(replace(SUSTAINED, throttled_s=None),)))[0].mark is None


def test_sustained_load_is_told_in_every_format():
    page, text, shown = draw("html"), draw("markdown"), draw("terminal")
    for told in (page, text, shown):
        assert "Under load for 10 min 00 s: onnxruntime, 2 threads" in told
        assert "1.311x [1.305, 1.317]" in told
    for told in (page, text):
        assert "Throttled after 3 min 05 s (the clock: 1500 to 1000 MHz). At most 82 C." in told
    assert "| 4 | 82 | 1000 | 17.6 | 13.5 |" in text
    never = replace(SUSTAINED, throttled_s=None, sign="", evidence="looked at: the clock", still=False, trust="BUSY: x")
    told = " ".join(sentences(never))
    assert told.startswith("Not throttled (looked at: the clock).")
    assert "a longer run would say more" in told
    assert told.endswith("Not trustworthy: BUSY: x.")
    slower = replace(SUSTAINED, sign="times", evidence="the times: lastingly 5 % above the cold ones")
    assert sentences(slower)[0].startswith("Slower after 3 min 05 s (the times")


def test_energy_is_a_table_where_a_meter_is_and_a_sentence_where_none_is():
    assert "Measured by ina3221:VDD_IN: the whole board." in draw("markdown")
    found = tables(FULL)["energy"]
    assert found.rows[0] == ("baseline.fp32.onnx", "onnxruntime", "1", "4.61", "9.87", "143", "76.3")
    assert len(found.rows) == 4
    without = tuple(
        replace(one, energy=Energy("", "", None, None, None, None, "no sensor")) for one in FULL.measurements
    )
    assert tables(replace(FULL, measurements=without))["energy"].rows == ((MACHINE.name, "Unavailable: no sensor."),)
    unasked = tuple(replace(one, energy=None) for one in FULL.measurements)
    assert "energy" not in tables(replace(FULL, measurements=unasked))


def test_a_long_run_is_drawn_in_minutes():
    long = tuple(
        replace(one, blocks=tuple(replace(block, started_s=50 * block.started_s) for block in one.blocks))
        for one in FULL.measurements
    )
    assert timelines(replace(FULL, measurements=long))[0].unit == "min"


def test_measurements_of_before_blocks_were_known_have_no_timeline():
    old = tuple(replace(one, blocks=(), histogram=None) for one in FULL.measurements)
    report = replace(FULL, measurements=old)
    assert timelines(report) == ()
    assert "Times through the run" not in draw("html", report)


SINGLE = BenchReport(
    FULL.edgeprune_version, FULL.artifacts, FULL.devices, FULL.measurements, FULL.comparisons, FULL.run
)


@pytest.mark.parametrize("report", [SINGLE, replace(SINGLE, devices=(), measurements=(), comparisons=())])
def test_the_report_of_single_files_is_drawn_in_every_format(report):
    page = Reader(bench.html(report))
    assert page.open == []
    assert not {tag for tag, _ in page.tags} & {"script", "link", "img", "iframe", "a", "object"}
    assert ("Times through the run" in "".join(page.text)) == bool(report.measurements)
    assert bench.markdown(report).startswith("# pruned.fp32.onnx, ")
    document = json.loads(bench.FILES["bench.json"](report))
    jsonschema.Draft202012Validator(json.loads(SCHEMA_FILE.read_text())).validate(document)


def test_text_of_the_user_cannot_become_html_in_the_report_of_single_files():
    evil = evil_report()
    report = replace(SINGLE, artifacts=evil.artifacts, measurements=evil.measurements, run=evil.run)
    assert "<script" not in bench.html(report)
    assert not re.search(r"(?m)^[^ \n].*<script", bench.markdown(report))


def test_the_schema_of_single_files_is_that_of_runs_where_they_share_fields():
    single = json.loads(SCHEMA_FILE.read_text())
    whole = json.loads(RUN_SCHEMA_FILE.read_text())
    assert single["properties"] == {name: whole["properties"][name] for name in single["properties"]}
    assert single["$defs"].items() <= whole["$defs"].items()
