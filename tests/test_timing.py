"""How long a network takes by its widths, on a board whose times are known."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import simulated_board as board
from hypothesis import given, settings
from hypothesis import strategies as st
from moving_nets import Uneven
from nets import Dense, found_in, traced, zoo

from edgeprune.errors import BudgetError, EdgepruneError
from edgeprune.latency import Conditions, LatencyTable, LayerTime, Network, Variant
from edgeprune.prune.allocate import allowed_widths, left_whole
from edgeprune.prune.cost import cost, macs
from edgeprune.prune.shapes import LayerAt, Shapes
from edgeprune.prune.time_budget import even_in_time, foretold, least_damage_in_time
from edgeprune.prune.timing import Times, layer_times
from edgeprune.prune.timing_check import check, check_by_macs
from edgeprune.variants import spread, variant

CONDITIONS = Conditions("a board", "onnxruntime", "1.31.1", 1, "onnx")


def shapes_of(name: str) -> tuple[Shapes, dict[str, list[int]]]:
    found = traced(zoo(name))
    whole = left_whole(found.channel_map)
    steps = {space.name: allowed_widths(space, 8) for space in found.channel_map.spaces if space.name not in whole}
    return Shapes(found.program, found.channel_map), steps


@pytest.fixture(scope="module")
def digits() -> tuple[Shapes, dict[str, list[int]]]:
    return shapes_of("digits")


def profiled(shapes: Shapes, steps: dict[str, list[int]], variants: int = 24) -> Network:
    """The simulated board's table of a network, the uncut one first."""
    choices = {name: allowed[:-1][::-1] for name, allowed in steps.items()}
    return board.network(shapes, [variant(choices, number) for number in range(variants)])


def measured(shapes: Shapes, steps: dict[str, list[int]], variants: int = 24) -> Times:
    return Times(shapes, profiled(shapes, steps, variants))


def test_work_at_the_uncut_widths_is_that_of_the_network() -> None:
    for name in ("digits", "mobilenet_v2_tf"):
        found = traced(zoo(name))
        layers = Shapes(found.program, found.channel_map).at({})
        assert sum(one.macs for one in layers) == cost(found.program, found.channel_map, found.model.module).macs


