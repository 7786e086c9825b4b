"""distil: a cut network learns from the uncut one, without labels, and only what brings it nearer is kept."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from nets import SHAPE, Plain, found_in, model_of, plan_of, traced
from torch import Tensor, nn
from torch.nn import functional as F

from edgeprune.channels import Space
from edgeprune.data import ImageSet
from edgeprune.model import Model
from edgeprune.prune.surgery import apply
from edgeprune.train.distil import Distillation, answers, comparable, cut_blocks, nearness, teacher_of
from edgeprune.train.job import Alone, Job
from edgeprune.train.loop import fit
from edgeprune.train.recipe import Recipe
from edgeprune.train.settings import Settings

pytestmark = pytest.mark.usefixtures("one_thread")


class Stage(nn.Module):
    """conv-bn-relu-conv, added to what came in."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Conv2d(8, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU())
        self.outer = nn.Conv2d(6, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.outer(self.inner(x)))


class Blocks(nn.Module):
    """Two residual blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.body = nn.Sequential(Stage(), Stage())
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(self.stem(x)).mean((2, 3)))


KEEP = {"body.0.inner.0": (0, 2, 3), "body.1.inner.0": (1, 2, 4, 5)}


def pair() -> tuple[Model, Model, tuple[str, ...]]:
    found = found_in(Blocks)
    plan = plan_of(found.channel_map, KEEP)
    spaces = [found.channel_map.space(name) for name in KEEP]
    return found.model, apply(plan, found.channel_map, found.model), cut_blocks(spaces)


def images(count: int = 64, seed: int = 0) -> ImageSet:
    chance = np.random.default_rng(seed)
    pixels = chance.integers(0, 256, (count, *SHAPE[1:], SHAPE[0]), dtype=np.uint8)
    return ImageSet(pixels, None, "chance", count)


def job_of(recipe: Recipe, labels: np.ndarray | None = None, **settings) -> Job:
    uncut, cut, blocks = pair()
    chosen = Settings(**{"epochs": 20, "batch": 16, "rate": 0.02, "weight_decay": 0.0, "device": "cpu", **settings})
    held_out = images(16, seed=1)
    teacher = teacher_of(uncut.module, chosen)
    judge = nearness(answers(teacher, held_out, uncut.input, chosen.mixed), held_out, uncut.input, chosen.mixed)
    objective = Distillation(teacher, blocks, recipe)
    food = replace(images(), labels=labels)
    return Job(cut.module, uncut.input, food, chosen, objective, "this one", Alone(), judge, "distance")


def space(producers: tuple[str, ...], consumers: tuple[str, ...]) -> Space:
    return Space(producers[0], 0, 8, producers, consumers)


@pytest.mark.parametrize(
    ("spaces", "blocks"),
    [
        ([space(("layer1.0.conv1",), ("layer1.0.conv2",)), space(("layer1.1.conv1",), ("layer1.1.conv2",))],
         ("layer1.0", "layer1.1")),
        ([space(("layer1.0.conv1",), ("layer1.0.conv2",)), space(("layer1.0.conv2",), ("layer1.0.conv3",))],
         ("layer1",)),
        ([space(("features.1.conv.0.0", "features.1.conv.1.0"), ("features.1.conv.2",)),
          space(("features.2.conv.0.0", "features.2.conv.1.0"), ("features.2.conv.2",))],
         ("features.1", "features.2")),
        ([space(("first",), ("second",))], ()),
        ([space(("body.0",), ("body.3",)), space(("body.3",), ("head",))], ("body",)),
        ([], ()),
    ],
)  # fmt: skip
def test_what_is_compared_are_the_largest_modules_around_one_cut_space(spaces, blocks):
    assert cut_blocks(spaces) == blocks


def test_blocks_with_other_shapes_than_before_are_not_compared():
    uncut, cut, blocks = pair()
    assert blocks == ("body.0", "body.1")
    image = torch.zeros(1, *SHAPE)
    assert comparable(uncut.module, cut.module, (*blocks, "body.0.inner", "no.such"), image) == blocks


def test_the_uncut_network_itself_has_nothing_to_learn():
    uncut, _, blocks = pair()
    loss = Distillation(teacher_of(uncut.module, Settings(device="cpu")), blocks, Recipe())
    batch = torch.rand(8, *SHAPE)
    with torch.no_grad():
        assert float(loss(uncut.module, batch, None)) == pytest.approx(0, abs=1e-6)
        assert float(loss(pair()[1].module, batch, None)) > 1e-3


def test_the_loss_is_the_divergence_at_a_temperature_and_the_blocks_relative_error():
    uncut, cut, blocks = pair()
    teacher, batch = teacher_of(uncut.module, Settings(device="cpu")), torch.rand(8, *SHAPE)
    with torch.no_grad():
        p, q = (uncut.module(batch) / 4).softmax(1), (cut.module(batch) / 4).softmax(1)
        answer = 16 * float((p * (p / q).log()).sum(1).mean())
        assert float(Distillation(teacher, blocks, Recipe(4.0, 0.0))(cut.module, batch, None)) == pytest.approx(
            answer, rel=0.02
        )
        stems = uncut.module.stem(batch), cut.module.stem(batch)
        one, other = uncut.module.body[0](stems[0]), cut.module.body[0](stems[1])
        apart = float((one - other).square().sum() / one.square().sum())
        both = Distillation(teacher, ("body.0",), Recipe(4.0, 3.0))(cut.module, batch, None)
    assert float(both) == pytest.approx(answer + 3 * apart, rel=1e-3)


def test_labels_count_by_their_share_and_are_mixed_as_the_images_are():
    uncut, cut, _ = pair()
    teacher, batch, labels = (
        teacher_of(uncut.module, Settings(device="cpu")),
        torch.rand(8, *SHAPE),
        torch.arange(8) % 4,
    )
    with torch.no_grad():
        torch.manual_seed(3)
        share = float(torch.distributions.Beta(0.5, 0.5).sample())
        output = cut.module(share * batch + (1 - share) * batch.flip(0))
        wanted = share * F.cross_entropy(output, labels) + (1 - share) * F.cross_entropy(output, labels.flip(0))
        torch.manual_seed(3)
        loss = Distillation(teacher, (), Recipe(labels=1.0, mixup=0.5))(cut.module, batch, labels)
    assert 0.01 < share < 0.99
    assert float(loss) == pytest.approx(float(wanted), rel=1e-5)


def test_a_network_of_one_output_learns_its_value():
    loss = Distillation(nn.Linear(3, 1), (), Recipe())
    assert float(loss(nn.Linear(3, 1), torch.rand(4, 3), None).detach()) > 0


@pytest.mark.parametrize("recipe", [Recipe(), Recipe(features=0.0), Recipe(mixup=0.4)])
def test_it_brings_the_cut_network_nearer_to_the_uncut_one(recipe):
    job = job_of(recipe)
    assert job.evaluate is not None
    before, result = job.evaluate(job.module), fit(job)
    assert job.evaluate(result.module)["distance"] < 0.5 * before["distance"]
    assert result.kept > 0


def test_neither_the_uncut_nor_the_cut_model_is_changed():
    uncut, cut, _ = pair()
    before = [one.clone() for module in (uncut.module, cut.module) for one in module.state_dict().values()]
    job = job_of(Recipe(), epochs=2)
    fit(replace(job, module=cut.module))
    after = [one for module in (uncut.module, cut.module) for one in module.state_dict().values()]
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))


class PowerCutError(Exception):
    """The power is cut."""


@pytest.mark.parametrize("steps", [1, 4, 7])
def test_interrupted_and_resumed_it_is_the_same_to_the_bit(tmp_path, steps):
    options = {"epochs": 3, "ema": 0.9, "looks": 5, "flip": True, "padding": 1, "checkpoint_s": 0.0}
    done = 0

    def tick(*_: int) -> None:
        nonlocal done
        done += 1
        if done == steps:
            raise PowerCutError

    whole = fit(job_of(Recipe(mixup=0.4), **options))
    with pytest.raises(PowerCutError):
        fit(job_of(Recipe(mixup=0.4), **options), tmp_path, tick=tick)
    torch.manual_seed(99)
    resumed = fit(job_of(Recipe(mixup=0.4), **options), tmp_path)
    one, other = whole.module.state_dict(), resumed.module.state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert whole.kept == resumed.kept


def test_a_budget_smaller_than_a_step_is_one_step():
    now = 0.0

    def clock() -> float:
        nonlocal now
        now += 3600.0
        return now

    result = fit(job_of(Recipe(), minutes=0.01), clock=clock)
    assert [row["steps"] for row in result.rows] == [1]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_on_a_gpu_it_learns_as_well():
    job = job_of(Recipe(), device="cuda")
    result = fit(job)
    assert result.kept > 0
    assert all(one.device.type == "cpu" for one in result.module.parameters())


def test_plain_networks_are_compared_by_their_answers_alone():
    model = model_of(Plain())
    found = traced(model)
    assert cut_blocks([found.channel_map.space("first")]) == ()
