"""Every criterion keeps the contract; settings are parsed and refused with a hint."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from edgeprune.criteria import CRITERIA, FilterView, configure
from edgeprune.errors import UsageError

NAMES = sorted(CRITERIA.rows)


def view_of(maps: Tensor, weight: Tensor | None = None, seed: int = 0, batch: int = 4) -> FilterView:
    """A space whose maps [images, n, height, width] are the same on both sides."""
    n = maps.shape[1]
    weight = torch.randn(n, 9, generator=torch.Generator().manual_seed(5)) if weight is None else weight
    return FilterView("space", n, weight, lambda side: iter(maps.split(batch)), seed)


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


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("maps", DEGENERATE.values(), ids=DEGENERATE.keys())
def test_every_filter_has_one_finite_score_whatever_the_maps(name, maps):
    scores = configure(name)(view_of(maps))
    assert scores.shape == (maps.shape[1],)
    assert torch.isfinite(scores).all()


@pytest.mark.parametrize("name", NAMES)
def test_the_same_view_has_the_same_scores(name):
    one, other = (configure(name)(view_of(generic())) for _ in range(2))
    assert torch.equal(one, other)


@pytest.mark.parametrize("name", NAMES)
def test_a_filter_of_no_weight_scores_are_still_defined(name):
    assert torch.isfinite(configure(name)(view_of(generic(), weight=torch.zeros(7, 9)))).all()


def test_l1_is_the_sum_of_absolute_weights():
    weight = torch.tensor([[1.0, -2.0], [0.5, 0.25]])
    assert configure("l1")(view_of(generic(2), weight)).tolist() == [3.0, 0.75]


def test_random_is_a_permutation_that_differs_between_seeds_and_spaces():
    def scores(seed: int, name: str = "space") -> list[float]:
        view = view_of(generic(40), seed=seed)
        return configure("random")(FilterView(name, view.size, view.weight, view.maps, seed)).tolist()

    assert sorted(scores(0)) == list(range(40))
    assert scores(0) == scores(0)
    assert scores(0) != scores(1)
    assert scores(0) != scores(0, "another")


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
    import edgeprune.criteria.l1 as module

    def leaning(view: FilterView, *, strength: float = 1.0) -> Tensor:
        return view.weight[:, 0] * strength

    monkeypatch.setattr(module, "l1", leaning)
    leaning.__annotations__["strength"] = float
    leaning.__annotations__["return"] = Tensor
    leaning.__annotations__["view"] = FilterView
    with pytest.raises(UsageError, match="must be a number above zero"):
        configure("l1", {"strength": text})
