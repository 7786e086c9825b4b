"""A walk of the front that is interrupted goes on: to the same choice, nothing tried twice, nothing of another walk."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from listeners import Heard
from nets import Traced, found_in
from test_bracketing import BOTH, Pretended
from test_recover import TwoBlocks
from torch.nn import functional

from edgeprune.bench.faults import ConnectionLostError
from edgeprune.bracketing import ROUNDS, search
from edgeprune.data import ImageSet
from edgeprune.errors import BudgetError, DeviceError, EdgepruneError, OutputError
from edgeprune.inputs import Photos
from edgeprune.journal import Journal, Nobody
from edgeprune.latency import Conditions, LatencyTable, LayerTime, Network, Variant
from edgeprune.plan import Budget, PruningPlan
from edgeprune.prune.prior import Prior
from edgeprune.remembering import Remembered, TriedBefore, depends_on, kept_until_done
from edgeprune.report.front import Candidate
from edgeprune.request import Request
from edgeprune.target import load_target

ASKED = {"--max-drop": 1.0, "the weights": "1f", "the images": "2e", "--seed": 0}
LIMITS, FACTORS = {"fp32": 2.6, "int8": 2.2}, {"fp32": 1.0, "int8": 1.5}


class CutShort(Pretended):
    """A network whose walk ends within a round, from 0; then nothing of that round is known."""

    ends_in = ROUNDS + 1
    ending: BaseException = KeyboardInterrupt()

    def judged(
        self, number: int, speedup: float, plan: PruningPlan | None, precisions: Sequence[str], in_float: float = 1.0
    ) -> tuple[Candidate, ...]:
        if number == self.ends_in:
            raise self.ending
        return super().judged(number, speedup, plan, precisions, in_float)


def walk(network: Pretended, place: Path, asked: Mapping[str, Any] = ASKED) -> tuple[tuple[Candidate, ...], list[str]]:
    """The candidates of a walk that may go on, and what was said before it began."""
    said, before = Heard(), TriedBefore(place, asked)
    before.tell(Journal(said))
    return search(Remembered(network, before, timed=bool(network.factors)), BOTH, Journal(Nobody())), said.lines


def cut_short(place: Path, rounds: int, asked: Mapping[str, Any] = ASKED) -> CutShort:
    """A walk that was interrupted after so many rounds."""
    network = CutShort(LIMITS, FACTORS)
    network.ends_in = rounds
    with pytest.raises(KeyboardInterrupt):
        walk(network, place, asked)
    return network


@given(
    limits=st.tuples(st.floats(1.0, 6.0), st.floats(0.5, 6.0)),
    factors=st.sampled_from([{"fp32": 1.0, "int8": 2.0}, {"fp32": 1.0, "int8": 0.7}, {}]),
    steps=st.sampled_from([1.0, 1.4]),
    rounds=st.integers(0, ROUNDS),
)
def test_wherever_it_is_interrupted_it_comes_to_the_same_and_tries_nothing_twice(
    limits: tuple[float, float], factors: dict[str, float], steps: float, rounds: int
) -> None:
    given = (dict(zip(BOTH, limits, strict=True)), factors, 6.0, steps)
    whole = Pretended(*given)
    wanted = search(whole, BOTH, Journal(Nobody()))
    with TemporaryDirectory() as folder:
        place, first = Path(folder, "run.front.jsonl"), CutShort(*given)
        first.ends_in = rounds
        try:
            walk(first, place)
            assert len(whole.asked) <= rounds  # it was over before that
        except KeyboardInterrupt:
            assert len(first.asked) == rounds
        rest = Pretended(*given)
        found, said = walk(rest, place)
    assert found == wanted
    assert first.asked + rest.asked == whole.asked
    assert bool(said) == bool(rounds)


def test_what_was_tried_is_counted_when_it_goes_on(tmp_path: Path) -> None:
    place = tmp_path / "runs" / "run.front.jsonl"
    cut_short(place, 0)
    assert not place.parent.exists()
    cut_short(place, 1)
    _, said = walk(Pretended(LIMITS, FACTORS), place)
    assert said == [f"2 candidates were tried before; going on from {place}"]


@pytest.mark.parametrize("name", ASKED)
def test_a_walk_that_depends_on_something_else_takes_nothing_over_and_says_of_what(tmp_path: Path, name: str) -> None:
    place = tmp_path / "run.front.jsonl"
    whole, first = Pretended(LIMITS, FACTORS), cut_short(place, 3)
    search(whole, BOTH, Journal(Nobody()))
    other = Pretended(LIMITS, FACTORS)
    _, said = walk(other, place, {**ASKED, name: "another"})
    assert other.asked == whole.asked
    assert said == [f"what {place} tells of was tried under other conditions ({name}): all is tried anew"]
    # What the first walk found is still there: an option that was mistyped costs nothing.
    again = Pretended(LIMITS, FACTORS)
    walk(again, place)
    assert first.asked + again.asked == whole.asked


def test_of_many_conditions_that_changed_the_first_are_named(tmp_path: Path) -> None:
    place, asked = tmp_path / "run.front.jsonl", {str(name): 0 for name in range(6)}
    cut_short(place, 1, asked)
    _, said = walk(Pretended(LIMITS, FACTORS), place, dict.fromkeys(asked, 1))
    assert "(0, 1, 2, 3 and others)" in said[0]


@pytest.mark.parametrize("torn", [1, 40])
def test_a_torn_last_line_is_tried_again_and_costs_no_other(tmp_path: Path, torn: int) -> None:
    place = tmp_path / "run.front.jsonl"
    cut_short(place, 3)
    content = place.read_bytes()
    last = json.loads(content.splitlines()[-1])["candidate"]
    place.write_bytes(content[:-torn])
    for once in (True, False):
        network = Pretended(LIMITS, FACTORS)
        found, _ = walk(network, place)
        assert found == search(Pretended(LIMITS, FACTORS), BOTH, Journal(Nobody()))
        again = (pytest.approx(last["solved_for"]), (last["precision"],))
        assert (again in network.asked) == (once and torn > 1)  # without its line's end it is whole


@pytest.mark.parametrize(
    "line",
    [
        b"\xff\xfe no text",
        b"[1, 2]",
        b'{"schema": 1, "key": "KEY", "candidate": {}}',
        b'{"schema": 2, "key": "KEY", "candidate": {"round": 1}}',
        b'{"schema": 2, "key": "KEY", "candidate": null}',
        b'{"schema": 2, "key": "KEY"}',
    ],
)
def test_lines_that_say_nothing_are_passed_over(tmp_path: Path, line: bytes) -> None:
    place = tmp_path / "run.front.jsonl"
    cut_short(place, 2)
    first, *rest = place.read_bytes().splitlines(keepends=True)
    key = json.loads(first)["key"].encode()
    place.write_bytes(b"".join([first, line.replace(b"KEY", key) + b"\n", *rest]))
    whole, network = Pretended(LIMITS, FACTORS), Pretended(LIMITS, FACTORS)
    search(whole, BOTH, Journal(Nobody()))
    walk(network, place)
    assert network.asked == whole.asked[2:]


def test_a_candidate_that_a_busy_board_did_not_time_is_tried_again(tmp_path: Path) -> None:
    place = tmp_path / "run.front.jsonl"
    busy = CutShort(LIMITS, FACTORS, busy=(1,))
    busy.ends_in = 2
    with pytest.raises(KeyboardInterrupt):
        walk(busy, place)
    network = Pretended(LIMITS, FACTORS)
    found, said = walk(network, place)
    assert said == [f"2 candidates were tried before; going on from {place}"]
    assert network.asked[0] == busy.asked[1]
    assert all(one.measured is not None for one in found)


def test_the_end_of_a_walk_removes_the_file_and_an_interruption_says_what_is_kept(tmp_path: Path) -> None:
    place, said = tmp_path / "run.front.jsonl", Heard()
    cut_short(place, 2)
    for ending in (KeyboardInterrupt(), OutputError("the disk is full")):
        with pytest.raises(type(ending)), kept_until_done(place, Journal(said)):
            raise ending
    assert said.lines == [f"what was tried so far is in {place}: the same command goes on from there"] * 2
    with pytest.raises(ZeroDivisionError), kept_until_done(place, Journal(said)):
        raise ZeroDivisionError
    assert place.is_file()
    with kept_until_done(place, Journal(said)):
        pass
    assert not place.exists()


@pytest.mark.parametrize(
    ("error", "fix"),
    [
        (ConnectionLostError("ssh://pi"), "The board finishes alone what it is at."),
        (DeviceError("it does not answer", where="ssh://pi", fix="Is the board on?"), "Is the board on?"),
    ],
)
def test_a_board_that_is_lost_says_that_the_same_command_goes_on(tmp_path: Path, error: DeviceError, fix: str) -> None:
    place = tmp_path / "run.front.jsonl"
    with pytest.raises(DeviceError) as told, kept_until_done(place, Journal(Nobody())):
        raise error
    assert told.value is error  # nothing is kept yet
    cut_short(place, 1)
    with pytest.raises(DeviceError) as told, kept_until_done(place, Journal(Nobody())):
        raise error
    assert (told.value.what, told.value.where, told.value.exit_code) == (error.what, "ssh://pi", 3)
    assert told.value.fix == f"{fix} What was tried before is kept: the same command goes on."
    with pytest.raises(DeviceError) as told, kept_until_done(None, Journal(Nobody())):
        raise error
    assert told.value is error


def test_nothing_that_was_kept_is_nothing_to_speak_of(tmp_path: Path) -> None:
    said = Heard()
    for place in (None, tmp_path / "run.front.jsonl"):
        with pytest.raises(BudgetError), kept_until_done(place, Journal(said)):
            raise BudgetError("it cannot be reached")
        with kept_until_done(place, Journal(said)):
            pass
    assert said.lines == []


def test_a_file_that_cannot_be_read_or_written_is_an_error_that_says_which(tmp_path: Path) -> None:
    with pytest.raises(EdgepruneError, match="cannot read") as told:
        TriedBefore(tmp_path, ASKED)
    assert told.value.where == str(tmp_path)
    place = tmp_path / "runs" / "run.front.jsonl"
    before = TriedBefore(place, ASKED)
    place.parent.touch()
    with pytest.raises(OutputError) as told:
        search(Remembered(Pretended(LIMITS, FACTORS), before, timed=True), BOTH, Journal(Nobody()))
    assert told.value.where == str(place)


class Smoother(TwoBlocks):
    """The same weights, and another network."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(functional.gelu(x))


