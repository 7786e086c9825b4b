"""Several processes train one network together, as torchrun starts them: as one process does on all their images."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from program_runs import REPOSITORY, fault, run_here, run_python
from safetensors.torch import load_file, save_file
from torch import nn

from edgeprune.data import ImageSet, InputSpec
from edgeprune.train.distil import Distillation, answers, nearness
from edgeprune.train.group import joined
from edgeprune.train.job import Alone, Job
from edgeprune.train.loop import Trained, fit
from edgeprune.train.recipe import Recipe
from edgeprune.train.settings import Settings

TORCHRUN = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port"]


def network(seed: int) -> nn.Module:
    """Without normalisations: their statistics are those of each process's own images."""
    torch.manual_seed(seed)
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4))
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.ReLU(), head).eval()


def trained(place: Path | None = None) -> Trained:
    chance = np.random.default_rng(0)
    images = ImageSet(chance.integers(0, 256, (48, 12, 12, 3), dtype=np.uint8), None, "chance", 48)
    spec, held_out = InputSpec((3, 12, 12), (0.0,) * 3, (1.0,) * 3), images.take(range(8))
    settings = Settings(epochs=4, batch=16, rate=0.05, padding=1, flip=True, looks=4, mixed=False, device="cpu")
    teacher = network(1)
    judge = nearness(answers(teacher, held_out, spec, False), held_out, spec, False)
    # The blocks' errors are ratios of means, which are not the means of each process's ratios.
    objective = Distillation(teacher, ("0",), Recipe(features=0.0))
    return fit(Job(network(0), spec, images, settings, objective, "this one", Alone(), judge, "distance"), place)


def main(out: Path) -> None:
    torch.set_num_threads(1)
    with joined("cpu"):
        found = trained(out)
    rank = os.environ["RANK"]
    save_file(found.module.state_dict(), out / f"{rank}.safetensors")
    (out / f"{rank}.json").write_text(json.dumps([{**row, "elapsed_s": 0} for row in found.rows]))


def test_two_processes_train_as_one_does(tmp_path):
    alone = trained()
    ran = run_python([*TORCHRUN, "29511", __file__, str(tmp_path)], {"PYTHONPATH": f"{REPOSITORY}:{REPOSITORY}/tests"})
    assert ran.code == 0, ran.err
    one, other = (load_file(tmp_path / f"{rank}.safetensors") for rank in (0, 1))
    for name, wanted in alone.module.state_dict().items():
        assert torch.equal(one[name], other[name])
        assert torch.allclose(one[name], wanted, atol=1e-5)
    told = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)]
    assert told[0] == told[1]
    assert [row["distance"] for row in told[0]] == pytest.approx([row["distance"] for row in alone.rows], abs=1e-5)
    assert alone.kept


def test_compress_is_for_one_process(tmp_path, tiny, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WORLD_SIZE", "2")
    fault(run_here(*tiny.compress("--recover", "distill")), 2, "torchrun started several", "finetune RUN")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
