"""QSFM against the plainest possible reading of it: two loops over pairs, one over images."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

import edgeprune.criteria.qsfm as module
from edgeprune.criteria import FilterView, configure
from edgeprune.criteria.pairs import removal_order
from edgeprune.criteria.qsfm import PSNR_CAP_DB, mean_similarity

PROPERTIES = settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))


def maps_of(n: int = 6, images: int = 5, height: int = 4, width: int = 3, seed: int = 0) -> Tensor:
    return torch.randn(images, n, height, width, generator=torch.Generator().manual_seed(seed))


def view_of(maps: Tensor, weight: Tensor | None = None, batch: int = 2) -> FilterView:
    n = maps.shape[1]
    weight = torch.arange(1.0, n + 1).reshape(n, 1) if weight is None else weight
    return FilterView("space", n, (weight,), lambda side: iter(maps.split(batch)))


def ssim_of_two(one: list[float], other: list[float], scale: float) -> float:
    """Wang et al. 2004, equation 13, with the map as its one window."""
    count = len(one)
    mean1, mean2 = sum(one) / count, sum(other) / count
    var1, var2 = (sum((v - m) ** 2 for v in values) / count for values, m in ((one, mean1), (other, mean2)))
    both = sum((a - mean1) * (b - mean2) for a, b in zip(one, other, strict=True)) / count
    c1, c2 = (0.01 * scale) ** 2, (0.03 * scale) ** 2
    return (2 * mean1 * mean2 + c1) * (2 * both + c2) / ((mean1**2 + mean2**2 + c1) * (var1 + var2 + c2))


def psnr_of_two(one: list[float], other: list[float], scale: float) -> float:
    error = sum((a - b) ** 2 for a, b in zip(one, other, strict=True)) / len(one)
    return PSNR_CAP_DB if error == 0 else min(PSNR_CAP_DB, 10 * math.log10(scale**2 / error))


def reference(maps: Tensor, metric: str) -> Tensor:
    pairwise = ssim_of_two if metric == "ssim" else psnr_of_two
    n = maps.shape[1]
    result = torch.zeros(n, n, dtype=torch.float64)
    for image in maps.double():
        scale = float(image.max() - image.min())
        for i in range(n):
            for j in range(n):
                result[i, j] += pairwise(image[i].flatten().tolist(), image[j].flatten().tolist(), scale) / len(maps)
    return result


@pytest.mark.parametrize("metric", ["ssim", "psnr"])
@pytest.mark.parametrize("offset", [0.0, 3.0])
def test_similarity_is_that_of_two_plain_loops(metric, offset):
    maps = maps_of() + offset
    found, wanted = mean_similarity([maps], metric), reference(maps, metric)
    off_diagonal = ~torch.eye(6, dtype=torch.bool)
    assert torch.allclose(found[off_diagonal], wanted[off_diagonal], rtol=1e-4, atol=1e-4)
    assert torch.allclose(found, found.T, atol=1e-6)


def pairwise(maps: Tensor, metric: str) -> Tensor:
    """The formulas as they are written, one after another."""
    low, high = maps.flatten(1).aminmax(dim=1)
    scale = torch.maximum(high - low, 1e-6 * torch.maximum(low.abs(), high.abs())).reshape(-1, 1, 1)
    scale = scale.clamp_min(torch.finfo(maps.dtype).tiny)  # maps of nothing but zeros are alike
    mean = maps.mean(dim=2, keepdim=True)
    centred = (maps - mean) / scale
    mean, covariance = (mean / scale).squeeze(2), centred @ centred.transpose(1, 2) / maps.shape[2]
    squares, variance = mean.square(), covariance.diagonal(dim1=1, dim2=2)
    if metric == "psnr":
        error = variance.unsqueeze(2) + variance.unsqueeze(1) - 2 * covariance
        error = error + (mean.unsqueeze(2) - mean.unsqueeze(1)).square()
        return -10 * torch.log10(error.clamp_min(10 ** (-PSNR_CAP_DB / 10)))
    luminance = (2 * mean.unsqueeze(2) * mean.unsqueeze(1) + 0.01**2) / (
        squares.unsqueeze(2) + squares.unsqueeze(1) + 0.01**2
    )
    structure = (2 * covariance + 0.03**2) / (variance.unsqueeze(2) + variance.unsqueeze(1) + 0.03**2)
    return luminance * structure


@PROPERTIES
@given(st.integers(1, 40), st.integers(1, 6), st.integers(1, 9), st.booleans(), st.sampled_from(["ssim", "psnr"]))
def test_working_in_place_changes_the_similarity_by_rounding_only(n, images, side, rectified, metric):
    maps = maps_of(n, images, side, side, seed=n)
    maps = maps.relu() if rectified else maps
    total = pairwise(maps.flatten(2), metric).double().sum(dim=0)
    wanted = (total + total.T) / (2 * images)
    # Not to the bit: in what order a product is added up depends on where in memory its operands lie.
    assert torch.allclose(mean_similarity([maps], metric), wanted, rtol=1e-4, atol=1e-3)


BY_HAND = torch.tensor([[0.0, 0.0], [0.0, 1.0], [4.0, 4.0], [4.0, 2.0]]).reshape(1, 4, 1, 2)
"""One image, four maps of two pixels; the range is 4."""


def test_psnr_by_hand():
    """Errors: 0.5 of the first two, 2 of the last two, else 8.5 and more.

    Of the first two the second is nearer to the others and goes; then the fourth; of the last two the smaller one.
    """
    assert float(mean_similarity([BY_HAND], "psnr")[0, 1]) == pytest.approx(10 * math.log10(16 / 0.5), rel=1e-5)
    assert configure("qsfm")(view_of(BY_HAND)).scores.tolist() == [2, 0, 3, 1]


def test_ssim_by_hand():
    """Means 0, 1/2, 4, 3, variances 0, 1/4, 0, 1; the second and the fourth vary against each other.

    Most alike are the last two (0.0136): the third is more like the others and goes. Then, of the first two, the first;
    of the last two the smaller one.
    """
    pair = (2 * 12 + 0.0016) * 0.0144 / ((16 + 9 + 0.0016) * (1 + 0.0144))
    assert float(mean_similarity([BY_HAND], "ssim")[2, 3]) == pytest.approx(pair, rel=1e-4)
    assert configure("qsfm", {"metric": "ssim"})(view_of(BY_HAND)).scores.tolist() == [1, 2, 0, 3]


@pytest.mark.parametrize("metric", ["ssim", "psnr"])
def test_a_map_is_most_similar_to_itself(metric):
    assert torch.allclose(
        reference(maps_of(), metric).diagonal(), mean_similarity([maps_of()], metric).diagonal(), rtol=1e-3
    )


@pytest.mark.parametrize("metric", ["ssim", "psnr"])
def test_batches_and_chunks_do_not_change_the_result(metric, monkeypatch):
    maps = maps_of(images=7)
    whole = mean_similarity([maps], metric)
    assert torch.allclose(mean_similarity(maps.split(2), metric), whole, rtol=1e-6)
    monkeypatch.setattr(module, "_CHUNK_BYTES", 1)
    assert torch.allclose(mean_similarity([maps], metric), whole, rtol=1e-6)


@pytest.mark.parametrize("metric", ["ssim", "psnr"])
def test_similarity_does_not_depend_on_the_unit_of_the_maps(metric):
    maps = maps_of()
    assert torch.allclose(mean_similarity([maps * 1000], metric), mean_similarity([maps], metric), rtol=1e-3, atol=1e-4)


def test_a_small_change_of_a_bright_map_is_seen():
    """Sums of squares of bright maps would lose it in rounding."""
    maps = maps_of() + 300.0
    off_diagonal = ~torch.eye(6, dtype=torch.bool)
    found, wanted = mean_similarity([maps], "psnr"), reference(maps, "psnr")
    assert torch.allclose(found[off_diagonal], wanted[off_diagonal], atol=0.05)


@pytest.mark.parametrize("metric", ["ssim", "psnr"])
def test_maps_without_contrast_are_all_alike(metric):
    for value in (0.0, 0.1, -5.0, 1e6):
        similarity = mean_similarity([torch.full((2, 4, 3, 3), value)], metric)
        assert torch.isfinite(similarity).all()
        assert float(similarity.max() - similarity.min()) <= 1e-3 * float(similarity.abs().max())


@pytest.mark.parametrize("metric", ["ssim", "psnr"])
@pytest.mark.parametrize("drop", ["redundant", "weak"])
def test_of_two_equal_maps_one_goes_first_and_the_other_late(metric, drop):
    maps = maps_of(8)
    maps[:, 5] = maps[:, 2]
    scores = configure("qsfm", {"metric": metric, "drop": drop})(view_of(maps)).scores
    assert {float(scores[2]), float(scores[5])} >= {0.0}
    assert float(scores[2]) == 0.0  # of equals the one of smaller norm goes


@PROPERTIES
@given(
    st.permutations(range(7)),
    st.integers(0, 20),
    st.sampled_from(["ssim", "psnr"]),
    st.sampled_from(["redundant", "weak"]),
)
def test_permuted_filters_have_permuted_scores(order, seed, metric, drop):
    maps, weight = maps_of(7, seed=seed), torch.rand(7, 3, generator=torch.Generator().manual_seed(seed))
    criterion = configure("qsfm", {"metric": metric, "drop": drop})
    scores = criterion(view_of(maps, weight)).scores
    assert torch.equal(criterion(view_of(maps[:, order], weight[order])).scores, scores[order])


def greedy(similarity: Tensor, norm: Tensor, drop: str) -> list[int]:
    """The loop as a person would write it: who goes, in order."""
    alive, gone = list(range(len(norm))), []
    while len(alive) > 1:
        first, second = max(
            ((i, j) for i in alive for j in alive if i < j), key=lambda pair: float(similarity[pair[0], pair[1]])
        )
        weaker = first if norm[first] < norm[second] else second
        others = [sum(float(similarity[k, other]) for other in alive if other != k) for k in (first, second)]
        alike = math.isclose(*others, abs_tol=1e-9)  # always so for the last two
        loser = weaker if drop == "weak" or alike else (first if others[0] > others[1] else second)
        alive.remove(loser)
        gone.append(loser)
    return gone + alive


@PROPERTIES
@given(st.integers(1, 9), st.integers(0, 1000), st.sampled_from(["redundant", "weak"]))
def test_scores_are_the_places_in_the_greedy_order(n, seed, drop):
    random = torch.Generator().manual_seed(seed)
    half = torch.rand(n, n, generator=random, dtype=torch.float64)
    similarity, norm = (half + half.T) / 2, torch.rand(n, generator=random, dtype=torch.float64)
    scores = removal_order(similarity, norm, drop)
    assert scores.argsort().tolist() == greedy(similarity, norm, drop)
    assert sorted(scores.tolist()) == list(range(n))


def test_no_more_images_are_looked_at_than_asked_and_the_source_is_read_to_its_end():
    maps, read = maps_of(images=6), []

    def source(side):
        for batch in maps.split(2):
            yield batch
            read.append(len(batch))

    view = FilterView("space", 6, (torch.rand(6, 1),), source)
    scores = configure("qsfm", {"images": "3"})(view).scores
    assert read == [2, 2, 2]
    assert torch.equal(scores, configure("qsfm")(replace(view, maps=lambda side: iter([maps[:3]]))).scores)


def test_the_side_of_the_activation_is_the_one_asked_for():
    asked = []

    def source(side):
        asked.append(side)
        return iter([maps_of()])

    view = FilterView("space", 6, (torch.rand(6, 1),), source)
    for side in ("after", "before"):
        configure("qsfm", {"side": side})(view)
    assert asked == ["after", "before"]
