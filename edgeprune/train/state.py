"""State: all that a training under way consists of, and one step of it."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from edgeprune.data import ImageSet, InputSpec
from edgeprune.errors import TrainingError
from edgeprune.resize import copy_tensors, own_tensors
from edgeprune.train.augment import augmented, draws, order
from edgeprune.train.best import Best
from edgeprune.train.device import chosen, mixed_precision, placed
from edgeprune.train.group import Group
from edgeprune.train.job import Job, Objective
from edgeprune.train.settings import Course, Settings, learning_rate

_SEEDS, _APART = 1 << 63, 1 << 40
_OTHER_IN_TRAINING = (nn.modules.batchnorm._NormBase, nn.modules.dropout._DropoutNd)
"""Layers that do something else in training mode."""


class State:
    """A training after some of its steps.

    Args:
        job: what is trained; nothing of it is done yet.

    Attributes:
        module: the network, in training mode, on the device.
        course: how many steps there are.
        steps_each: of one epoch.
        done: steps so far.
        elapsed_s: seconds so far.
        rows: of the evaluations so far.
        best: the best weights so far; None where those of the end are wanted.
        group: the processes that train together.
    """

    def __init__(self, job: Job) -> None:
        self._job, settings = job, job.settings
        self._device = chosen(settings.device)
        self.steps_each = max(1, len(job.images) // settings.batch)
        self.course = Course(settings.epochs * self.steps_each, settings.minutes)
        self.done, self.elapsed_s = 0, 0.0
        self.rows: list[Mapping[str, Any]] = []
        self._loss, self._order = 0.0, (-1, order(0, 0, 0))
        self.module = _learning(placed(copy.deepcopy(job.module), self._device), settings)
        self.group = Group()
        self._called = self.group.spread(self.module)
        self._learned = {name: one for name, one in self.module.named_parameters() if one.requires_grad}
        if not self._learned:
            raise TrainingError("the network has no parameters that can be trained", fix="Let them require gradients.")
        self._optimiser = _optimiser(self._learned, settings)
        self._mean = _running_mean(self.module, settings.ema)
        self.best = Best(self.module) if job.keep else None
        self._precision, self._scaler = mixed_precision(self._device, settings.mixed)

    @property
    def epoch(self) -> int:
        """The epoch of the next step, from 0."""
        return self.done // self.steps_each

    @property
    def within(self) -> int:
        """The number of the next step in its epoch, from 0."""
        return self.done % self.steps_each

    @property
    def share(self) -> float:
        """What share of the training is over, 0 to 1."""
        return self.course.share(self.done, self.elapsed_s)

    @property
    def over(self) -> bool:
        """Whether there is nothing left to do: it is through, or has found nothing better for too long."""
        return self.share >= 1 or 0 < self._job.settings.patience <= self._idle()

    @property
    def due(self) -> bool:
        """Whether it is time for the next row."""
        looks = self._job.settings.looks
        if self.over or not looks:
            return self.over or self.within == 0
        seen = self.rows[-1]["share"] if self.rows else 0.0
        return math.floor(self.share * looks) > math.floor(seen * looks)

    def _idle(self) -> int:
        """For how many evaluations none was better than one before.

        What the training began with does not count: at a high rate it is worse than that for long, and yet gets better.
        """
        if self.best is None or not self.rows:
            return 0
        found = [float(row[self._job.keep]) for row in self.rows]
        found = [one if math.isfinite(one) else math.inf for one in found]
        return len(found) - 1 - found.index(min(found))

    def step(self, objective: Objective) -> float:
        """Learn from the next batch.

        Returns:
            The loss. If it is not a finite number, nothing has been changed.
        """
        settings = self._job.settings
        images, labels = self._batch()
        rate = learning_rate(self.course.share(self.done + 0.5, self.elapsed_s), settings)
        self._optimiser.param_groups[0]["lr"] = rate
        # For layers that draw: each process of a group draws other numbers.
        torch.manual_seed((settings.seed * 1_000_003 + self.done + self.group.rank * _APART) % _SEEDS)
        self._optimiser.zero_grad(set_to_none=True)
        with _trainable(self._job):
            with self._precision:
                loss = objective(self._called, images, labels)
            value = self.group.mean(float(loss.detach()), self._device)
            if not math.isfinite(value):
                return value
            self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self._scaler.step(self._optimiser)
        self._scaler.update()
        if self._mean is not None:
            self._mean.update_parameters(self.module)
        self._loss += value
        self.done += 1
        return value

    def row(self) -> dict[str, Any]:
        """What is known of the steps since the last row; the next one begins empty."""
        steps = self.done - sum(row["steps"] for row in self.rows)
        rate = learning_rate(self.course.share(self.done - 0.5, self.elapsed_s), self._job.settings)
        epoch = -(-self.done // self.steps_each)
        told = {"epoch": epoch, "steps": steps, "share": self.share, "loss": self._loss / steps, "rate": rate}
        self._loss = 0.0
        return {**told, "elapsed_s": self.elapsed_s}

    def took(self, seconds: float) -> None:
        """Count time; in a group it is that of the first process, so that all end after the same step."""
        if self._job.settings.minutes is not None:
            seconds = float(self.group.agreed(seconds))
        self.elapsed_s += seconds

    def anywhere(self, flag: bool) -> bool:
        """Whether it is so in any process of the group."""
        return self.group.any(flag, self._device)

    def result(self) -> nn.Module:
        """A copy of the network as it is now, or of the running mean, in eval mode, on the device."""
        # Of the network as it was given: a forward pass may have left something behind that cannot be copied.
        found = placed(copy.deepcopy(self._job.module), self._device)
        copy_tensors(self.module if self._mean is None else self._mean.module, found)
        return found

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor a checkpoint must hold."""
        parts: dict[str, Mapping[str, Tensor]] = {"model": own_tensors(self.module)}
        for name, one in self._learned.items():
            parts[f"optimiser/{name}"] = self._optimiser.state[one]
        if self._mean is not None:
            parts["mean"] = own_tensors(self._mean)
        if self.best is not None:
            parts["best"] = self.best.tensors
        return {f"{part}/{name}": one for part, tensors in parts.items() for name, one in tensors.items()}

    def document(self) -> dict[str, Any]:
        """Everything else a checkpoint must hold."""
        return {
            "fingerprint": self._job.fingerprint,
            "done": self.done,
            "elapsed_s": self.elapsed_s,
            "loss": self._loss,
            "rows": [dict(row) for row in self.rows],
            "best": None if self.best is None else self.best.to_json(),
            "scaler": self._scaler.state_dict(),
            "companion": dict(self._job.companion.to_json()),
        }

    def fits(self, tensors: Mapping[str, Tensor], document: Mapping[str, Any]) -> bool:
        """Whether a checkpoint is one of this training."""
        return bool(document["fingerprint"] == self._job.fingerprint) and self.tensors().keys() == tensors.keys()

    def restore(self, tensors: Mapping[str, Tensor], document: Mapping[str, Any]) -> None:
        """Go on from a checkpoint that fits."""
        with torch.no_grad():
            for name, tensor in self.tensors().items():
                tensor.copy_(tensors[name])  # in place: the layout in memory decides the last bits
        self.done, self.elapsed_s = int(document["done"]), float(document["elapsed_s"])
        self._loss, self.rows = float(document["loss"]), list(document["rows"])
        if self.best is not None:
            held = {name.removeprefix("best/"): one for name, one in tensors.items() if name.startswith("best/")}
            self.best.restore(held, document["best"])
        if self._scaler.is_enabled() and document["scaler"]:  # else it was trained on another kind of device
            self._scaler.load_state_dict(document["scaler"])
        self._job.companion.restore(document["companion"])

    def _batch(self) -> tuple[Tensor, Tensor | None]:
        """The images and labels of the next step, on the device: this process's share of them."""
        settings, images = self._job.settings, self._job.images
        if self._order[0] != self.epoch:
            self._order = self.epoch, order(settings.seed, self.epoch, len(images))
        size = min(settings.batch, len(images))
        indices = self._order[1][self.within * size : (self.within + 1) * size]
        indices = indices[self.group.rank :: self.group.size][
            : max(1, size // self.group.size)
        ]  # equally many for each
        batch = images.take(indices)
        inputs = _inputs(batch, draws(settings.seed, self.epoch, indices, 3), settings, self._job.input)
        labels = None if batch.labels is None else torch.from_numpy(batch.labels).to(self._device)
        return inputs.to(self._device).contiguous(memory_format=torch.channels_last), labels


@contextmanager
def _trainable(job: Job) -> Iterator[None]:
    """Within the block, what the network's own code cannot do is an error of ours."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        half = max(2, job.settings.batch // 2)
        what = f"the device's memory is too small for batches of {job.settings.batch} images"
        raise TrainingError(what, where=str(error).partition("\n")[0], fix=f"For example: --batch {half}") from error
    except RuntimeError as error:
        raise TrainingError(
            "the network cannot be trained: its forward or backward pass fails in training mode",
            where=str(error).partition("\n")[0],
            fix="Its forward must let gradients through: x = x + y, for example, not x += y after an activation.",
        ) from error


def _inputs(batch: ImageSet, numbers: Any, settings: Settings, spec: InputSpec) -> Tensor:
    return torch.from_numpy(spec.normalise(augmented(batch.images, numbers, settings.padding, settings.flip)))


def _learning(module: nn.Module, settings: Settings) -> nn.Module:
    """The same network in training mode, all of it or all but norms and dropout."""
    module.train()
    if settings.as_in_use:
        for layer in module.modules():
            if isinstance(layer, _OTHER_IN_TRAINING):
                layer.eval()
    return module


def _optimiser(learned: Mapping[str, nn.Parameter], settings: Settings) -> torch.optim.Optimizer:
    """Its tensors exist from the start, at zero, so that a checkpoint of the first step holds the same ones."""
    how: dict[str, Any] = {"lr": settings.rate, "weight_decay": settings.weight_decay}
    if settings.optimiser == "sgd":
        sgd = torch.optim.SGD(learned.values(), momentum=settings.momentum, nesterov=True, **how)
        for one in learned.values():
            sgd.state[one] = {"momentum_buffer": torch.zeros_like(one)}
        return sgd
    adamw = torch.optim.AdamW(learned.values(), **how)
    for one in learned.values():
        adamw.state[one] = {
            "step": torch.zeros(()),
            "exp_avg": torch.zeros_like(one),
            "exp_avg_sq": torch.zeros_like(one),
        }
    return adamw


def _running_mean(module: nn.Module, decay: float) -> AveragedModel | None:
    if not decay:
        return None
    mean: Any = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
    return AveragedModel(module, multi_avg_fn=mean, use_buffers=True)
