"""A network under trial: traced once, its scores worked out once, cut and recovered as trials ask for it."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from sgd import VGG, fine_tuned
from torch import Tensor
from trials import Result, Trial
from widths import Widths, spaces_of, widths_of

from edgeprune.accuracy import predict
from edgeprune.criteria import configure
from edgeprune.data import ImageSet, load_images
from edgeprune.model import Model, load_model, with_tensors
from edgeprune.plan import Budget, PruningPlan
from edgeprune.program import Program, capture
from edgeprune.prune.allocate import Scored
from edgeprune.prune.cost import cost, macs
from edgeprune.prune.score import Scorer
from edgeprune.prune.surgery import apply
from edgeprune.prune.trace import trace
from edgeprune.recover.batchnorm import reestimate
from edgeprune.recover.reconstruct import Cut, reconstruct

BENCHMARKS = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("EDGEPRUNE_DATA", BENCHMARKS.parent / "../shared/data"))
SHARED = BENCHMARKS / "shared_data.py"
NETWORKS = {
    "resnet56": ("resnet56_cifar10_jpegft.safetensors", f"{SHARED}:cifar10_train", f"{SHARED}:cifar10_test_second"),
    "vgg16_bn_cifar": (str(VGG), f"{SHARED}:cifar10_train", f"{SHARED}:cifar10_test_second"),
    "mobilenet_v2_tf": (
        "mobilenet_v2_1.0_224_imagenet.safetensors",
        str(DATA / "imagenet_train1000_224.tar"),
        f"{SHARED}:imagenet_val_second",
    ),
}
"""Weights, images to calibrate (and fine-tune) with, and images to score with."""

_BATCH = 32


def weights_of(name: str) -> Path:
    """The weights of a network in `NETWORKS`; VGG-16's are made by `sgd.py`."""
    return DATA / NETWORKS[name][0]


