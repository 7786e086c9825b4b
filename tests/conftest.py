"""What every test may rely on: two threads, no clock, fixed seeds, and a small model with images of its own."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from arm_board import ArmBoard
from hypothesis import HealthCheck, settings
from program_runs import Tiny, tiny_project

import edgeprune.bench.session
from edgeprune.export.child import end_child

DATA = Path(os.environ.get("EDGEPRUNE_DATA", "../shared/data"))

torch.set_num_threads(2)

# A process a block takes more than twice as long, and no test asserts a time; tests/test_worker.py has both.
edgeprune.bench.session.FRESH = False

# How busy the machine is says nothing of the code.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("data") and not DATA.is_dir():
        pytest.skip(f"the real images and weights are not at {DATA} (EDGEPRUNE_DATA names their folder)")


@pytest.fixture(autouse=True)
def _fixed_seeds() -> None:
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Threads cost more than they bring with networks as small as these."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """A user's project: a network in a file, weights, and forty labelled images."""
    return tiny_project(tmp_path_factory.mktemp("project"))


@pytest.fixture(scope="module")
def tflite_extra() -> Iterator[None]:
    """The converter and the quantizer of TFLite files; the child that runs them ends with the module."""
    for module in ("litert_torch", "ai_edge_quantizer"):
        pytest.importorskip(module, reason="needs the [tflite] extra", exc_type=ImportError)
    yield
    end_child()


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ArmBoard]:
    """An arm64 board that listens, with an `ssh` on PATH that knows it."""
    board = ArmBoard(tmp_path_factory.mktemp("arm") / "board")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{board.folder}/bin:{os.environ['PATH']}")
        try:
            board.start()
            yield board
        finally:
            board.stop()
