"""Every criterion keeps the contract; settings are parsed and refused with a hint."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from edgeprune.criteria import CRITERIA, FilterView, configure
from edgeprune.criteria.apssf import grown, lowest, structural
from edgeprune.criteria.elimination import Reading
from edgeprune.criteria.hrank import map_ranks
from edgeprune.criteria.nystrom import approximate, chosen, prototypes
from edgeprune.errors import UsageError

NAMES = sorted(CRITERIA.rows)


def reading_of(maps: Tensor, weight: Tensor) -> Reading:
    """What a 1x1 convolution with weight [n, outputs] reads of maps [images, n, height, width]."""
    rows = F.pad(maps.transpose(0, 1).flatten(1).T.double(), (0, 1), value=1.0)
    owners = F.pad(torch.arange(len(weight)), (0, 1), value=-1)
    return Reading.of(rows.T @ rows / len(rows), F.pad(weight.double(), (0, 0, 0, 1)), owners, len(rows))


def view_of(maps: Tensor, weight: Tensor | None = None, seed: int = 0, batch: int = 4, **more: Any) -> FilterView:
    """A space whose maps [images, n, height, width] are the same on both sides."""
    n = maps.shape[1]
    weight = torch.randn(n, 2, 3, 3, generator=torch.Generator().manual_seed(5)) if weight is None else weight
    readers = (torch.randn(n, 4, 3, 3, generator=torch.Generator().manual_seed(6)),)
    return FilterView(
        **{
            "name": "space",
            "size": n,
            "filters": (weight,),
            "maps": lambda side: iter(maps.split(batch)),
            "seed": seed,
            "read": lambda: readers,
            "look": lambda: (reading_of(maps, readers[0][:, :, 0, 0]),),
            **more,
        }
    )


def generic(n: int = 7, images: int = 6, side: int = 4, seed: int = 0) -> Tensor:
    return torch.rand(images, n, side, side, generator=torch.Generator().manual_seed(seed))


DEGENERATE = {
    "zero": torch.zeros(3, 5, 4, 4),
    "constant": torch.full((3, 5, 4, 4), 0.1),
    "constant and large": torch.full((3, 5, 4, 4), 1e6),
    "constant and negative": torch.full((3, 5, 4, 4), -7.0),
    "one dead image": torch.cat([torch.zeros(1, 5, 4, 4), torch.rand(2, 5, 4, 4)]),
    "one pixel": torch.rand(3, 5, 1, 1),
    "one filter": torch.rand(3, 1, 4, 4),
    "one image": torch.rand(1, 5, 4, 4),
    "tiny": torch.rand(3, 5, 4, 4) * 1e-30,
    "huge": torch.rand(3, 5, 4, 4) * 1e12,
    "all alike": torch.rand(3, 1, 4, 4).expand(3, 5, 4, 4),
}


KERNELS = {
    "1x1": (3, 1, 1),
    "depthwise": (1, 3, 3),
    "a linear layer": (6,),
    "1d": (2, 5),
    "3d": (2, 3, 3, 3),
    "not square": (2, 1, 7),
}


def scores(name: str, view: FilterView, **settings: Any) -> Tensor:
    return configure(name, {key: str(value) for key, value in settings.items()})(view).scores


def reordered(view: FilterView, order: Tensor) -> FilterView:
    return replace(
        view,
        filters=tuple(layer[order] for layer in view.filters),
        read=lambda: tuple(layer[order] for layer in view.readers),
        maps=lambda side: (batch[:, order] for batch in view.maps(side)),
        look=lambda: tuple(reordered_reading(one, order) for one in view.readings),
    )


def reordered_reading(reading: Reading, order: Tensor) -> Reading:
    places = F.pad(torch.argsort(order), (0, 1), value=-1)  # the last for inputs of no filter
    return replace(reading, filters=places[reading.filters])


def scaled(view: FilterView, by: Tensor) -> FilterView:
    return replace(view, filters=tuple(layer * by.reshape(-1, *[1] * (layer.ndim - 1)) for layer in view.filters))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("maps", DEGENERATE.values(), ids=DEGENERATE.keys())
def test_every_filter_has_one_finite_score_whatever_the_maps(name, maps):
    found = scores(name, view_of(maps))
    assert found.shape == (maps.shape[1],)
    assert torch.isfinite(found).all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS.keys())
def test_every_kind_of_filter_has_a_finite_score(name, kernel):
    view = view_of(generic(), torch.randn(7, *kernel, generator=torch.Generator().manual_seed(1)))
    for filters in (view.filters, (view.filters[0] * 0,), (view.filters[0] * 1e-20,), view.filters * 2):
        found = scores(name, replace(view, filters=filters))
        assert found.shape == (7,)
        assert torch.isfinite(found).all()


@pytest.mark.parametrize("name", NAMES)
def test_the_same_view_has_the_same_scores(name):
    assert torch.equal(scores(name, view_of(generic())), scores(name, view_of(generic())))


@pytest.mark.parametrize("name", [name for name in NAMES if name != "random"])
def test_filters_in_another_order_have_their_scores_in_that_order(name):
    view, order = view_of(generic()), torch.tensor([3, 6, 0, 2, 5, 1, 4])
    assert torch.allclose(scores(name, reordered(view, order)), scores(name, view)[order])


DRAWN = given(
    st.sampled_from(NAMES),
    st.sampled_from(sorted(KERNELS)),
    st.integers(1, 9),
    st.sets(st.integers(0, 8)),
    st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), max_size=3),
    st.integers(0, 1000),
)


@settings(max_examples=150, deadline=None)
@DRAWN
def test_dead_and_equal_filters_of_any_kind_have_finite_scores_the_same_each_time(name, kernel, n, dead, equal, seed):
    """One filter or many, some of zeros with maps of zeros, some equal to others."""
    random = torch.Generator().manual_seed(seed)
    weight, maps = torch.randn(n, *KERNELS[kernel], generator=random), torch.rand(3, n, 4, 4, generator=random)
    for one, other in equal:
        weight[one % n], maps[:, one % n] = weight[other % n].clone(), maps[:, other % n].clone()
    for one in dead:
        weight[one % n], maps[:, one % n] = 0.0, 0.0
    view = view_of(maps, weight, seed=seed)
    outcome = configure(name)(view)
    assert outcome.scores.shape == (n,)
    assert torch.isfinite(outcome.scores).all()
    assert 0 <= outcome.removed < n
    assert torch.equal(configure(name)(view).scores, outcome.scores)


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from([name for name in NAMES if name != "random"]),
    st.sampled_from(sorted(KERNELS)),
    st.permutations(range(7)),
    st.integers(0, 1000),
)
def test_filters_of_any_kind_in_another_order_have_their_scores_in_that_order(name, kernel, order, seed):
    random = torch.Generator().manual_seed(seed)
    view = view_of(generic(seed=seed), torch.randn(7, *KERNELS[kernel], generator=random))
    order = torch.tensor(order)
    assert torch.allclose(scores(name, reordered(view, order)), scores(name, view)[order], rtol=1e-4)


@pytest.mark.parametrize("name", ["qsfm", "ssm", "nystrom", "apssf"])
def test_of_two_equal_filters_one_goes_first(name):
    maps, weight = generic(), torch.randn(7, 2, 3, 3, generator=torch.Generator().manual_seed(5))
    maps[:, 5], weight[5] = maps[:, 2], weight[2]
    found = scores(name, view_of(maps, weight, share=1 / 7))
    assert int(found.argmin()) in (2, 5)


@pytest.mark.parametrize(
    ("name", "settings"), [("ssm", {"distance": "cosine"}), ("nystrom", {}), ("fscl", {"measure": "cosine"})]
)
def test_a_measure_of_directions_does_not_see_how_large_filters_are(name, settings):
    view = view_of(generic())
    by = torch.tensor([1.0, 4.0, 0.5, 2.0, 8.0, 0.25, 3.0])
    found, other = (scores(name, one, **settings) for one in (view, scaled(view, by)))
    # In an order of removal the last two are told apart by their norms.
    assert torch.allclose(found, other) if name == "fscl" else torch.equal(found.argsort()[:5], other.argsort()[:5])


@pytest.mark.parametrize("name", NAMES)
def test_the_order_is_the_same_if_all_filters_and_their_maps_are_twice_as_large(name):
    view = view_of(generic())
    twice = replace(view_of(2 * generic()), filters=(2 * view.filters[0],))
    assert torch.equal(scores(name, twice).argsort(), scores(name, view).argsort())


@pytest.mark.parametrize("name", ["ssm", "fpgm"])
def test_a_distance_does_not_see_what_all_filters_have_in_common(name):
    view = view_of(generic())
    moved = replace(view, filters=(view.filters[0] + 0.5,))
    # The last two of a layer are told apart by their norms.
    assert torch.equal(scores(name, moved).argsort()[:5], scores(name, view).argsort()[:5])


LINE = torch.tensor([[0.0], [1.0], [5.0], [5.5]])
"""Four filters on a line; distances 1, 5, 5.5, 4, 4.5 and 0.5."""


def on_a_line(**more: Any) -> FilterView:
    return view_of(generic(4), LINE, **more)


def test_ssm_greedy_by_hand():
    """5 and 5.5 are closest: 5 is nearer to the others and goes. Then 1. Then 0, the smaller of two."""
    assert scores("ssm", on_a_line()).tolist() == [2, 1, 0, 3]


def test_ssm_area_by_hand():
    """Sums are 11.5, 9.5, 9.5, 10.5. Of the window (1, 5, 5.5) the middle stays; of 0 and 5 the first."""
    assert scores("ssm", on_a_line(), ranking="area").tolist() == [3, 0, 2, 1]


def test_apssf_by_hand():
    """Half of two clusters: of (0, 1) and (5, 5.5) the larger one each stays; the others go, the smaller one first."""
    outcome = configure("apssf")(on_a_line(share=0.5))
    assert outcome.scores.tolist() == [0, 2, 1, 3]
    assert outcome.removed == 2


def test_apssf_with_a_threshold_has_a_number_of_its_own():
    """The mean distance is 20.5 / 6: below a fifth of it lie 5 and 5.5 alone, of which one stays."""
    assert configure("apssf", {"threshold": "0.2"})(on_a_line(share=0.9)).removed == 1
    assert configure("apssf", {"threshold": "0.1"})(on_a_line(share=0.9)).removed == 0


def test_apssf_finds_one_threshold_for_all_layers_by_hand():
    """Of 8 filters 2 shall go. On the line two pairs lie 0.5 and 1 apart, of a mean of 20.5 / 6; four axes all by 1."""
    line, axes = on_a_line(share=0.25), view_of(generic(4), torch.eye(4), share=0.25)
    criterion = configure("apssf")
    settled = criterion.settled([line, axes])
    assert settled.settings["threshold"] == pytest.approx(6 / 20.5)
    assert [settled(view).removed for view in (line, axes)] == [2, 0]
    assert [criterion(view).removed for view in (line, axes)] == [1, 3]  # each at a threshold of its own
    by_layer = configure("apssf", {"over": "layer"})
    assert by_layer.settled([line, axes]) == by_layer


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.integers(2, 9), min_size=1, max_size=4),
    st.integers(0, 1000),
    st.sampled_from([0.1, 0.4, 0.5, 0.8]),
    st.sampled_from([0.1, 0.5, 0.75, 1.0]),
)
def test_apssf_s_threshold_is_the_lowest_that_reaches_the_rate(sizes, seed, rate, each):
    random = torch.Generator().manual_seed(seed)
    views = [view_of(generic(n), torch.randint(0, 4, (n, 1, 3), generator=random).float(), share=rate) for n in sizes]
    trees = [grown(view, "structure", "average") for view in views]

    def stay(threshold: float) -> int:
        clusters = [members for tree in trees for members in tree.clusters(threshold)]
        return sum(max(1, math.floor((1 - each) * len(members) + 1e-9)) for members in clusters)

    goal = round((1 - rate) * sum(sizes))
    heights = sorted({0.0, *(height for tree in trees for height in tree.steps[:, 2])})
    reached = [height for height in heights if stay(height) <= goal]
    assert lowest(trees, rate, each) == pytest.approx(reached[0] if reached else heights[-1])
    settled = configure("apssf", {"each": str(each)}).settled(views)
    assert sum(view.size - settled(view).removed for view in views) == stay(lowest(trees, rate, each))


def test_apssf_deletes_no_more_of_each_cluster_than_said_while_one_stays():
    """All 6 filters of a layer but one lie together: half of the five, or all but one of them, go."""
    view = view_of(generic(6), torch.tensor([[1.0], [1.1], [1.2], [1.3], [1.4], [9.0]]), share=0.3)
    for each, removed in (("0.5", 3), ("1", 4), ("0.4", 2)):
        assert configure("apssf", {"each": each, "threshold": "0.5"})(view).removed == removed


def test_apssf_tells_filters_apart_that_add_up_alike_in_one_dimension_only():
    """[[1, 0], [0, 1]] and [[0, 1], [1, 0]], inputs x taps, have the same sums; [[1, 1], [0, 0]] has others."""
    weight = torch.tensor([[[1.0, 0], [0, 1]], [[0, 1], [1, 0]], [[1, 1], [0, 0]], [[1, 1], [1, 1]]])
    view = view_of(generic(4), weight)
    assert structural(view)[0, 1] == 0
    assert structural(view)[0, 2] == pytest.approx(1.0)  # sums over taps (1, 1) and (2, 0): (1 + 1) / 2 inputs
    assert structural(view, weights=True)[0, 1] == pytest.approx(1.0)  # four weights differ by 1, of four


def test_nystrom_by_hand():
    """(1, 0) and (2, 0) point the same way, the first stays; (0, 1) stays as well, and (1, 1) is nearest to it."""
    weight = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]], [[2.0, 0.0]], [[1.0, 1.0]]])
    outcome = configure("nystrom", {"columns": "2"})(view_of(generic(4), weight))
    assert outcome.removed == 2
    assert set(outcome.scores.argsort()[:2].tolist()) == {2, 3}


@pytest.mark.parametrize("pick", ["first", "random"])
def test_nystrom_is_exact_with_as_many_columns_as_a_kernel_has_taps(pick):
    view = view_of(generic(40), torch.randn(40, 6, 3, 3, generator=torch.Generator().manual_seed(3)))
    rows = prototypes(view)
    exact = rows @ rows.T
    assert torch.linalg.matrix_rank(exact) == 9
    assert torch.allclose(approximate(rows, chosen(view, 9, pick)), exact, atol=1e-4)
    assert not torch.allclose(approximate(rows, chosen(view, 3, pick)), exact, atol=1e-2)


def test_the_prototype_is_the_leading_left_singular_vector_of_taps_by_inputs():
    weight = torch.randn(5, 6, 3, 3, generator=torch.Generator().manual_seed(3))
    for row, kernel in zip(prototypes(view_of(generic(5), weight)), weight, strict=True):
        left, _, right = torch.linalg.svd(kernel.flatten(1).T.double())
        assert torch.allclose(row, left[:, 0] * right[0, 0].sign(), atol=1e-6)


READ = torch.tensor([[1.0, 0.0], [0.0, 1.0], [3.0, 4.0], [0.0, 0.0]])


@pytest.mark.parametrize(
    ("measure", "expected"), [("composed", [1, 2, 15, 0]), ("product", [1, 2, 21, 0]), ("cosine", [1, 1, 2, 0])]
)
def test_fscl_by_hand(measure, expected):
    """1x1 filters 1, 2, 3, 4; the reader's weights for the third are 3 and 4, for the fourth none."""
    view = view_of(generic(4), torch.tensor([[1.0], [2.0], [3.0], [4.0]]), read=lambda: (READ,))
    assert scores("fscl", view, measure=measure).tolist() == pytest.approx(expected)


