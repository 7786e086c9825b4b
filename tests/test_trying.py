"""A budget of time on a board over SSH: table, trials, and the run's own times are all of that board."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import simulated_board
from nets import Plain, found_in
from program_runs import Tiny, run_here
from ssh_server import SSHD, SshServer

from edgeprune import bracketing, profiling, trying
from edgeprune.artifact import Artifact
from edgeprune.bench.compare import compare
from edgeprune.bench.trust import Doubt, Reason
from edgeprune.errors import UsageError
from edgeprune.journal import Journal, Nobody
from edgeprune.latency import Conditions, LatencyTable
from edgeprune.measurement import Block, Measurement, load_measurements
from edgeprune.prune.shapes import Shapes
from edgeprune.trying import Board, accept, facts_of, look_at, timed_variants


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    server = SshServer(tmp_path_factory.mktemp("ssh") / "board")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{server.folder}/bin:{os.environ['PATH']}")
        server.start()
        yield server
        server.stop()


def test_conditions_that_differ_are_refused_or_told_once() -> None:
    journal = Journal(Nobody())
    with pytest.raises(UsageError, match="threads: 1 and 4"):
        accept("threads: 1 and 4", False, "the table", journal)
    accept("threads: 1 and 4", True, "the table", journal)
    accept("threads: 1 and 4", True, "the table", journal)
    accept("", False, "the table", journal)
    (told,) = journal.warnings
    assert told.startswith("MIXED: the table is of other conditions")


@pytest.mark.parametrize(
    ("doubts", "times", "told"),
    [
        ((Doubt(Reason.EMULATED, "QEMU", True),), 1, "EMULATED: the plan's file works there, and no time taken there"),
        ((Doubt(Reason.BUSY, "9 of 16 blocks", True),), 2, "the machine was too busy to confirm it (BUSY: 9 of 16 blo"),
        ((Doubt(Reason.NOISY, "blocks spread", False),), 2, "too few clean rounds were left to confirm it"),
        ((), 2, "too few clean rounds were left to confirm it"),
    ],
)
def test_what_nothing_can_be_said_of_is_timed_once_more_unless_emulated(
    doubts: tuple[Doubt, ...], times: int, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed = []
    monkeypatch.setattr(trying, "measure", lambda *_, rounds, **__: (timed.append(rounds), ("a measurement",))[1])
    monkeypatch.setattr(trying, "open_device", lambda _: nullcontext())
    monkeypatch.setattr(trying, "doubts", lambda _: doubts)
    monkeypatch.setattr(trying, "compare", lambda _: ())
    network = found_in(Plain)
    shapes = Shapes(network.program, network.channel_map)
    known = {shapes.fingerprint: simulated_board.network(shapes, [{}])}
    journal = Journal(Nobody())
    table = LatencyTable(Conditions("a board", "onnxruntime", "1.31.1", 1, "onnx"), known)
    artifacts = [SimpleNamespace(input_shape=(1, 3, 8, 8))]
    files = SimpleNamespace(of=lambda _: artifacts, folder=Path())
    board = Board("local", table, shapes, files, False, journal)

    assert board.timed(artifacts, Path()) == {}
    assert len(timed) == times
    (warning,) = journal.warnings
    assert warning.startswith(f"not measured on local: {told}")

    assert board.tried(SimpleNamespace(keep={})) is None
    assert len(timed) == 2 * times
    assert journal.warnings[1].startswith(f"the speed-up is foretold by the table, not measured; {told}")

    assert board.tried(SimpleNamespace(keep={}), longer=True) is None
    assert timed[2 * times :] == [3 * timed[times]] * times


def timed(role: str, path: str, ms: Sequence[float]) -> Measurement:
    """Blocks of one sample each, a round a block."""
    blocks = tuple(Block(number, 0, (round(1e6 * one),)) for number, one in enumerate(ms))
    conditions = ("onnx", "fp32", "onnxruntime", "1", 1)
    return Measurement("ab" * 32, path, role, *conditions, blocks, 1, 1, 1, {}, session="s")


def test_a_variant_of_a_table_takes_what_its_speed_up_round_by_round_says() -> None:
    """A board that is half as fast in most of a file's rounds, but not in the same as the other's."""
    shapes = Shapes((found := found_in(Plain)).program, found.channel_map)
    keep = {found.channel_map.spaces[0].name: (0, 1, 2, 3)}
    slow = [1, 1, 1, 1, 1, 2, 2, 2, 2]
    uncut = timed("baseline", "uncut.onnx", [10.0 * by for by in slow])
    cut = timed("pruned", "cut.onnx", [5.0 * by for by in slow[:5]] + [10.0, 10.0, 10.0, 5.0])
    profiles = [SimpleNamespace(operators=()) for _ in range(2)]
    whole, half = timed_variants([{}, keep], [uncut, cut], profiles, shapes)
    assert (whole.ms, whole.uncut_ms, half.uncut_ms) == (10.0, 10.0, 10.0)
    assert half.ms == pytest.approx(10.0 / compare([uncut, cut])[0].ratio)

    few = timed("pruned", "cut.onnx", [5.0, 5.0])
    _, half = timed_variants([{}, keep], [uncut, few], profiles, shapes)
    assert half.ms == 5.0


over_ssh = pytest.mark.skipif(
    not Path(SSHD).exists() or not shutil.which("ssh"), reason="openssh-server is not installed"
)
QUICK = ("--formats", "onnx", "--recover", "none", "--images", "16", "--calibration-images", "16", "--scope", "all")


@pytest.fixture
def trusting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other programs on this machine are not minded: no test says how fast anything is."""
    for module in (profiling, trying):
        monkeypatch.setattr(module, "doubts", lambda _: ())


