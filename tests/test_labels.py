"""Labels follow a tensor's elements through reshaping; ties gather filters that must go together."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprune.channels import FIXED
from edgeprune.prune.labels import Ties, along, compress, fixed, on_axis, reshaped, varying

ATOMS = np.arange(6)


def test_labels_of_a_feature_map_change_along_its_channels_only():
    labels = along(ATOMS, 1, 4)
    assert labels.shape == (1, 6, 1, 1)
    assert varying(labels) == (1,)
    assert on_axis(labels, 1, 6).tolist() == ATOMS.tolist()


def test_an_axis_without_channels_reads_fixed():
    assert on_axis(fixed(4), 1, 3).tolist() == [FIXED] * 3
    assert on_axis(along(ATOMS, 1, 4), 2, 5) is None


def test_flattening_repeats_each_channel_once_for_each_position():
    labels = reshaped(along(ATOMS, 1, 4), (2, 6, 2, 2), (2, 24))
    assert labels.shape == (1, 24)
    assert labels[0].tolist() == np.repeat(ATOMS, 4).tolist()


def test_splitting_the_channels_shows_as_two_axes_that_vary():
    assert varying(reshaped(along(ATOMS, 1, 4), (2, 6, 5, 5), (2, 2, 3, 5, 5))) == (1, 2)


def test_reshaping_a_tensor_without_channels_costs_nothing():
    assert reshaped(fixed(2), (10**6, 10**6), (10**12,)).shape == (1,)


def test_compressing_keeps_the_labels_and_shortens_what_does_not_change():
    labels = np.broadcast_to(along(ATOMS, 1, 3), (4, 6, 5))
    assert compress(labels).shape == (1, 6, 1)
    assert (np.broadcast_to(compress(labels), labels.shape) == labels).all()


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.data())
def test_reshaping_back_restores_the_labels(shape, data):
    axis = data.draw(st.integers(0, len(shape) - 1))
    labels = compress(along(np.arange(shape[axis]), axis, len(shape)))
    flat = reshaped(labels, tuple(shape), (int(np.prod(shape)),))
    assert (reshaped(flat, (int(np.prod(shape)),), tuple(shape)) == labels).all()


def test_ties_are_transitive_and_the_lowest_filter_stands_for_all():
    ties = Ties()
    ties.new(4)
    ties.tie(np.array([3, FIXED]), np.array([2, 0]))
    ties.tie(np.array([2]), np.array([1]))
    assert ties.roots().tolist() == [0, 1, 1, 1]


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=15))
def test_tied_filters_are_the_connected_components(pairs):
    ties = Ties()
    ties.new(10)
    group = {atom: {atom} for atom in range(10)}
    for one, other in pairs:
        ties.tie(np.array([one]), np.array([other]))
        merged = group[one] | group[other]
        group.update(dict.fromkeys(merged, merged))
    assert ties.roots().tolist() == [min(group[atom]) for atom in range(10)]
    at_once = Ties()
    at_once.new(10)
    at_once.tie(*np.array(pairs, dtype=np.int64).reshape(-1, 2).T)
    assert at_once.roots().tolist() == ties.roots().tolist()


@pytest.mark.parametrize("ndim", [1, 2, 4])
def test_fixed_labels_have_the_rank_of_their_tensor(ndim):
    assert fixed(ndim).shape == (1,) * ndim
    assert (fixed(ndim) == FIXED).all()