def test_fscl_knows_what_a_normalisation_multiplies_by():
    view = view_of(generic(4), torch.ones(4, 1), read=lambda: (READ,), gains=(torch.tensor([2.0, 1.0, -1.0, 1.0]),))
    assert scores("fscl", view).tolist() == pytest.approx([2, 1, 5, 0])


def composed(filters: Tensor, reader: Tensor) -> list[float]:
    """The norm of all kernels of both layers taken together, one convolution after another."""
    found = []
    for made, read in zip(filters.double(), reader.double(), strict=True):
        both = [
            F.conv2d(one[None, None], other.flip(0, 1)[None, None], padding=6).square().sum()
            for one in made
            for other in read
        ]
        found.append(float(torch.stack(both).sum().sqrt()))
    return found


@pytest.mark.parametrize("sizes", [((3, 3), (3, 3)), ((1, 1), (3, 3)), ((3, 3), (1, 1)), ((5, 3), (2, 3))])
def test_fscl_is_the_norm_of_the_kernels_taken_together(sizes):
    random = torch.Generator().manual_seed(0)
    filters, reader = (
        torch.randn(4, count, *size, generator=random) for count, size in zip((3, 5), sizes, strict=True)
    )
    assert scores("fscl", view_of(generic(4), filters, read=lambda: (reader,))).tolist() == pytest.approx(
        composed(filters, reader)
    )


