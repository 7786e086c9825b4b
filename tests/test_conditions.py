"""Conditions on the shapes of inputs: a small part of Python, read without running any."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprune.conditions import from_guard, holds, understood
from edgeprune.errors import ModelError

SHAPES = {"x": (2, 3, 12, 16), "mask": (2, 5)}


@pytest.mark.parametrize(
    ("condition", "met"),
    [
        ("x[1] == 3", True),
        ("x[2] > 12", False),
        ("x[2] * x[3] >= 192", True),
        ("(-1) + x[2] // 2 != 5", False),
        ("1 < mask[1] <= 5", True),
        ("x[2] < 12 or not x[3] % 5 == 0", True),
        ("x[2] < 12 and x[3] > 1", False),
        ("max(1, x[2] - 20) == min(1, x[2])", True),
        ("6 % (x[2] - 12) != 0", False),
    ],
)
def test_a_condition_is_met_or_not(condition: str, met: bool):
    assert holds(condition, SHAPES) is met
    assert understood(condition, SHAPES)


def test_what_export_takes_for_granted_becomes_a_condition():
    assert from_guard("(1 + L['x'].size()[3] // 2) != L['mask'].size()[1]") == "(1 + x[3] // 2) != mask[1]"


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "x.__class__",
        "x[2] > other[1]",
        "x['2'] == 1",
        "x[9] == 1",
        "(lambda: 1)()",
        "eval('1')",
        "max(x[2], key=1)",
        "2 ** 9 > 1",
        "x[2] >",
        "'a' * 9",
        "",
    ],
)
def test_everything_else_is_refused_and_not_run(text: str):
    assert not understood(text, SHAPES)
    with pytest.raises(ModelError, match="not a condition"):
        holds(text, SHAPES)


@given(st.text(max_size=40))
def test_no_text_does_any_harm(text: str):
    assert understood(text, SHAPES) in (True, False)