def images(seed: int, labels: Sequence[int] | None = None) -> ImageSet:
    held = np.random.default_rng(seed).integers(0, 256, (4, 12, 12, 3), np.uint8)
    return ImageSet(held, None if labels is None else np.array(labels), "made up", 4)


def moved(traced: Traced) -> Traced:
    """The same network with a weight that is another one."""
    module = copy.deepcopy(traced.model.module)
    with torch.no_grad():
        module.get_parameter("head.bias")[0] += 1e-3
    return replace(traced, model=replace(traced.model, module=module))


def measured(traced: Traced, threads: int = 1, ms: float = 1.0) -> LatencyTable:
    variant = Variant({}, ms, 1.0, (LayerTime("conv", 1, 8, 0.5),), 0.1, 0.2)
    network = {traced.channel_map.fingerprint: Network("net", (variant,))}
    return LatencyTable(Conditions("a board", "onnxruntime", "1", threads, "onnx"), network)


REQUEST = Request(max_drop=1.0, budget=Budget(max_drop=1.0), out=Path("a"), weights=Path("w"), mean=(0.5,))
PHOTOS = Photos(images(1), images(2), images(3, [0, 1, 2, 3]))
PI4 = load_target("rpi4")


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (lambda: {"request": replace(REQUEST, out=None, overwrite=True, restart=True, command=("edgeprune",))}, set()),
        (lambda: {"request": replace(REQUEST, max_drop=2.0, budget=Budget(max_drop=2.0))}, {"--max-drop"}),
        (lambda: {"request": replace(REQUEST, recover="bn", seed=1)}, {"--recover", "--seed"}),
        (lambda: {"request": replace(REQUEST, criterion_options={"metric": "psnr"})}, {"--criterion-option"}),
        (lambda: {"request": replace(REQUEST, model="mine", input_shape=(3, 8, 8))}, {"MODEL", "--input"}),
        (lambda: {"request": replace(REQUEST, device="ssh://pi@other")}, {"--device"}),
        (lambda: {"uncut": moved(found_in(TwoBlocks))}, {"the weights"}),
        (lambda: {"uncut": found_in(Smoother), "times": measured(found_in(Smoother))}, {"the network"}),
        (lambda: {"photos": replace(PHOTOS, calibration=images(4))}, {"the images"}),
        (lambda: {"photos": replace(PHOTOS, scoring=images(4))}, {"the images"}),
        (lambda: {"photos": replace(PHOTOS, choosing=images(4, [0, 1, 2, 3]))}, {"the images"}),
        (lambda: {"photos": replace(PHOTOS, choosing=images(3, [0, 1, 2, 0]))}, {"the images"}),
        (lambda: {"photos": replace(PHOTOS, choosing=images(3))}, {"the images"}),
        (lambda: {"target": replace(PI4, channel_multiple=3)}, {"the board's file"}),
        (lambda: {"times": measured(found_in(TwoBlocks), threads=4)}, {"the table"}),
        (lambda: {"times": measured(found_in(TwoBlocks), ms=1.5)}, {"the table"}),
        (lambda: {"times": Prior("a board", 1, 2.0, 3.0, 0.1, 0.2, "somebody")}, {"the table"}),
        (lambda: {"timed": False}, {"whether files are timed"}),
    ],
)
def test_what_candidates_depend_on_is_told_apart_by_name(
    other: Callable[[], dict[str, Any]], named: set[str], one_thread: None
) -> None:
    uncut = found_in(TwoBlocks)
    given = {"request": REQUEST, "uncut": uncut, "photos": PHOTOS, "target": PI4, "times": measured(uncut)}
    plain, changed = (depends_on(**{**given, "timed": True, **more}) for more in ({}, other()))
    assert {name for name in plain | changed if plain.get(name) != changed.get(name)} == named
    assert json.loads(json.dumps(plain)) == plain
    assert plain["versions"]["edgeprune"]