def test_fscl_takes_a_depthwise_layer_between_together_with_the_filter():
    random = torch.Generator().manual_seed(0)
    first, depthwise, reader = (torch.randn(4, *size, generator=random) for size in ((3, 1, 1), (1, 3, 3), (5, 1, 1)))
    view = view_of(generic(4), first, filters=(first, depthwise), read=lambda: (reader,))
    assert scores("fscl", view).tolist() == pytest.approx(composed(first * depthwise, reader))


def test_fpgm_by_hand():
    assert scores("fpgm", on_a_line()).tolist() == [11.5, 9.5, 9.5, 10.5]


def test_hrank_by_hand():
    """Ranks 2, 1, 0 and 1; of the two maps of rank 1 the fainter goes first."""
    maps = torch.tensor([[[1.0, 0], [0, 1]], [[1, 1], [1, 1]], [[0, 0], [0, 0]], [[5, 5], [5, 5]]])[None]
    assert scores("hrank", view_of(maps)).argsort().tolist() == [2, 1, 3, 0]


@pytest.mark.parametrize("images", [1, 2, 5])
def test_hrank_s_threads_find_the_ranks_that_one_finds(images):
    maps = F.relu(generic(images=images) - 0.5)
    assert torch.equal(map_ranks(maps), torch.linalg.matrix_rank(maps))


