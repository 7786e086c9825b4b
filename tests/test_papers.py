"""benchmarks/papers: results that are kept and compared image by image, widths from a word, and the quick tables."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from nets import plan_of

PAPERS = Path(__file__).parent.parent / "benchmarks" / "papers"
sys.path.append(str(PAPERS))

from curves import CRITERIA as COMPARED  # noqa: E402
from page import lines_of, words  # noqa: E402
from trials import Result, Results, Trial, difference  # noqa: E402
from widths import widths_of  # noqa: E402

from edgeprune.criteria import CRITERIA  # noqa: E402
from edgeprune.model import load_model  # noqa: E402
from edgeprune.program import capture  # noqa: E402
from edgeprune.prune.cost import cost  # noqa: E402
from edgeprune.prune.surgery import apply  # noqa: E402
from edgeprune.prune.trace import trace  # noqa: E402


def result_of(right: list[int], **more) -> Result:
    return Result(Trial("resnet56", images=len(right), **more), np.array(right, bool), 0.5, 0.4, (3, 4), 1.5)


def test_a_result_is_the_same_after_it_was_kept(tmp_path):
    results, one = Results(tmp_path / "new" / "results.jsonl"), result_of([1, 0, 1, 1, 0, 0, 1, 0, 1], criterion="l1")
    results.add(one)
    (again,) = [Results(results.path)[one.trial]]
    assert again.to_json() == one.to_json()
    assert np.array_equal(again.right, one.right)


def test_only_what_was_not_run_is_missing_and_each_once(tmp_path):
    results, done, other = Results(tmp_path / "r.jsonl"), result_of([1, 0]), Trial("resnet56", "l1")
    results.add(done)
    assert Results(results.path).missing([done.trial, other, other]) == [other]


def test_a_difference_is_taken_image_by_image():
    """Of four images one is lost and none won: -25 points; with half an image added to each count 1/2 won and 3/2 lost
    of 6, -1/6 with a standard error of sqrt((2/6 - 1/36) / 6) = 0.2257."""
    lost = difference(result_of([1, 1, 0, 0]), result_of([1, 1, 1, 0]))
    assert (lost.points, round(lost.low, 1), round(lost.high, 1)) == (-25, -60.9, 27.6)
    assert not lost.sure
    assert difference(result_of([1] * 50), result_of([0] * 50)).sure


def test_words_say_who_is_better(tmp_path):
    results = Results(tmp_path / "r.jsonl")
    for name, right in (("ssm", [1] * 40), ("l1", [0] * 40), ("fscl", [1] * 39 + [0])):
        results.add(result_of(right, criterion=name))

    def said(name: str, other: str) -> str:
        return words(results, Trial("resnet56", name, images=40), other)

    assert said("ssm", "l1") == "better than l1"
    assert said("l1", "ssm") == "**ssm is better**"
    assert said("ssm", "fscl") == "no sure difference to fscl"
    assert said("ssm", "random") == ""


def test_every_criterion_is_compared():
    assert set(COMPARED) == set(CRITERIA.rows)


def test_widths_derived_for_qsfm_cost_what_its_table_says():
    """Kept 10/17/24 of 16/32/64: -48.7 % of MACs and -58 % of parameters."""
    model = load_model("resnet56")
    program = capture(model.module, model.input.shape)
    channel_map = trace(program)
    widths = widths_of("10/17/24", channel_map, lambda rate: None)
    assert sorted(set(widths.values())) == [10, 17, 24]
    plan = plan_of(channel_map, {name: tuple(range(width)) for name, width in widths.items()})
    pruned = apply(plan, channel_map, model)
    again = capture(pruned.module, pruned.input.shape)
    whole, cut = cost(program, channel_map, model.module), cost(again, trace(again), pruned.module)
    assert 1 - cut.macs / whole.macs == pytest.approx(0.487, abs=5e-4)
    assert 1 - cut.parameters / whole.parameters == pytest.approx(0.579, abs=3e-3)


def test_a_page_fills_its_paragraphs_and_leaves_lists_and_tables():
    page = lines_of("Title", "script", "one\ntwo\n\n- a\n- b", ["| x |", "|---|"])
    assert page == "# Title\n\n    python benchmarks/papers script\n\none two\n\n- a\n- b\n\n| x |\n|---|\n"


@pytest.mark.parametrize("name", ["no_training", "fine_tuning", "mobilenet", "own_widths", "ablations", "curves"])
def test_the_pages_that_are_there_are_those_that_the_results_give(name):
    page = importlib.import_module(name).page(Results(PAPERS / "results.jsonl"), False)
    assert page == (PAPERS / f"{name}.md").read_text()


@pytest.mark.data
@pytest.mark.slow
def test_the_quick_tables_are_run_once_and_written(tmp_path):
    command = [sys.executable, str(PAPERS), "no_training", "own_widths", "--quick", "--out", str(tmp_path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    pages = {path.name: path.read_text() for path in tmp_path.glob("*.md")}
    assert set(pages) == {"no_training.md", "own_widths.md"}
    assert "| apssf | refitted by least squares | 0 | 51.3 % | 41.9 % |" in pages["no_training.md"]
    assert "1/15 resnet56 uncut" in done.stderr
    again = subprocess.run(command, check=True, capture_output=True, text=True)
    assert again.stderr == ""
    assert {path.name: path.read_text() for path in tmp_path.glob("*.md")} == pages
