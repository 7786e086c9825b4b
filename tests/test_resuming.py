"""resuming: a reconstruction that was killed goes on after its last finished layer, to the same bytes."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import torch
from listeners import Heard
from nets import found_in, noise, random_keep
from test_recover import TwoBlocks, cut_of

from edgeprune.errors import OutputError
from edgeprune.journal import Journal
from edgeprune.model import Model
from edgeprune.recover.reconstruct import Cut, reconstruct
from edgeprune.resuming import FinishedLayers, finished_layers

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def cut() -> Cut:
    found = found_in(TwoBlocks)
    return cut_of(found, random_keep(found.channel_map, seed=1))


@pytest.fixture
def batches(cut: Cut) -> list[torch.Tensor]:
    return [noise(cut.uncut, 12, 7), noise(cut.uncut, 8, 8)]


def reconstructed(cut: Cut, batches, place: Path, *, kill_at: int = -1) -> tuple[Model, list[str]]:
    said = Heard()

    def tick(done: int, total: int) -> None:
        if done == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    with finished_layers(place, cut, batches, Journal(said)) as finished:
        model, _ = reconstruct(cut, batches, tick=tick, finished=finished)
    return model, said.lines


def killed(cut: Cut, batches, place: Path, after: int) -> None:
    """The same in a process of its own, which is killed when it has finished so many layers."""
    pid = os.fork()
    if pid == 0:
        torch.set_num_threads(1)
        try:
            reconstructed(cut, batches, place, kill_at=after)
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


def same(one: Model, other: Model) -> bool:
    before, after = one.module.state_dict(), other.module.state_dict()
    return all(torch.equal(after[name], value) for name, value in before.items())


@pytest.mark.parametrize("after", [1, 3])
def test_what_was_killed_goes_on_to_the_same_bytes(tmp_path, cut, batches, after):
    place = tmp_path / "run.recovery"
    killed(cut, batches, place, after)
    assert len(list(place.iterdir())) == after
    begun = []

    class Watched(FinishedLayers):
        def save(self, job, changed, refit):
            begun.append(job)
            super().save(job, changed, refit)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("edgeprune.resuming.FinishedLayers", Watched)
        model, said = reconstructed(cut, batches, place)
    assert said == [f"an interrupted reconstruction is in {place}: it goes on from there"]
    assert begun[0] == after
    assert same(model, reconstruct(cut, batches)[0])
    assert not place.exists()


def test_other_images_begin_anew(tmp_path, cut, batches):
    place = tmp_path / "run.recovery"
    killed(cut, batches, place, 2)
    others = [noise(cut.uncut, 12, 70), noise(cut.uncut, 8, 80)]
    model, said = reconstructed(cut, others, place)
    assert said == []
    assert same(model, reconstruct(cut, others)[0])


def test_a_torn_file_is_done_again(tmp_path, cut, batches):
    place = tmp_path / "run.recovery"
    killed(cut, batches, place, 3)
    torn = place / "0001.safetensors"
    torn.write_bytes(torn.read_bytes()[:50])
    assert same(reconstructed(cut, batches, place)[0], reconstruct(cut, batches)[0])


def ended_by(error, cut: Cut, batches, place: Path) -> None:
    with finished_layers(place, cut, batches, Journal(Heard())) as kept:
        kept.save(0, {"weight": torch.zeros(2)}, None)
        raise error


@pytest.mark.parametrize("error", [KeyboardInterrupt, OutputError("the disk is full")])
def test_an_end_that_was_asked_for_or_explained_leaves_nothing(tmp_path, cut, batches, error):
    place = tmp_path / "run.recovery"
    with pytest.raises((KeyboardInterrupt, OutputError)):
        ended_by(error, cut, batches, place)
    assert not place.exists()


def test_an_error_that_nobody_foresaw_costs_no_finished_layer(tmp_path, cut, batches):
    place = tmp_path / "run.recovery"
    with pytest.raises(ZeroDivisionError):
        ended_by(ZeroDivisionError, cut, batches, place)
    assert [path.name for path in place.iterdir()] == ["0000.safetensors"]