def test_l1_and_l2_by_hand():
    view = view_of(generic(4), torch.tensor([[3.0, -4.0], [0.0, 1.0], [0.0, 0.0], [-6.0, 8.0]]))
    assert scores("l1", view).tolist() == [7, 1, 0, 14]
    assert scores("l2", view).tolist() == [5, 1, 0, 10]


def test_random_is_a_permutation_that_differs_between_seeds_and_spaces():
    def drawn(seed: int, name: str = "space") -> list[float]:
        return scores("random", view_of(generic(40), seed=seed, name=name)).tolist()

    assert sorted(drawn(0)) == list(range(40))
    assert drawn(0) == drawn(0)
    assert drawn(0) != drawn(1)
    assert drawn(0) != drawn(0, "another")


def test_settings_have_their_defaults_and_take_typed_values():
    assert configure("qsfm").settings["images"] == 128
    chosen = configure("qsfm", {"metric": "ssim", "images": "16"}).settings
    assert (chosen["metric"], chosen["images"]) == ("ssim", 16)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("qsfn", {}, "Did you mean 'qsfm'"),
        ("qsfm", {"metrc": "ssim"}, "Did you mean 'metric'"),
        ("qsfm", {"metric": "sim"}, "Did you mean 'ssim'"),
        ("qsfm", {"images": "many"}, "must be a whole number, got 'many'"),
        ("qsfm", {"images": "1.5"}, "must be a whole number, got '1.5'"),
        ("qsfm", {"images": "0"}, "above zero"),
        ("qsfm", {"images": "-3"}, "above zero"),
        ("l1", {"images": "3"}, "unknown setting of criterion 'l1' 'images'"),
    ],
)
def test_wrong_names_and_values_are_refused_with_the_nearest(name, options, message):
    with pytest.raises(UsageError) as caught:
        configure(name, options)
    assert message in str(caught.value)


@pytest.mark.parametrize("text", ["nan", "inf", "-1", "0"])
def test_numbers_that_are_none_are_refused(monkeypatch, text):
    import edgeprune.criteria.norms as module

    def leaning(view: FilterView, *, strength: float = 1.0) -> Tensor:
        return view.weight[:, 0] * strength

    monkeypatch.setattr(module, "l1", leaning)
    leaning.__annotations__["strength"] = float
    leaning.__annotations__["return"] = Tensor
    leaning.__annotations__["view"] = FilterView
    with pytest.raises(UsageError, match="must be a number above zero"):
        configure("l1", {"strength": text})
