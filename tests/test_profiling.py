"""`edgeprune profile`: a network cut in many ways, timed batch by batch into a table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import onnx
import pytest
import simulated_board as board
from hypothesis import given, settings
from hypothesis import strategies as st
from nets import plan_of, traced, zoo

from edgeprune import cutting, profiling, trying
from edgeprune.artifact import Artifact
from edgeprune.bench.faults import ConnectionLostError
from edgeprune.bench.trust import Doubt, Reason
from edgeprune.channels import Kept
from edgeprune.compressing_command import _measure_table
from edgeprune.errors import DeviceError, EdgepruneError, TrustError, UsageError
from edgeprune.export import EXPORTERS
from edgeprune.journal import Journal, Nobody
from edgeprune.latency import SCHEMA, LatencyTable
from edgeprune.plan import Budget
from edgeprune.profiling import ProfileOrder, profile
from edgeprune.prune.shapes import Shapes
from edgeprune.request import Request
from edgeprune.target import load_target
from edgeprune.terminal import Talk
from edgeprune.variants import MOST_WIDTHS, VariantFiles, choices_of, spread, variant, variants_of


@settings(max_examples=50, deadline=None)
@given(lengths=st.lists(st.integers(1, MOST_WIDTHS), min_size=1, max_size=6))
def test_every_width_of_every_space_is_seen_in_as_many_variants_as_the_longest_list_has(lengths: list[int]) -> None:
    choices = {f"s{place}": list(range(8 * length, 0, -8)) for place, length in enumerate(lengths)}
    every = [variant(choices, number) for number in range(1, max(lengths) + 1)]
    for name, widths in choices.items():
        assert {one[name] for one in every} == set(widths)


def test_variant_0_is_the_uncut_network_and_a_number_always_gives_the_same_widths() -> None:
    choices = {"a": [24, 16, 8], "b": [32, 8]}
    assert variant(choices, 0) == {}
    assert [variant(choices, number) for number in range(9)] == [variant(choices, number) for number in range(9)]


def test_a_table_is_of_the_uncut_network_and_as_many_variants_as_say_how_well_it_foretells() -> None:
    assert variants_of({"a": [24, 16, 8]}) == [variant({"a": [24, 16, 8]}, number) for number in range(16)]
    assert len(variants_of({"a": list(range(8, 160, 8))})) == 1 + 19
    assert variants_of({}) == [{}] * 16


def test_of_a_wide_space_widths_from_the_narrowest_to_the_widest_are_looked_at() -> None:
    choices = choices_of(traced(zoo("mobilenet_v2_tf")), "inner", 8)  # type: ignore[arg-type]  # has what is read
    widest = choices["features.17.conv.0.0"]
    assert len(widest) == MOST_WIDTHS
    assert widest[0] == 952
    assert widest == sorted(widest, reverse=True)
    assert 96 <= widest[-1] <= 104
    assert all(width % 8 == 0 for width in widest)


def test_a_variants_file_is_that_of_a_run_which_cuts_as_much(tmp_path: Path) -> None:
    target, journal = load_target("rpi4"), Journal(Nobody())
    uncut = cutting.traced(zoo("digits"), journal)
    widths = variant(choices_of(uncut, "inner", target.channel_multiple), 1)
    keep = spread(widths, {space.name: space.size for space in uncut.channel_map.spaces})
    _, smaller = cutting.cut(plan_of(uncut.channel_map, keep), uncut, journal)
    (tmp_path / "variants").mkdir()
    found = VariantFiles(tmp_path / "variants", uncut, target, "onnx", journal).of([keep])[1]
    wanted = EXPORTERS.load("onnx")(smaller.model, smaller.cost, target, "fp32", tmp_path / "run.onnx", None)
    assert (found.macs, found.parameters) == (wanted.macs, wanted.parameters)
    files = (tmp_path / "variants" / found.path, tmp_path / "run.onnx")
    graphs = [onnx.load(file).graph.SerializeToString(deterministic=True) for file in files]
    assert graphs[0] == graphs[1]


class SimulatedBoard:
    """Stands in for the two passes over a board; which variant a file is, its MACs tell."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        found = traced(zoo("digits"))
        self.shapes = Shapes(found.program, found.channel_map)
        self.name, self.batches, self.version = "a board", 0, "1"
        self.emulated = False
        self.ends: dict[int, BaseException] = {}
        """Runs, from 1, which something ends."""
        self.busy: set[int] = set()
        """Runs, from 1, in which other programs are in the way."""
        self.refused: tuple[SimpleNamespace, ...] = ()
        monkeypatch.setattr(profiling, "measure", self.measure)
        monkeypatch.setattr(profiling, "profile_files", self.profile)
        monkeypatch.setattr(profiling, "doubts", self.doubts)
        monkeypatch.setattr(trying, "compare", lambda _: ())  # what it times is exact
        monkeypatch.setattr(profiling, "open_device", lambda _: _Nothing())
        monkeypatch.setattr(profiling, "VariantFiles", self.files)
        monkeypatch.setattr(trying, "facts_of", lambda _: {"model": self.name, "emulated": self.emulated})

    def files(self, folder: Path, *_: object) -> SimpleNamespace:
        return SimpleNamespace(folder=folder, of=lambda keeps: [_file(one) for one in ({}, *keeps)])

    def measure(
        self, files: Sequence[Artifact], _: object, __: object, threads: tuple[int], **___: object
    ) -> list[SimpleNamespace]:
        self.batches += 1
        if self.batches in self.ends:
            raise self.ends[self.batches]
        times = [board.call_ms(self.shapes, one.details["widths"]) for one in files]
        conditions = {
            "runtime": "onnxruntime",
            "runtime_version": self.version,
            "threads": threads[0],
            "format": "onnx",
        }
        device = {"model": self.name}
        return [
            SimpleNamespace(path=one.path, blocks=[SimpleNamespace(median_ns=1e6 * ms)], device=device, **conditions)
            for one, ms in zip(files, times, strict=True)
        ]

    def profile(self, files: Sequence[Artifact], *_: object, **__: object) -> tuple[list[SimpleNamespace], object]:
        found = []
        for one in files:
            layers = [(layer.macs, board.layer_ms(layer)) for layer in self.shapes.at(one.details["widths"])]
            operators = [SimpleNamespace(macs=macs, ms=ms) for macs, ms in [*layers, (0, board.REST_MS)]]
            found.append(SimpleNamespace(operators=operators))
        return found, self.refused

    def doubts(self, _: object) -> tuple[Doubt, ...]:
        if self.emulated:
            return (Doubt(Reason.EMULATED, "QEMU", True),)
        return (Doubt(Reason.BUSY, "other programs", True),) if self.batches in self.busy else ()


