"""eliminate: the order in which filters go if their readers are refitted each time, and the error that remains."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from edgeprune.criteria.elimination import Reading, eliminate, errors_of


def reading(samples: Tensor, weight: Tensor, filters: list[int] | None = None) -> Reading:
    """What a layer with a bias reads: samples float64 [m, k], weight [k, outputs]."""
    rows = F.pad(samples, (0, 1), value=1.0)
    owners = [*(range(len(weight)) if filters is None else filters), -1]
    return Reading.of(rows.T @ rows / len(rows), F.pad(weight, (0, 0, 0, 1)), torch.tensor(owners), len(rows))


def mixed(seed: int, inputs: int, samples: int = 500, outputs: int = 3) -> tuple[Tensor, Tensor]:
    """Inputs that are correlated, and a layer's weights."""
    random = torch.Generator().manual_seed(seed)
    mix = torch.randn(inputs, inputs, generator=random, dtype=torch.float64)
    rows = torch.randn(samples, inputs, generator=random, dtype=torch.float64) @ mix + 0.5
    return rows, torch.randn(inputs, outputs, generator=random, dtype=torch.float64)


def left(found: Reading, keep: Tensor) -> float:
    """The error with the kept filters alone, solved anew."""
    rest = found.weight - found.refitted(keep)
    return float((rest * (found.gram @ rest)).sum())


def test_filters_that_have_nothing_to_do_with_each_other_go_by_what_they_give():
    """Four independent inputs of mean square 1, 1, 4 and 1, weights 3, 1, 1 and 0: they give 9, 1, 4 and 0."""
    samples = torch.cat([torch.eye(4, dtype=torch.float64), -torch.eye(4, dtype=torch.float64)]) * 2
    samples[:, 2] *= 2
    weight = torch.tensor([[3.0], [1.0], [1.0], [0.0]], dtype=torch.float64)
    found = eliminate([reading(samples.repeat(10_000, 1), weight)], 4)
    assert found.order.tolist() == [3, 1, 2, 0]
    assert found.errors.tolist() == pytest.approx([14, 5, 1, 0, 0], rel=1e-3)


def test_of_two_equal_filters_one_goes_first_and_nothing_is_lost():
    samples, weight = mixed(0, 5, samples=50_000)
    samples[:, 4] = samples[:, 1]
    found = eliminate([reading(samples, weight)], 5)
    assert found.order[0] in (1, 4)
    assert found.errors[4] < 0.02 * found.errors[3]


@pytest.mark.parametrize("filters", [None, [0, 1, 2, 0, 1, 2], [0, 0, 0, 1, 2, 2], [0, 2, -1, -1, 2, 2]])
def test_each_step_takes_the_filter_whose_loss_is_made_up_for_best(filters):
    """As if every subset had been solved anew: filters read once, at several places, unequally often, or not at all."""
    samples, weight = mixed(1, 6)
    size = 6 if filters is None else 3
    read = reading(samples, weight, filters)
    found = eliminate([read], size)
    keep = torch.ones(size, dtype=torch.bool)
    for step in range(size):
        options = {}
        for index in keep.nonzero().flatten().tolist():
            keep[index] = False
            options[index] = left(read, keep)
            keep[index] = True
        chosen = int(found.order[step])
        assert options[chosen] == pytest.approx(min(options.values()), rel=1e-6, abs=1e-9)
        assert float(found.errors[size - step - 1]) == pytest.approx(options[chosen], rel=1e-6, abs=1e-9)
        keep[chosen] = False


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 8), st.permutations(range(8)))
def test_the_errors_of_a_given_order_are_those_of_each_subset(seed, size, order):
    reads = [reading(*mixed(seed, size)), reading(*mixed(seed + 1, size, outputs=1))]
    asked = torch.tensor([index for index in order if index < size])
    errors = errors_of(reads, asked)
    assert (errors.diff() <= 1e-9).all()
    for width in range(size + 1):
        keep = torch.zeros(size, dtype=torch.bool)
        keep[asked[size - width :]] = True
        assert float(errors[width]) == pytest.approx(sum(left(read, keep) for read in reads), rel=1e-6, abs=1e-8)


@pytest.mark.parametrize("filters", [None, [0, 0, 0, 1, 2, 2], [0, 2, -1, -1, 2, 2]])
def test_both_ways_of_working_out_the_errors_agree(filters):
    read = reading(*mixed(4, 6), filters)
    found = eliminate([read], 6 if filters is None else 3)
    assert errors_of([read], found.order).tolist() == pytest.approx(found.errors.tolist(), rel=1e-8, abs=1e-9)


def test_candidates_go_before_all_others():
    samples, weight = mixed(2, 6)
    found = eliminate([reading(samples, weight)], 6, first=torch.tensor([5, 2]))
    assert set(found.order[:2].tolist()) == {2, 5}
    assert sorted(found.order.tolist()) == list(range(6))


def test_a_space_that_nothing_reads_costs_nothing():
    assert eliminate([], 3).errors.tolist() == [0, 0, 0, 0]


def test_with_fewer_samples_than_inputs_filters_are_not_taken_for_sums_of_others():
    """20 samples of 40 independent inputs: each is a sum of the others by chance, and the error must not be near 0."""
    random = torch.Generator().manual_seed(3)
    samples = torch.randn(20, 40, generator=random, dtype=torch.float64)
    weight = torch.randn(40, 2, generator=random, dtype=torch.float64)
    found = eliminate([reading(samples, weight)], 40)
    assert float(found.errors[20]) > 0.1 * float(found.errors[0])
