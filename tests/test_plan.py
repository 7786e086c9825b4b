"""PruningPlan, Budget and Cost: decisions as data."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprune.errors import EdgepruneError, UsageError
from edgeprune.plan import Budget, Cost, PruningPlan

PLAN = PruningPlan(
    model="ab" * 32,
    criterion="qsfm",
    settings={"metric": "ssim", "images": 128},
    budget=Budget(macs=0.5),
    channel_multiple=8,
    sizes={"conv1": 16, "conv2": 8},
    keep={"conv1": (0, 3, 5)},
    macs_kept=0.49,
)

plans = st.builds(
    PruningPlan,
    model=st.text(),
    criterion=st.text(),
    settings=st.dictionaries(st.text(), st.integers() | st.text() | st.floats(allow_nan=False, allow_infinity=False)),
    budget=st.builds(Budget, ratio=st.floats(0.01, 0.99)) | st.builds(Budget, macs=st.floats(0.01, 0.99)),
    channel_multiple=st.integers(1, 32),
    sizes=st.dictionaries(st.text(), st.integers(1, 2048)),
    keep=st.dictionaries(st.text(), st.lists(st.integers(0, 2047), unique=True).map(lambda kept: tuple(sorted(kept)))),
    macs_kept=st.floats(0, 1),
)


@given(plans)
def test_a_plan_survives_json(plan):
    again = PruningPlan.from_json(json.loads(json.dumps(plan.to_json())))
    assert again == plan
    assert again.fingerprint == plan.fingerprint
    assert again.macs_kept == plan.macs_kept


def test_a_plan_survives_a_file(tmp_path):
    PLAN.save(tmp_path / "plan.json")
    assert PruningPlan.load(tmp_path / "plan.json") == PLAN


def test_the_document_says_what_was_asked_and_what_was_reached():
    document = PLAN.to_json()
    assert document["asked"] == {"macs": 0.5}
    assert document["reached"] == {"macs": 0.49}
    assert document["schema"] == 1


def test_spaces_not_named_stay_whole():
    assert (PLAN.width("conv1"), PLAN.width("conv2")) == (3, 8)


def test_the_fingerprint_is_that_of_the_decision_alone():
    assert replace(PLAN, criterion="l1", settings={}, macs_kept=0.1).fingerprint == PLAN.fingerprint
    assert replace(PLAN, keep={"conv1": (0, 3, 6)}).fingerprint != PLAN.fingerprint
    assert replace(PLAN, model="cd" * 32).fingerprint != PLAN.fingerprint


def test_the_order_in_which_spaces_are_named_does_not_matter():
    one = replace(PLAN, keep={"conv1": (0,), "conv2": (1,)})
    assert replace(PLAN, keep={"conv2": (1,), "conv1": (0,)}).fingerprint == one.fingerprint


@pytest.mark.parametrize(
    "key", ["model", "criterion", "settings", "asked", "channel_multiple", "sizes", "keep", "reached"]
)
def test_a_document_without_a_field_is_refused_by_its_name(key):
    document = PLAN.to_json()
    del document[key]
    with pytest.raises(EdgepruneError, match=f"not a pruning plan.*{key}"):
        PruningPlan.from_json(document)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("keep", [1, 2]),
        ("keep", {"a": 3}),
        ("keep", {"a": ["x"]}),
        ("sizes", None),
        ("asked", {"speed": 1}),
        ("channel_multiple", "eight"),
        ("reached", {}),
        ("settings", 5),
    ],
)
def test_a_field_of_the_wrong_kind_is_refused(key, value):
    with pytest.raises(EdgepruneError, match="not a pruning plan"):
        PruningPlan.from_json({**PLAN.to_json(), key: value})


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": 2}', "null", "\x00"])
def test_a_file_that_is_no_plan_is_refused_with_its_path(tmp_path, text):
    path = tmp_path / "plan.json"
    path.write_text(text)
    with pytest.raises(EdgepruneError) as caught:
        PruningPlan.load(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("value", [0.01, 0.5, 0.999])
def test_budgets_between_the_ends_are_accepted(value):
    Budget(ratio=value).check()
    Budget(macs=value).check()


@pytest.mark.parametrize("value", [0, 1, -0.1, 1.2, math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("option", ["ratio", "macs"])
def test_budgets_that_ask_for_nothing_all_or_no_number_are_refused(option, value):
    with pytest.raises(UsageError, match=rf"--{option} must lie between 0 and 1, both excluded; got"):
        Budget(**{option: value}).check()


def test_a_cost_as_json_names_its_units():
    assert Cost(3, 2, 1).to_json() == {"macs": 3, "parameters": 2, "peak_activation_bytes": 1}