class _Nothing:
    def __enter__(self) -> _Nothing:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def _file(keep: Kept) -> Artifact:
    widths = {name: len(kept) for name, kept in keep.items()}
    return Artifact("f.onnx", "", 0, "pruned", "onnx", "fp32", (1, 8, 8), "NCHW", 0, 0, details={"widths": widths})


@pytest.fixture
def simulated(monkeypatch: pytest.MonkeyPatch) -> SimulatedBoard:
    return SimulatedBoard(monkeypatch)


def order(path: Path) -> ProfileOrder:
    return ProfileOrder(Request(model="digits"), path)


def test_a_table_is_measured_and_foretells_what_it_did_not_see(simulated: SimulatedBoard, tmp_path: Path) -> None:
    found = profile(order(tmp_path / "table.json"))
    document = found.to_json()
    assert LatencyTable.load(tmp_path / "table.json") == found.table
    assert document["variants"] == 16
    assert document["conditions"]["board"] == "a board"
    assert document["uncut_ms"] == pytest.approx(board.call_ms(simulated.shapes, {}))
    assert document["foretold"]["by_table"]["median_error"] < document["foretold"]["by_macs"]["median_error"]
    assert found.reachable > 1.5


def test_what_is_measured_already_is_not_measured_again(simulated: SimulatedBoard, tmp_path: Path) -> None:
    first = profile(order(tmp_path / "table.json"))
    before = simulated.batches
    assert profile(order(tmp_path / "table.json")).table == first.table
    assert simulated.batches == before


def test_a_batch_that_is_not_trustworthy_is_timed_once_more(simulated: SimulatedBoard, tmp_path: Path) -> None:
    simulated.busy = {1}
    assert len(next(iter(profile(order(tmp_path / "t.json")).table.networks.values())).variants) == 16


def test_a_busy_board_ends_it_and_the_batches_before_are_kept_and_gone_on_with(
    simulated: SimulatedBoard, tmp_path: Path
) -> None:
    path = tmp_path / "table.json"
    simulated.busy = {3, 4}
    with pytest.raises(TrustError, match="BUSY: other programs") as caught:
        profile(order(path))
    assert "the same command goes on" in caught.value.fix
    assert len(next(iter(LatencyTable.load(path).networks.values())).variants) == 10
    assert len(next(iter(profile(order(path)).table.networks.values())).variants) == 16


@pytest.fixture
def begun(simulated: SimulatedBoard, tmp_path: Path) -> Path:
    """A table that is not whole yet."""
    path = tmp_path / "table.json"
    table = profile(order(path)).table
    fewer = {key: replace(one, variants=one.variants[:8]) for key, one in table.networks.items()}
    replace(table, networks=fewer).save(path)
    return path


