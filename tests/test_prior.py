"""What a board's file says of a network's time: predicted, with its known error."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from nets import traced, zoo

from edgeprune.errors import UsageError
from edgeprune.prune.allocate import allowed_widths, left_whole
from edgeprune.prune.prior import Prior, prior_of
from edgeprune.prune.shapes import Shapes
from edgeprune.prune.timing import Times
from edgeprune.target import Fact, load_target
from edgeprune.variants import variant


@pytest.mark.parametrize("name", ["rpi3", "rpi4", "jetson-nano"])
def test_published_latencies_are_foretold_from_one_another(name: str) -> None:
    prior = prior_of(load_target(name))
    assert prior.threads == 4
    assert prior.ms_per_gmac > 0
    assert prior.ms_per_mb > 0
    assert 0 < prior.error <= prior.worst_error < 0.2
    assert "ncnn benchmark/README.md" in str(prior)


@pytest.mark.parametrize("name", ["host", "rpi5"])
def test_a_board_without_enough_latencies_in_fp32_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="no time can be predicted") as caught:
        prior_of(load_target(name))
    assert "--device" in caught.value.fix


def test_latencies_that_follow_the_model_are_foretold_exactly() -> None:
    work = {"mobilenet_v2": (0.3007743, 67.664), "mobilenet_v3": (0.2165898, 57.476)}
    work |= {"resnet18": (1.8140733, 65.387), "resnet50": (4.0891843, 189.129)}
    facts = {f"ncnn_{name}_1_thread_ms": Fact(50 * macs + 2 * moved, "made up") for name, (macs, moved) in work.items()}
    prior = prior_of(replace(load_target("rpi4"), facts=facts))
    assert (prior.threads, prior.source) == (1, "made up")
    assert (prior.ms_per_gmac, prior.ms_per_mb) == (pytest.approx(50), pytest.approx(2))
    assert prior.worst_error < 1e-9


def test_the_work_of_the_published_mobilenet_is_that_of_our_own() -> None:
    found = traced(zoo("mobilenet_v2", (3, 224, 224)))
    shapes = Shapes(found.program, found.channel_map)
    assert sum(one.macs for one in shapes.at({})) / 1e9 == pytest.approx(0.3007743, rel=1e-6)
    assert sum(shapes.moved_mb({})) == pytest.approx(67.664, rel=1e-4)


def test_times_are_solved_on_it_as_on_a_table() -> None:
    found = traced(zoo("digits"))
    shapes = Shapes(found.program, found.channel_map)
    whole = left_whole(found.channel_map)
    steps = {one.name: allowed_widths(one, 8) for one in found.channel_map.spaces if one.name not in whole}
    choices = {name: allowed[:-1][::-1] for name, allowed in steps.items()}
    prior = Prior("a board", 4, 50.0, 2.0, 0.1, 0.2, "made up")
    times = Times(shapes, prior.network(shapes, "digits", [variant(choices, number) for number in range(16)]))
    for number in range(20):
        widths = {name: allowed[number % len(allowed)] for name, allowed in steps.items()}
        exact = sum(
            50 * one.macs / 1e9 + 2 * moved
            for one, moved in zip(shapes.at(widths), shapes.moved_mb(widths), strict=True)
        )
        assert times.ms(widths) == pytest.approx(exact, rel=0.03)
    fastest = times.problem({name: np.zeros(len(allowed)) for name, allowed in steps.items()}, steps).fastest()
    assert times.ms({}) / fastest.ms > 1.2
