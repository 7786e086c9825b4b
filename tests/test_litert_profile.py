"""LiteRT's profiler: its summary, its events, and what is believed of them."""

from __future__ import annotations

import ctypes
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from export_nets import SHAPE, model_of
from torch import nn

from edgeprune.bench.profiling import attributed
from edgeprune.bench.work import layers_of
from edgeprune.export.litert import litert_file
from edgeprune.worker import litert_profile
from edgeprune.worker.litert_profile import Row, believed, read_events, read_summary
from edgeprune.worker.loaded import UnfitError

GOLDEN = Path(__file__).parent / "golden"


def test_the_summary_says_what_ran_in_which_order():
    rows = read_summary((GOLDEN / "litert" / "summary.txt").read_text())
    assert len(rows) == 15
    assert rows[0][:2] == ("Convolution (NHWC, F32) IGEMM", "[Delegate]:0")
    assert rows[3][:2] == ("Add (ND)", "[Delegate]:3")
    assert (rows[1].ms, rows[1].times) == (pytest.approx(20 * 0.048), 20), "what is summed up of all calls"
    assert read_summary("") == []


TAGS = {kind: ctypes.create_string_buffer(kind.encode()) for kind in ("Invoke", "Conv", "Add")}


def events(*told: tuple[str, int, int], words: int) -> ctypes.Array:
    """As LiteRT writes them, (tag, type, microseconds) each, of so many words; no word of the rest is touched."""
    written = b"".join(
        struct.pack("<QQQQ", ctypes.addressof(TAGS[tag]), kind, 0, took) + bytes(8 * (words - 4))
        for tag, kind, took in told
    )
    return ctypes.create_string_buffer(written + litert_profile._UNTOUCHED * 100, len(written) + 800)


@pytest.mark.parametrize("words", [11, 13, 17])
def test_events_are_read_however_long_one_is(words):
    buffer = events(("Invoke", 1, 90), ("Conv", 8, 50), ("Add", 8, 0), ("Conv", 2, 30), ("Invoke", 32, 1), words=words)
    assert read_events(buffer, 5) == [Row("Conv", "0", 0.05), Row("Add", "1", 0.0), Row("Conv", "2", 0.03)]


def test_events_are_not_guessed_at():
    assert read_events(events(("Conv", 8, 50), ("Conv", 8, 50), words=3 + 4), 3) == [], "14 words are not three events"
    assert read_events(events(("Conv", 8, 50), ("Conv", 3, 50), words=13), 2) == [], "there is no type 3"
    assert read_events(events(words=13), 0) == []
    assert read_events(events(words=13), 2) == [], "nothing was written"


def test_events_are_believed_where_they_add_up_to_the_summary():
    """Two calls of two parts, whose first convolutions the summary makes one."""
    calls = [[Row("Conv", "0", first), Row("Add", "1", 0.001), Row("Conv", "2", 0.02)] for first in (0.05, 0.09)]
    summary = [Row("Conv", "[Delegate]:0", 4 * 0.045, 4), Row("Add", "[Delegate]:1", 0.002, 2)]
    assert believed(summary, calls) == calls
    for wrong in (summary[:1], [summary[0]._replace(ms=0.3), summary[1]], [summary[0], summary[1]._replace(times=3)]):
        assert believed(wrong, calls) == [[one._replace(ms=one.ms / 2) for one in wrong]]


def test_a_litert_without_the_library_says_which_version_has_it(monkeypatch):
    pytest.importorskip("ai_edge_litert")
    monkeypatch.setattr(litert_profile, "LIBRARY", "no-such-library.so")
    with pytest.raises(UnfitError, match=r"LiteRT \S+ offers no profiler") as caught:
        litert_profile.profile_litert("a.tflite", 1, np.zeros(1), 1)
    assert "2.3 or newer" in caught.value.fix


class Shortcuts(nn.Module):
    """Blocks of which XNNPACK takes what is before and behind the shortcut's slice, but not the slice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(SHAPE[0], 8, 3, padding=1)
        self.first = nn.ModuleList(nn.Conv2d(8, 16, 3, stride=2, padding=1) for _ in range(2))
        self.second = nn.ModuleList(nn.Conv2d(16, 8, 3, padding=1) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for first, second in zip(self.first, self.second, strict=True):
            x = torch.relu(second(torch.relu(first(x))) + x[:, :, ::2, ::2])
        return x.mean((2, 3))


@pytest.mark.slow
def test_layers_of_several_parts_are_told_apart(tmp_path):
    pytest.importorskip("litert_torch")
    path = tmp_path / "shortcuts.tflite"
    path.write_bytes(litert_file(model_of(Shortcuts)))
    image = np.zeros((1, *SHAPE[1:], SHAPE[0]), np.float32)
    told = litert_profile.profile_litert(str(path), 1, image, 10)["operators"]
    assert sum("SLICE" in one["kind"] for one in told) == 2, "else this network shows nothing"
    layers = layers_of(path)
    assert len(layers) == 5
    assert [one.layer for one in attributed(told, layers) if one.layer] == [layer.name for layer in layers]