def test_times_of_another_board_or_threads_are_refused_before_anything_is_timed(
    simulated: SimulatedBoard, begun: Path
) -> None:
    before, batches = begun.read_text(), simulated.batches
    with pytest.raises(UsageError, match="the table is of --threads 1, not 4"):
        profile(replace(order(begun), threads=4))
    with pytest.raises(UsageError, match="the table is of --runtime onnxruntime, not litert"):
        profile(replace(order(begun), runtime="litert"))
    simulated.name = "another board"
    with pytest.raises(UsageError, match="board: a board and another board"):
        profile(order(begun))
    assert begun.read_text() == before
    assert simulated.batches == batches


def test_compress_makes_its_table_with_as_many_threads_as_are_asked_for(
    simulated: SimulatedBoard, tmp_path: Path
) -> None:
    path = tmp_path / "table.json"
    asked = Request(model="digits", budget=Budget(speedup=1.5), device="local", table=path, threads=4)
    _measure_table(asked, Talk())
    assert LatencyTable.load(path).conditions.threads == 4
    before, batches = path.read_text(), simulated.batches
    _measure_table(replace(asked, threads=None), Talk())  # those of the table
    with pytest.raises(UsageError, match="the table is of --threads 4, not 1") as caught:
        _measure_table(replace(asked, threads=1), Talk())
    assert caught.value.fix == "Name another file with --table."
    assert (path.read_text(), simulated.batches) == (before, batches)
    _measure_table(replace(asked, threads=None, table=tmp_path / "other.json"), Talk())
    assert LatencyTable.load(tmp_path / "other.json").conditions.threads == 1


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (Request(threads=4, budget=Budget(speedup=1.5)), "--threads is about the table"),
        (Request(threads=4, device="local"), "--threads is about the table"),
        (Request(threads=0, device="local", budget=Budget(speedup=1.5)), "--threads must be at least 1, got 0"),
    ],
)
def test_threads_that_no_table_is_made_with_are_refused(asked: Request, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        asked.check()


def test_times_of_another_version_of_the_runtime_are_refused_and_mixed_only_if_asked(
    simulated: SimulatedBoard, begun: Path
) -> None:
    before, simulated.version = begun.read_text(), "2"
    with pytest.raises(UsageError, match="runtime_version: 1 and 2") as caught:
        profile(order(begun))
    assert "--allow-mixed" in caught.value.fix
    assert begun.read_text() == before
    mixed = profile(ProfileOrder(Request(model="digits", allow_mixed=True), begun)).table
    assert mixed.mixed == ("runtime_version: 1 and 2",)
    assert LatencyTable.load(begun) == mixed


def test_an_emulated_board_makes_no_table(simulated: SimulatedBoard, tmp_path: Path) -> None:
    simulated.emulated = True
    with pytest.raises(TrustError, match="EMULATED: 5 files work there, and their times say nothing: no table"):
        profile(order(tmp_path / "table.json"))
    assert simulated.batches == 1
    assert not (tmp_path / "table.json").exists()


@pytest.mark.parametrize(
    ("end", "kind"), [(KeyboardInterrupt(), KeyboardInterrupt), (ConnectionLostError("ssh://pi@b"), DeviceError)]
)
def test_ctrl_c_and_a_lost_board_cost_the_batch_they_fall_into(
    simulated: SimulatedBoard, tmp_path: Path, end: BaseException, kind: type[BaseException]
) -> None:
    path = tmp_path / "table.json"
    simulated.ends = {2: end}
    with pytest.raises(kind) as caught:
        profile(order(path))
    if isinstance(caught.value, DeviceError):
        assert "the same command goes on" in caught.value.fix
    assert len(next(iter(LatencyTable.load(path).networks.values())).variants) == 5
    assert len(next(iter(profile(order(path)).table.networks.values())).variants) == 16


def test_a_runtime_that_cannot_be_profiled_is_named(simulated: SimulatedBoard, tmp_path: Path) -> None:
    simulated.refused = (SimpleNamespace(runtime="litert-gpu", reason="it does not say", fix="Another runtime."),)
    with pytest.raises(EdgepruneError, match="litert-gpu cannot be profiled: it does not say"):
        profile(order(tmp_path / "table.json"))
    assert not (tmp_path / "table.json").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"runtime": "onnxrutime"}, "onnxrutime"),
        ({"threads": 0}, "--threads must be at least 1"),
        ({"minutes": -1.0}, "--minutes must be above 0"),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_is_loaded(
    tmp_path: Path, change: dict[str, object], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        profile(replace(order(tmp_path / "table.json"), **change))  # type: ignore[arg-type]


def test_a_table_of_garbage_is_refused_and_left(simulated: SimulatedBoard, tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    path.write_text(json.dumps({"schema": SCHEMA}))
    with pytest.raises(EdgepruneError, match="not a latency table"):
        profile(order(path))
    assert json.loads(path.read_text()) == {"schema": SCHEMA}
    assert simulated.batches == 0
