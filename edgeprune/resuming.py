"""resuming: the finished layers of a reconstruction on disk, so that a crash or a power cut costs only the last one."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from edgeprune.errors import EdgepruneError, TrainingError
from edgeprune.files import sha256_of_arrays, sha256_of_json
from edgeprune.journal import Journal
from edgeprune.recover.finished import Refit
from edgeprune.recover.reconstruct import Cut
from edgeprune.resize import all_tensors
from edgeprune.train.checkpoint import load_checkpoint, save_checkpoint

_METHOD = 2
"""Of the reconstruction: another number where it would calculate other weights from the same."""


class FinishedLayers:
    """One file for each finished layer, written whole or not at all.

    Args:
        place: the folder.
        fingerprint: of all that decides the weights; files of another one are not read.
    """

    def __init__(self, place: Path, fingerprint: str) -> None:
        self._place, self._fingerprint = place, fingerprint

    def load(self, job: int) -> tuple[Mapping[str, Tensor], Refit | None] | None:
        """What a job changed; None if it is not finished."""
        path = self._path(job)
        if not path.is_file():
            return None
        try:
            tensors, document = load_checkpoint(path)
        except TrainingError:  # torn, or of another version: then it is done again
            return None
        if document.get("fingerprint") != self._fingerprint:
            return None
        return tensors, Refit(**document["refit"]) if document["refit"] else None

    def save(self, job: int, changed: Mapping[str, Tensor], refit: Refit | None) -> None:
        """Keep it.

        Raises:
            OutputError: the disk is full, or the folder cannot be written.
        """
        document = {"fingerprint": self._fingerprint, "refit": asdict(refit) if refit else None}
        save_checkpoint(self._path(job), changed, document)

    def _path(self, job: int) -> Path:
        return self._place / f"{job:04d}.safetensors"


@contextmanager
def finished_layers(place: Path, cut: Cut, batches: Sequence[Tensor], journal: Journal) -> Iterator[FinishedLayers]:
    """What an interrupted reconstruction has left in `place`, if it was the same one; the folder is removed at the end.

    It stays only where the process is ended without being asked, or by an error that nobody foresaw.

    Args:
        place: the folder.
        cut: what is reconstructed.
        batches: with these images.
        journal: told where there is something to go on from.
    """
    layers = FinishedLayers(place, fingerprint_of(cut, batches))
    if layers.load(0) is not None:
        journal.say(f"an interrupted reconstruction is in {place}: it goes on from there")
    try:
        yield layers
    except (EdgepruneError, KeyboardInterrupt):
        shutil.rmtree(place, ignore_errors=True)
        raise
    shutil.rmtree(place, ignore_errors=True)


def fingerprint_of(cut: Cut, batches: Sequence[Tensor]) -> str:
    """Of all that decides what comes of a reconstruction, bit for bit on the same machine."""
    tensors = [*all_tensors(cut.uncut.module).values(), *all_tensors(cut.pruned.module).values(), *batches]
    return sha256_of_json(
        {
            "method": _METHOD,
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
            "plan": cut.plan.fingerprint,
            "batches": [len(one) for one in batches],
            "tensors": sha256_of_arrays(one.numpy(force=True) for one in tensors),
        }
    )
