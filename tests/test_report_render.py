import os
import re
from dataclasses import replace
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path

import pytest
from report_samples import FULL
from rich.console import Console

from edgeprune.errors import UsageError
from edgeprune.report.parts import Images, Protected
from edgeprune.report.render import FILES, RENDERERS, charts
from edgeprune.report.render.markdown import escape
from edgeprune.report.render.terminal import renderable

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

    VOID = frozenset({"meta", "line", "circle", "rect"})

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


def test_times_of_one_setting_share_a_scale_from_zero():
    groups = charts.times(FULL)
    assert [group.label for group in groups] == ["onnxruntime, 1 thread", "onnxruntime, 2 threads", "litert, 1 thread"]
    uncut, pruned = groups[0].rows
    assert (uncut.pruned, pruned.pruned) == (False, True)
    assert pruned.p50 / uncut.p50 == pytest.approx(16.3 / 21.4, rel=1e-3)
