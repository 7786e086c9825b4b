"""The training loop: it can be stopped after any step, and goes on as if it had not been.

Nothing random is remembered: the order of images, their crops and what layers draw are functions of the seed, the epoch
and the step. So weights, momentum and the step's number are all that a checkpoint must hold.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from edgeprune.errors import TrainingError
from edgeprune.progress import Tick, silent
from edgeprune.train.checkpoint import NAME, load_checkpoint, save_checkpoint
from edgeprune.train.device import placed
from edgeprune.train.job import Job
from edgeprune.train.settings import Clock
from edgeprune.train.state import State
from edgeprune.train.stop import stopping


@dataclass(frozen=True, eq=False)
class Trained:
    """What a training came to.

    Attributes:
        module: the network, in eval mode, on the CPU.
        rows: what is known of each epoch or evaluation, in order, JSON values.
        elapsed_s: how long it took, over all sittings.
        kept: of which row the weights are, counted from 1; 0 for those that were given.
    """

    module: nn.Module
    rows: tuple[Mapping[str, Any], ...]
    elapsed_s: float
    kept: int


def fit(
    job: Job,
    place: Path | None = None,
    *,
    tick: Tick = silent,
    say: Callable[[Mapping[str, Any]], None] | None = None,
    clock: Clock = time.monotonic,
) -> Trained:
    """Train, or go on where a checkpoint in `place` ends.

    A signal that asks for the end (Ctrl-C) is met after the step it came in, with a checkpoint.

    Args:
        job: what to train.
        place: a folder for checkpoints; None for none.
        tick: progress, in steps.
        say: told each row.
        clock: seconds, for `Settings.minutes` and for when to save.

    Raises:
        TrainingError: the loss is no finite number, nothing can be trained, or the checkpoint cannot be used.
        KeyboardInterrupt: a signal asked for the end.
    """
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())), stopping() as stop:
        state = State(job)
        if place is not None and (place / NAME).is_file():
            _go_on(state, place / NAME)
        last = saved = clock()
        if state.best is not None and not state.best.judged:
            _judge(job, state, _result(job, state), 0)
        while not state.over:
            _step(job, state, place)
            now = clock()
            state.took(now - last)
            last = now
            _stepped(job, state, say)
            tick(round(state.share * state.course.steps), state.course.steps)
            ending = state.anywhere(stop.asked)
            if place is not None and (ending or state.over or now - saved >= job.settings.checkpoint_s):
                if state.group.rank == 0:
                    save_checkpoint(place / NAME, state.tensors(), state.document())
                saved = now
            stop.meet()
            if ending:
                raise KeyboardInterrupt
    ended = _result(job, state)
    if state.best is not None:
        state.best.into(ended)
    module = placed(ended, torch.device("cpu"), torch.contiguous_format)
    return Trained(
        module, tuple(state.rows), state.elapsed_s, len(state.rows) if state.best is None else state.best.row
    )


def _go_on(state: State, path: Path) -> None:
    tensors, document = load_checkpoint(path)
    if not state.fits(tensors, document):
        raise TrainingError(
            "there is a checkpoint of another training, with other options, images or weights",
            where=str(path),
            fix="Give the same options to go on with it, begin anew with --restart, or name another folder with --out.",
        )
    state.restore(tensors, document)


def _result(job: Job, state: State) -> nn.Module:
    module = state.result()
    job.companion.settle(module)
    return module


def _step(job: Job, state: State, place: Path | None) -> None:
    loss = state.step(job.objective)
    if not math.isfinite(loss):
        kept = place is not None and (place / NAME).is_file()
        where = f"epoch {state.epoch + 1}, step {state.within + 1} of {state.steps_each}, --lr {job.settings.rate:g}"
        raise TrainingError(
            "the loss is not a finite number any more: the training has diverged",
            where=where + (f"; the checkpoint before is in {place / NAME}" if kept and place else ""),
            fix=f"Train with a lower rate, for example --lr {job.settings.rate / 10:g}{' --restart' if kept else ''}.",
        )


def _stepped(job: Job, state: State, say: Callable[[Mapping[str, Any]], None] | None) -> None:
    """What follows a step: the companion's turn, and every so often a row."""
    job.companion.stepped(state.module, state.share, state.within == 0)
    if not state.due:
        return
    found = _judge(job, state, _result(job, state), len(state.rows) + 1)
    row = state.row() | dict(job.companion.row()) | dict(found)
    state.rows.append(row)
    if say is not None and state.group.rank == 0:
        say(row)


def _judge(job: Job, state: State, module: nn.Module, row: int) -> Mapping[str, Any]:
    """Evaluate a network, and keep its weights if they are the best so far."""
    found: Mapping[str, Any] = state.group.agreed({} if job.evaluate is None else dict(job.evaluate(module)))
    if state.best is not None:
        state.best.offer(found[job.keep], module, row)
    return found