@over_ssh
@pytest.mark.slow
def test_a_speed_up_on_a_board_over_ssh_is_profiled_tried_and_timed_there(
    server: SshServer, tiny: Tiny, tmp_path: Path, trusting: None
) -> None:
    """That every step is really run there, and what is written; how fast it comes out is the machine's affair."""
    table, out = tmp_path / "board.json", tmp_path / "run"
    asked = ("--device", server.device, "--speedup", "1.05", "--table", str(table), "--out", str(out))
    ran = run_here(*tiny.compress(*QUICK, *asked))
    assert ran.code in (0, 1), ran.err
    (network,) = LatencyTable.load(table).networks.values()
    assert len(network.variants) >= 15
    assert f"bench {server.device}" in ran.err
    report = json.loads((out / "report.json").read_text())
    assert report["budget"]["asked"] == {"speedup": 1.05}
    assert [note for note in report["notes"] if note.startswith("Round 1: solved for 1.05x, measured ")]
    assert {one.device["at_start"] is not None for one in load_measurements(out / "measurements.jsonl")} == {True}
    assert server.logins > 3
    assert list(server.cache.glob("run-*")) == []


@over_ssh
@pytest.mark.slow
def test_a_walk_on_a_board_over_ssh_that_is_lost_goes_on_where_it_was(
    tiny: Tiny, tmp_path: Path, trusting: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = SshServer(tmp_path / "board")  # of its own: what was under way when it was lost stays on it
    monkeypatch.setenv("PATH", f"{server.folder}/bin:{os.environ['PATH']}")
    server.start()
    table, out = tmp_path / "board.json", tmp_path / "run"
    asked = ("--device", server.device, "--max-drop", "90", "--precisions", "fp16", "--table", str(table))
    command = tiny.compress(*QUICK, *asked, "--out", str(out))
    monkeypatch.setattr(bracketing, "ROUNDS", 2)
    measure, batches = trying.measure, []

    def counted(artifacts: Sequence[Artifact], *given: Any, **more: Any) -> tuple[Measurement, ...]:
        batches.append([one.path for one in artifacts])
        if len(batches) == 2:
            server.stop()
        return measure(artifacts, *given, **more)

    monkeypatch.setattr(trying, "measure", counted)
    try:
        ran = run_here(*command)
    finally:
        server.start()
    assert ran.code == 3, ran.err
    assert "the same command goes on" in ran.err
    assert not out.exists()

    try:
        ran = run_here(*command)
    finally:
        server.stop()
    assert ran.code in (0, 1), ran.err
    assert "were tried before; going on from" in ran.err
    assert not [paths for paths in batches[2:] if paths == batches[0]]
    report = json.loads((out / "report.json").read_text())
    timed = [one for one in report["front"]["candidates"] if one["measured"]]
    assert {one["precision"] for one in timed} == {"fp32", "fp16"}
    assert {one.device["at_start"] is not None for one in load_measurements(out / "measurements.jsonl")} == {True}


@over_ssh
def test_a_table_of_another_board_is_refused_before_anything_is_scored(
    server: SshServer, tiny: Tiny, tmp_path: Path
) -> None:
    table = tmp_path / "board.json"
    LatencyTable(Conditions("a board that is not here", "onnxruntime", "1.31.1", 1, "onnx")).save(table)
    asked = ("--device", server.device, "--speedup", "1.5", "--table", str(table), "--out", str(tmp_path / "run"))
    ran = run_here(*tiny.compress(*QUICK, *asked))
    assert ran.code == 2
    assert "board: a board that is not here and " in ran.err
    assert "--allow-mixed" in ran.err
    assert not (tmp_path / "run").exists()


@over_ssh
def test_a_device_says_what_it_is(server: SshServer) -> None:
    facts = facts_of(server.device)
    assert facts["kernel"] == facts_of("local")["kernel"]
    look_at(server.device, None, False, Journal(Nobody()))
