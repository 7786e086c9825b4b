"""allocate: how many filters go where, so that the budget is met and the widths suit the target."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from moving_nets import Grouped, GroupNormed, Maxout, Uneven
from nets import Dense, Flat, Inverted, Plain, Residual, Twice, found_in, traced, zoo

from edgeprune.channels import ChannelMap
from edgeprune.errors import BudgetError, UsageError
from edgeprune.plan import Budget, PruningPlan
from edgeprune.prune.allocate import Scored, allocate, left_whole
from edgeprune.prune.cost import macs
from edgeprune.prune.surgery import check_plan

NETWORKS = (Plain, Flat, Residual, Inverted, Dense, Twice)
PROPERTIES = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


def scored(channel_map: ChannelMap, seed: int = 0) -> Scored:
    random = torch.Generator().manual_seed(seed)
    spaces = [channel_map.space(s.name) for s in channel_map.spaces if s.name not in left_whole(channel_map, "all")]
    return Scored("random", {}, {space.name: torch.rand(space.size, generator=random) for space in spaces})


def share(channel_map: ChannelMap, keep) -> float:
    """The share of MACs that stays, counted anew."""
    everything = channel_map.alive({}).astype(float)
    return macs(channel_map, channel_map.alive(keep).astype(float)) / macs(channel_map, everything)


def best(scores: torch.Tensor, width: int) -> tuple[int, ...]:
    ranked = sorted(range(len(scores)), key=lambda index: (-float(scores[index]), index))
    return tuple(sorted(ranked[:width]))


def exact_share(channel_map: ChannelMap, scores: Scored, budget: float) -> float:
    """The one share of its best filters that each space may keep for the budget, a filter counting in part."""
    whole = macs(channel_map, channel_map.alive({}).astype(float))
    ranked = {
        name: sorted(range(len(values)), key=lambda index, values=values: (-float(values[index]), index))
        for name, values in scores.scores.items()
    }
    for percent in range(10_000, 0, -1):
        part = channel_map.alive({}).astype(float)
        for name, order in ranked.items():
            space, left = channel_map.space(name), percent / 10_000 * len(order)
            for index in order:
                part[space.first + index] = min(1.0, max(0.0, left))
                left -= 1
        if macs(channel_map, part) <= budget * whole:
            return percent / 10_000
    return 0.0


budgets = st.one_of(
    st.builds(lambda n: Budget(ratio=n / 100), st.integers(1, 99)),
    st.builds(lambda n: Budget(macs=n / 100), st.integers(1, 99)),
)
cases = st.tuples(st.sampled_from(NETWORKS), budgets, st.sampled_from([1, 2, 3, 4, 8]), st.integers(0, 3))


def plan_or_none(case) -> tuple[ChannelMap, Scored, PruningPlan] | None:
    network, budget, multiple, seed = case
    channel_map = found_in(network).channel_map
    scores = scored(channel_map, seed)
    try:
        return channel_map, scores, allocate(channel_map, scores, budget, multiple)
    except BudgetError:
        return None


@PROPERTIES
@given(cases)
def test_widths_are_multiples_or_the_spaces_own_and_never_none(case):
    made = plan_or_none(case)
    assume(made is not None)
    channel_map, scores, plan = made
    for name, kept in plan.keep.items():
        size = channel_map.space(name).size
        assert 0 < len(kept) <= size
        assert len(kept) == size or len(kept) % plan.channel_multiple == 0
        assert kept == best(scores.scores[name], len(kept))


@PROPERTIES
@given(cases)
def test_the_budget_is_kept_and_what_the_plan_says_it_reached_is_true(case):
    made = plan_or_none(case)
    assume(made is not None)
    channel_map, _, plan = made
    assert plan.macs_kept == pytest.approx(share(channel_map, plan.keep), rel=1e-12)
    if plan.budget.macs is not None:
        assert plan.macs_kept <= plan.budget.macs * (1 + 1e-9)


@settings(PROPERTIES, max_examples=10)
@given(st.sampled_from(NETWORKS), st.integers(15, 95), st.sampled_from([1, 2, 4]), st.integers(0, 3))
def test_no_space_below_its_exact_width_could_keep_one_step_more(network, percent, multiple, seed):
    """Nearest from below: one more step anywhere would exceed the budget."""
    made = plan_or_none((network, Budget(macs=percent / 100), multiple, seed))
    assume(made is not None)
    channel_map, scores, plan = made
    exact = exact_share(channel_map, scores, percent / 100)
    for name, kept in plan.keep.items():
        size = plan.sizes[name]
        width = min(size, (len(kept) // multiple + 1) * multiple)
        if len(kept) < exact * size - 0.01:
            more = {**plan.keep, name: best(scores.scores[name], width)}
            assert share(channel_map, more) > percent / 100
        assert len(kept) < exact * size + multiple + 0.01


@PROPERTIES
@given(st.sampled_from(NETWORKS), st.integers(1, 99), st.sampled_from([1, 2, 4]))
@example(Flat, 70, 1)  # (1 - 0.7) * 10 is a little more than 3
def test_with_a_ratio_each_width_is_next_to_its_exact_one_where_the_macs_allow(network, percent, multiple):
    made = plan_or_none((network, Budget(ratio=percent / 100), multiple, 0))
    assume(made is not None)
    plan = made[2]
    steps = {name: sorted({*range(multiple, size, multiple), size}) for name, size in plan.sizes.items()}
    for name, kept in plan.keep.items():
        exact = (1 - percent / 100) * plan.sizes[name]
        above = next(width for width in steps[name] if width >= exact - 1e-9)
        assert len(kept) <= above
        lowest = all(len(other) == steps[space][0] for space, other in plan.keep.items() if space != name)
        if multiple == 1:
            assert len(kept) >= math.floor(exact + 1e-9) - 1 or lowest


@PROPERTIES
@given(cases)
def test_the_same_scores_give_the_same_plan(case):
    one, other = plan_or_none(case), plan_or_none(case)
    assume(one is not None)
    assert one[2] == other[2]
    assert one[2].fingerprint == other[2].fingerprint


@PROPERTIES
@given(cases)
def test_what_an_unreachable_budget_says_can_be_reached_can_be(case):
    network, budget, multiple, seed = case
    channel_map = found_in(network).channel_map
    scores = scored(channel_map, seed)
    try:
        allocate(channel_map, scores, budget, multiple)
    except BudgetError as error:
        words = error.fix.split()
        if "Ask" in words:
            option, value = words[2].removeprefix("--"), float(words[3])
            plan = allocate(channel_map, scores, Budget(**{option: value}), multiple)
            if option == "macs":
                assert plan.macs_kept <= value
        else:
            assert all(space.size <= multiple for space in channel_map.spaces if space.name in scores.scores)


@pytest.mark.parametrize(
    ("size", "percent", "kept"), [(10, 70, 3), (10, 40, 6), (100, 90, 10), (100, 10, 90), (64, 50, 32), (5, 40, 3)]
)
def test_a_ratio_that_comes_out_even_is_met_exactly(size, percent, kept):
    """Floating point makes 1 - 0.9 a little less than a tenth; that must not cost a filter."""
    from nets import model_of

    found = traced(model_of(Plain(first=size)))
    scores = Scored("random", {}, {"first": torch.rand(size)})
    plan = allocate(found.channel_map, scores, Budget(ratio=percent / 100), 1)
    assert len(plan.keep["first"]) == kept


def test_every_space_gives_up_about_the_same_share():
    found = traced(zoo("digits"))
    scores = Scored("random", {}, {f"blocks.{i}.conv1": torch.rand(64) for i in range(3)})
    plan = allocate(found.channel_map, scores, Budget(macs=0.6), 1)
    widths = [len(kept) for kept in plan.keep.values()]
    assert max(widths) - min(widths) <= 1
    assert plan.macs_kept == pytest.approx(0.6, abs=0.006)
    rounded = allocate(found.channel_map, scores, Budget(macs=0.6), 8)
    assert all(len(kept) % 8 == 0 for kept in rounded.keep.values())
    assert 0.5 < rounded.macs_kept <= 0.6


def test_equal_scores_keep_the_lower_index():
    found = found_in(Plain)
    plan = allocate(found.channel_map, Scored("l1", {}, {"first": torch.zeros(8)}), Budget(ratio=0.5), 1)
    assert plan.keep == {"first": (0, 1, 2, 3)}


def plan_for(network, scores: dict[str, torch.Tensor], ratio: float, multiple: int = 1) -> PruningPlan:
    channel_map = found_in(network).channel_map
    plan = allocate(channel_map, Scored("l1", {}, scores), Budget(ratio=ratio), multiple)
    check_plan(plan, channel_map)
    return plan


def test_every_group_of_a_convolution_keeps_its_own_best_filters_equally_many():
    scores = torch.tensor([4.0, 3, 2, 1, 9, 8, 7, 6, 1, 1, 2, 3, 0, 5, 0, 5])
    plan = plan_for(Grouped, {"stem": scores}, 0.5)
    assert plan.keep["stem"] == (0, 1, 4, 5, 10, 11, 13, 15)


@pytest.mark.parametrize(("multiple", "width"), [(1, 8), (8, 8), (3, 12), (16, 16)])
def test_widths_of_groups_suit_the_groups_and_the_channel_multiple(multiple, width):
    if width == 16:
        with pytest.raises(BudgetError):
            plan_for(Grouped, {"stem": torch.rand(16)}, 0.25, multiple)
    else:
        ratio = 0.5 if width == 8 else 0.2
        assert len(plan_for(Grouped, {"stem": torch.rand(16)}, ratio, multiple).keep["stem"]) == width


def test_a_part_of_a_split_keeps_its_best_filter_however_low_its_scores():
    scores = torch.tensor([0.1, 0.3, 0.2, *range(1, 6)])
    assert plan_for(Uneven, {"stem": scores}, 0.6).keep["stem"] == (1, 6, 7)


@pytest.mark.parametrize(("network", "each"), [(Maxout, 2), (GroupNormed, 4)])
def test_the_channel_multiple_counts_channels_not_filters_that_stand_for_several(network, each):
    size = found_in(network).channel_map.space("stem").size
    kept = plan_for(network, {"stem": torch.rand(size)}, 0.4, multiple=8).keep["stem"]
    assert len(kept) * each == 8


def test_only_scored_spaces_are_cut_and_all_are_listed():
    found = found_in(Plain)
    plan = allocate(found.channel_map, Scored("l1", {"a": 1}, {"second": torch.rand(6)}), Budget(ratio=0.5), 1)
    assert plan.keep.keys() == {"second"}
    assert plan.sizes == {"first": 8, "second": 6, "head": 4}
    assert (plan.criterion, plan.settings, plan.model) == ("l1", {"a": 1}, found.channel_map.fingerprint)


def test_auto_removes_as_many_as_the_criterion_says_rounded_to_the_multiple():
    found = found_in(Plain)
    scores = {"first": torch.arange(8.0), "second": torch.arange(6.0)}
    plan = allocate(found.channel_map, Scored("own", {}, scores, {"first": 3, "second": 0}), Budget(ratio="auto"), 1)
    assert plan.keep == {"first": (3, 4, 5, 6, 7), "second": tuple(range(6))}
    assert plan.to_json()["asked"] == {"ratio": "auto"}
    even = allocate(found.channel_map, Scored("own", {}, scores, {"first": 3, "second": 0}), Budget(ratio="auto"), 2)
    assert even.keep["first"] == (4, 5, 6, 7)


def test_auto_with_a_criterion_that_has_no_number_of_its_own_is_refused():
    scores = Scored("l1", {}, {"first": torch.rand(8)}, {"first": 0})
    with pytest.raises(BudgetError, match="'l1' removes nothing by itself") as caught:
        allocate(found_in(Plain).channel_map, scores, Budget(ratio="auto"), 1)
    assert "--ratio 0.3" in caught.value.fix


def test_nothing_to_cut_is_a_budget_that_cannot_be_met():
    with pytest.raises(BudgetError, match="no channel space") as caught:
        allocate(found_in(Plain).channel_map, Scored("l1", {}, {}), Budget(ratio=0.5), 1)
    assert "--scope all" in caught.value.fix


@pytest.mark.parametrize("budget", [Budget(ratio=0.5), Budget(macs=0.5)])
def test_steps_as_wide_as_the_spaces_leave_nothing_to_cut_and_that_is_said(budget):
    found = found_in(Plain)
    with pytest.raises(BudgetError, match=r"0\.5 cannot be reached: .* leaves 1\.000 of the MACs") as caught:
        allocate(found.channel_map, scored(found.channel_map), budget, 8)
    assert caught.value.fix == "Let more be cut with --scope all."


@pytest.mark.parametrize("value", [math.nan, 0.0, 1.0, -0.1, 1.5, math.inf])
@pytest.mark.parametrize("option", ["ratio", "macs"])
def test_budgets_out_of_range_are_refused(option, value):
    found = found_in(Plain)
    with pytest.raises(UsageError, match=f"--{option} must lie between 0 and 1"):
        allocate(found.channel_map, scored(found.channel_map), Budget(**{option: value}), 1)


def test_where_the_damage_is_known_filters_go_where_they_cost_the_output_least():
    channel_map = found_in(Residual).channel_map
    scores = scored(channel_map)
    falling = {name: torch.arange(len(of), -1, -1.0) for name, of in scores.scores.items()}
    cheap = next(iter(falling))
    damage = {name: curve * (0.001 if name == cheap else 1.0) for name, curve in falling.items()}
    plan = allocate(channel_map, replace(scores, damage=damage), Budget(macs=0.8), 1)
    uniform = allocate(channel_map, scores, Budget(macs=0.8), 1)
    assert plan.width(cheap) < uniform.width(cheap)
    assert plan.macs_kept <= 0.8
    assert (plan.allocation, uniform.allocation) == ("damage", "uniform")
    check_plan(plan, channel_map)