def test_work_of_the_filters_that_stay_is_that_of_the_cut_network_even_where_layers_read_a_part_of_a_space() -> None:
    found = found_in(Uneven)
    shapes = Shapes(found.program, found.channel_map)
    halves = {space.name: space.size // 2 for space in found.channel_map.spaces if not space.protected}
    first = {name: tuple(range(width)) for name, width in halves.items()}
    even = spread(halves, shapes.sizes)
    for keep in (first, even):
        work = macs(found.channel_map, found.channel_map.alive(keep).astype(float))
        assert sum(one.macs for one in shapes.kept(keep)) == work
    assert shapes.kept(even) != shapes.kept(first)


def test_filters_that_not_all_stages_have_are_spaces_of_their_own_so_that_widths_say_what_layers_cost() -> None:
    """ResNets of CIFAR add zeros in their shortcuts: of the last stage's 64 filters the first stage has 16."""
    found = traced(zoo("resnet20"))
    shapes = Shapes(found.program, found.channel_map)
    widths = {space.name: space.size // 3 for space in found.channel_map.spaces if not space.protected}
    last = {name: tuple(range(shapes.sizes[name] - width, shapes.sizes[name])) for name, width in widths.items()}
    assert shapes.kept(last) == shapes.kept(spread(widths, shapes.sizes)) == shapes.at(widths)


def test_equal_layers_share_a_shape_and_what_follows_tells_others_apart(
    digits: tuple[Shapes, dict[str, list[int]]],
) -> None:
    shapes, _ = digits
    names = [one.shape for one in shapes.layers]
    assert len(set(names)) < len(names)
    assert any(name.endswith("add relu") for name in names)
    depthwise = {one.shape for one in shapes_of("mobilenet_v2_tf")[0].layers if "depthwise" in one.shape}
    assert any("to" in name for name in depthwise)


def test_measured_widths_are_foretold_exactly_and_the_fixed_part_is_found(
    digits: tuple[Shapes, dict[str, list[int]]],
) -> None:
    shapes, steps = digits
    times = measured(shapes, steps)
    for number in range(40):
        widths = {name: allowed[number % len(allowed)] for name, allowed in steps.items()}
        assert times.ms(widths) == pytest.approx(board.call_ms(shapes, widths), rel=0.01)


def test_a_board_that_is_slower_while_it_profiles_some_variants_is_foretold_as_well(
    digits: tuple[Shapes, dict[str, list[int]]],
) -> None:
    shapes, steps = digits
    found, random = profiled(shapes, steps), np.random.default_rng(1)

    def disturbed(one: Variant) -> Variant:
        factor = random.uniform(1.0, 1.5)
        layers = tuple(replace(layer, ms=factor * layer.ms) for layer in one.layers)
        return replace(one, layers=layers, rest_ms=factor * one.rest_ms)

    times = Times(shapes, replace(found, variants=tuple(map(disturbed, found.variants))))
    errors = [
        times.ms(widths) / board.call_ms(shapes, widths) - 1
        for widths in (
            {name: allowed[number % len(allowed)] for name, allowed in steps.items()} for number in range(40)
        )
    ]
    assert np.median(np.abs(errors)) < 0.02
    assert max(map(abs, errors)) < 0.06


def test_a_speed_up_is_foretold_beside_the_uncut_network_as_it_was_measured(
    digits: tuple[Shapes, dict[str, list[int]]],
) -> None:
    """A runtime that reorders what is cut, which takes as long in all cut networks, and in the uncut one nothing."""
    shapes, steps = digits
    found = profiled(shapes, steps)
    uncut, *cut = found.variants
    more = 0.2 * uncut.ms
    reordered = [replace(one, ms=one.ms + more, rest_ms=one.rest_ms + more) for one in cut]
    times = Times(shapes, replace(found, variants=(uncut, *reordered)))
    assert times.ms({}) > 1.1 * uncut.ms
    for one in reordered:
        assert foretold(times, one.widths) == pytest.approx(uncut.ms / one.ms, rel=0.02)


@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_the_problem_to_solve_counts_the_same_time_as_the_foretold_one(
    digits: tuple[Shapes, dict[str, list[int]]], data: st.DataObject
) -> None:
    shapes, steps = digits
    times = measured(shapes, steps)
    problem = times.problem({name: np.zeros(len(allowed)) for name, allowed in steps.items()}, steps)
    choice = {name: data.draw(st.integers(0, len(allowed) - 1)) for name, allowed in steps.items()}
    widths = {name: steps[name][place] for name, place in choice.items()}
    assert problem.ms(choice) == pytest.approx(times.ms(widths), rel=1e-9)


def test_layers_that_read_many_spaces_are_counted_space_by_space() -> None:
    found = found_in(Dense)
    shapes = Shapes(found.program, found.channel_map)
    steps = {space.name: [space.size // 2, space.size] for space in found.channel_map.spaces if not space.protected}
    assert any(len({*one.inputs.each, *one.outputs.each} & set(steps)) > 2 for one in shapes.layers)
    every = [dict(zip(steps, widths, strict=True)) for widths in itertools.product(*steps.values())][:16]
    times = Times(shapes, board.network(shapes, every))
    problem = times.problem({name: np.zeros(2) for name in steps}, steps)
    for place in (0, 1):
        widths = {name: allowed[place] for name, allowed in steps.items()}
        assert problem.ms(dict.fromkeys(steps, place)) == pytest.approx(times.ms(widths), rel=0.25)
    assert problem.ms(dict.fromkeys(steps, 1)) == pytest.approx(times.ms({}), rel=1e-9)


def test_what_was_held_out_is_foretold_better_than_by_macs_where_time_goes_in_steps(
    digits: tuple[Shapes, dict[str, list[int]]],
) -> None:
    shapes, steps = digits
    found = profiled(shapes, steps, 30)
    by_table, by_macs = check(shapes, found), check_by_macs(shapes, found)
    assert by_table is not None
    assert by_macs is not None
    assert by_table.variants == 6
    assert by_table.median_error < 0.02 < by_macs.median_error
    assert by_table.rank_correlation > 0.9
    assert check(shapes, profiled(shapes, steps, 1)) is None


def test_layers_that_were_never_measured_are_named(digits: tuple[Shapes, dict[str, list[int]]]) -> None:
    shapes, _ = digits
    found = board.network(shapes, [{}])
    assert Times(shapes, found).unseen == ()
    (first, *others) = found.variants[0].layers
    rest = replace(found.variants[0], layers=tuple(one for one in others if one.shape != first.shape))
    unseen = Times(shapes, replace(found, variants=(rest,))).unseen
    assert unseen == tuple(one.layer.node for one in shapes.layers if one.shape == first.shape)
    other = LatencyTable(CONDITIONS).with_variants("another network", "other", (rest,))
    named = rf"; {len(unseen)} of its {len(shapes.layers)} layers were never measured, first {unseen[0]}"
    with pytest.raises(EdgepruneError, match=named) as caught:
        Times.of(other, shapes)
    assert "edgeprune profile MODEL --table FILE adds it" in caught.value.fix


def test_a_budget_of_time_is_kept_and_costs_no_more_than_even_widths(
    digits: tuple[Shapes, dict[str, list[int]]],
) -> None:
    shapes, steps = digits
    times = measured(shapes, steps)
    random = np.random.default_rng(0)
    damage = {
        name: random.exponential() * (allowed[-1] - np.arange(allowed[-1] + 1.0)) for name, allowed in steps.items()
    }

    def lost(widths: dict[str, int]) -> float:
        return sum(float(damage[name][width]) for name, width in widths.items())

    for speedup in (1.2, 1.5, 1.8):
        widths, even = least_damage_in_time(times, damage, steps, speedup), even_in_time(times, steps, speedup)
        assert foretold(times, widths) >= speedup
        assert foretold(times, even) >= speedup
        assert lost(widths) <= lost(even) + 1e-9
        assert all(widths[name] in allowed for name, allowed in steps.items())


def test_a_width_on_the_same_step_as_a_wider_one_is_never_chosen(
    digits: tuple[Shapes, dict[str, list[int]]],
) -> None:
    """24 channels take as long as 32 here, so that 24 would cost accuracy for nothing."""
    shapes, steps = digits
    times = measured(shapes, steps, variants=60)
    damage = {name: np.arange(allowed[-1], -1, -1.0) for name, allowed in steps.items()}
    widths = least_damage_in_time(times, damage, steps, 1.4)
    assert all(width % board.TILE == 0 for width in widths.values())


@pytest.mark.parametrize("solved", [least_damage_in_time, even_in_time])
def test_what_cannot_be_reached_says_how_fast_it_can_become(
    digits: tuple[Shapes, dict[str, list[int]]], solved: object
) -> None:
    shapes, steps = digits
    times = measured(shapes, steps)
    damage = {name: np.zeros(allowed[-1] + 1) for name, allowed in steps.items()}
    with pytest.raises(BudgetError, match=r"a speed-up of 50 cannot be reached: .* at most \d\.\d\d times as fast"):
        solved(*([times, damage] if solved is least_damage_in_time else [times]), steps, 50)  # type: ignore[operator]


def test_a_table_without_the_network_says_what_it_knows(digits: tuple[Shapes, dict[str, list[int]]]) -> None:
    shapes, _ = digits
    with pytest.raises(EdgepruneError, match="no times of this network"):
        Times.of(LatencyTable(CONDITIONS), shapes)


def test_operators_become_layers_by_their_work_in_order_and_all_else_is_the_rest() -> None:
    layers = (LayerAt("a", 3, 8, 100), LayerAt("b", 8, 8, 100), LayerAt("c", 8, 4, 50))
    found, rest = layer_times(layers, [(0, 0.5), (100, 1.0), (50, 3.0), (100, 2.0), (77, 0.25)])
    assert found == (LayerTime("a", 3, 8, 1.0), LayerTime("c", 8, 4, 3.0), LayerTime("b", 8, 8, 2.0))
    assert rest == 0.75


def test_layers_of_several_spaces_are_solved_as_they_are_foretold() -> None:
    """A layer of the last stage reads what three stages add to the residual filters, and makes a fourth space."""
    found = traced(zoo("resnet20"))
    shapes = Shapes(found.program, found.channel_map)
    steps = {space.name: allowed_widths(space, 8) for space in found.channel_map.spaces if not space.protected}
    times, random = measured(shapes, steps), np.random.default_rng(0)
    problem = times.problem({name: np.zeros(len(allowed)) for name, allowed in steps.items()}, steps)
    for _ in range(20):
        choice = {name: int(random.integers(len(allowed))) for name, allowed in steps.items()}
        widths = {name: steps[name][place] for name, place in choice.items()}
        assert problem.ms(choice) == pytest.approx(times.ms(widths))