class Network:
    """A network under trial.

    Args:
        name: one of `NETWORKS`.
    """

    def __init__(self, name: str) -> None:
        _, self._training, self._scoring = NETWORKS[name]
        self._model = load_model(name, weights=weights_of(name))
        self._program = capture(self._model.module, self._model.input.shape)
        self._map = trace(self._program)
        self._cost = cost(self._program, self._map, self._model.module)
        self._scorers: dict[tuple[int, int], Scorer] = {}
        self._scores: dict[tuple[str, str, int, int, float], Scored] = {}
        self._calibrations: dict[tuple[int, int], list[Tensor]] = {}
        self._programs: dict[tuple[int, ...], Program] = {}
        self._last: tuple[str, tuple[Model, Program, PruningPlan]] | None = None

    @cached_property
    def images(self) -> ImageSet:
        """The images to score with, in a seeded random order."""
        return load_images(self._scoring, self._model.input)

    def result(self, trial: Trial) -> Result:
        """Do what a trial says."""
        begin = perf_counter()
        if trial.criterion == "uncut":
            return Result(trial, self._right(self._model, self._program, trial))
        cut, program, plan = self._cut(trial)
        model = self._recovered(trial, cut, program, plan)
        if trial.steps:
            images = self._drawn(128 * trial.steps, trial.seed)
            model = fine_tuned(model, images, trial.steps, trial.seed)
        left = sum(parameter.numel() for parameter in model.module.parameters())
        return Result(
            trial,
            self._right(model, program, trial),
            plan.macs_kept,
            left / self._cost.parameters,
            tuple(len(kept) for kept in plan.keep.values()),
            perf_counter() - begin,
        )

    def _right(self, model: Model, program: Program, trial: Trial) -> np.ndarray:
        images = self.images.take(np.arange(trial.images))
        assert images.labels is not None
        right: np.ndarray = predict(model, program, images, batch=64).ranked[:, 0] == images.labels
        return right

    @cached_property
    def _pool(self) -> ImageSet:
        return load_images(self._training, self._model.input)

    def _drawn(self, count: int, seed: int) -> ImageSet:
        """Training images as `load_images` draws them; a source that decodes all of them each time is read once."""
        if ".py:" not in self._training:
            return load_images(self._training, self._model.input, limit=count, seed=seed)
        first, chosen = (np.random.default_rng(one).permutation(len(self._pool)) for one in (0, seed))
        return self._pool.take(np.argsort(first)[chosen[:count]])

    def _batches(self, trial: Trial) -> list[Tensor]:
        wanted = (trial.calibration, trial.seed)
        if wanted not in self._calibrations:
            images = self._drawn(*wanted)
            batches = (torch.from_numpy(batch) for batch in images.batches(self._model.input, _BATCH))
            self._calibrations = {wanted: [one.contiguous(memory_format=torch.channels_last) for one in batches]}
        return self._calibrations[wanted]

    def _scored(self, criterion: str, options: str, trial: Trial, share: float) -> Scored:
        """The scores that a criterion gives, worked out once for all widths (APSSF asks what share is to go)."""
        configured = configure(criterion, dict(option.split("=") for option in options.split(",") if option))
        asks = criterion == "apssf"
        wanted = (criterion, options, trial.seed, trial.calibration, round(share, 3) if asks else 0.0)
        if wanted not in self._scores:
            scorer = Scorer(self._map, self._program, self._model.module, self._batches(trial))
            names = [space.name for space in spaces_of(self._map)]
            with torch.inference_mode():
                self._scores[wanted] = scorer.score(configured, names, seed=trial.seed, share=share)
        return self._scores[wanted]

    def _widths(self, trial: Trial) -> Widths:
        return widths_of(trial.widths, self._map, lambda rate: self._scored("apssf", f"rate={rate}", trial, 0.5))

    def _cut(self, trial: Trial) -> tuple[Model, Program, PruningPlan]:
        """The cut network; the last one is kept, since it is asked for with one recovery after another."""
        wanted = replace(trial, recovery="none", images=0, steps=0).key
        if self._last is None or self._last[0] != wanted:
            plan = self._plan(trial)
            model = apply(plan, self._map, self._model)
            self._last = wanted, (model, self._program_of(model, plan), plan)
        return self._last[1]

    def _program_of(self, cut: Model, plan: PruningPlan) -> Program:
        """The program of a cut network: the same for the same widths, whichever filters stay."""
        widths = tuple(len(kept) for kept in plan.keep.values())
        if widths not in self._programs:
            self._programs[widths] = capture(cut.module, cut.input.shape)
        return self._programs[widths]

    def _plan(self, trial: Trial) -> PruningPlan:
        widths = self._widths(trial)
        gone = 1 - sum(widths.values()) / sum(self._map.space(name).size for name in widths)
        scored = self._scored(trial.criterion, trial.options, trial, gone)
        keep = {name: _best(scored.scores[name], width) for name, width in widths.items()}
        there = np.ones(self._map.size)
        for name, kept in keep.items():
            space = self._map.space(name)
            there[space.first : space.first + space.size] = np.isin(np.arange(space.size), kept)
        return PruningPlan(
            model=self._map.fingerprint,
            criterion=trial.criterion,
            settings=scored.settings,
            budget=Budget(ratio="auto"),
            channel_multiple=1,
            sizes={space.name: space.size for space in self._map.spaces},
            keep=keep,
            macs_kept=macs(self._map, there) / self._cost.macs,
        )

    def _recovered(self, trial: Trial, cut: Model, program: Program, plan: PruningPlan) -> Model:
        if trial.recovery == "none":
            return cut
        with torch.inference_mode():
            if trial.recovery == "bn":
                module = with_tensors(cut.module, {})
                reestimate(program, module, self._batches(trial))
                return replace(cut, module=module)
            pair = Cut(self._model, cut, plan, self._map, self._program, program)
            return reconstruct(pair, self._batches(trial))[0]


def _best(scores: Tensor, count: int) -> tuple[int, ...]:
    """The filters of the highest scores, ascending; of equal ones the first."""
    order = np.argsort(-scores.double().numpy(), kind="stable")
    return tuple(sorted(order[:count].tolist()))
