"""Sustained load: on simulated boards that throttle at a known moment, or never."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from simulated_timings import KINDS, heated
from test_measurement import a_measurement

from edgeprune.bench.compare import compare
from edgeprune.bench.trust import doubts, tainted
from edgeprune.measurement import Block, Measurement
from edgeprune.report.machines import machine_name
from edgeprune.sustained import Sustained, sustained, thinned

THROTTLES_S = 180.0


def a_pair(
    kind: str = "quiet",
    *,
    ratio: float = 1.3,
    seconds: float = 600.0,
    throttles_s: float | None = THROTTLES_S,
    tells: tuple[str, ...] = ("bits", "clock", "temperature"),
    seed: int = 0,
) -> tuple[Measurement, Measurement]:
    """Uncut and cut file on a simulated board whose sensors say only what `tells` names."""
    started, times, hot = heated(np.random.default_rng(seed), kind, ratio, seconds, throttles_s)

    def sensors(when: float, slow: bool) -> dict:
        told = {"other_cores": 0.0}
        if "bits" in tells:
            told["throttled"] = 0x4 if slow else 0x0
        if "clock" in tells:
            told["frequencies_mhz"] = [1000.0, 1000.0] if slow else [1500.0, 1500.0]
        if "temperature" in tells:
            told["temperature_c"] = round(min(45 + when / 5, 80.0), 1)
        return told

    def measurement(at: int, role: str) -> Measurement:
        blocks = tuple(
            Block(number, 0, tuple(map(int, times[at, number])), sensors(when, bool(hot[at, number])), float(when))
            for number, when in enumerate(started[at])
        )
        return a_measurement(path=f"{role}.onnx", role=role, blocks=blocks, session="one", sustained=True)

    return measurement(0, "baseline"), measurement(1, "pruned")


def found(*pair: Measurement) -> Sustained:
    (one,) = sustained(pair, machine_name)
    return one


@pytest.mark.parametrize("tells", [("bits", "clock"), ("bits",), ("clock",), ()], ids="+".join)
@pytest.mark.parametrize("kind", KINDS)
def test_a_board_that_throttles_at_minute_three_is_seen_to_by_whatever_sign_it_gives(kind, tells):
    one = found(*a_pair(kind, tells=tells))
    assert one.sign == (tells[0] if tells else "times")
    if tells or kind not in ("drift", "all"):  # times alone cannot tell a board that warms up from one that throttles
        assert one.throttled_s == pytest.approx(THROTTLES_S, abs=6)


def test_the_evidence_is_given_in_words():
    assert found(*a_pair()).evidence == "the firmware's throttle bits: 0x4"
    assert found(*a_pair(tells=("clock",))).evidence == "the clock: 1500 to 1000 MHz"
    assert found(*a_pair(tells=())).evidence == "the times: lastingly 5 % above the cold ones"


@pytest.mark.parametrize("kind", ["quiet", "spikes", "modes"])
def test_a_board_that_never_throttles_is_not_said_to(kind):
    runs = [found(*a_pair(kind, throttles_s=None, seconds=300, seed=seed)) for seed in range(30)]
    assert sum(one.throttled_s is not None for one in runs) <= 1
    assert runs[0].evidence == "looked at: the firmware's throttle bits, the clock"
    assert found(*a_pair(throttles_s=None, tells=())).evidence == "looked at: the times"


def test_a_bit_that_stuck_before_the_run_is_not_this_runs():
    stuck = [
        replace(
            one,
            blocks=tuple(replace(block, sensors={**block.sensors, "throttled": 0x40000}) for block in one.blocks),
            device={"at_start": {"throttled": 0x40000}},
        )
        for one in a_pair(throttles_s=None)
    ]
    assert found(*stuck).throttled_s is None


def test_a_short_disturbance_is_no_throttling():
    pair = [
        replace(
            one,
            blocks=tuple(
                replace(block, samples_ns=tuple(3 * ns for ns in block.samples_ns))
                if 100 < block.started_s < 105
                else block
                for block in one.blocks
            ),
        )
        for one in a_pair(throttles_s=None, tells=())
    ]
    assert found(*pair).throttled_s is None


def test_the_steady_interval_holds_the_true_ratio():
    trials = 200
    held = 0
    for seed in range(trials):
        _, cut = found(*a_pair("all", ratio=1.3, seconds=120, throttles_s=30, seed=seed)).files
        held += cut.speed_up.ci95[0] <= 1.3 <= cut.speed_up.ci95[1]
    assert 0.91 <= held / trials <= 0.99  # 0.95, give or take what 200 trials allow


def test_only_the_last_third_counts_for_the_steady_times():
    one = found(*a_pair(seconds=600))
    uncut, cut = one.files
    assert one.steady_from_s == pytest.approx(3 + 600 * 2 / 3, abs=5)
    assert uncut.cold_ms == pytest.approx(10, rel=0.02)
    assert uncut.steady_ms == pytest.approx(14, rel=0.02)
    assert (uncut.speed_up, cut.speed_up.ratio) == (None, pytest.approx(1.3, rel=0.01))
    assert 90 < cut.speed_up.rounds < 105
    assert one.still
    assert not found(*a_pair(seconds=220)).still  # it throttles within the last third


def test_times_temperature_and_clock_are_given_by_minute():
    one = found(*a_pair(seconds=600))
    uncut, cut = one.files
    assert len(uncut.minutes_ms) == len(cut.minutes_ms) == len(one.temperature_c) == len(one.clock_mhz) == 11
    assert uncut.minutes_ms[:3] == pytest.approx([10] * 3, rel=0.02)
    assert uncut.minutes_ms[3:] == pytest.approx([14] * 8, rel=0.02)
    assert one.clock_mhz[2:4] == (1500.0, 1000.0)
    assert one.temperature_c[-1] == 80.0


def test_a_board_without_sensors_has_minutes_without_them():
    assert set(found(*a_pair(tells=())).temperature_c) == {None}


def test_blocks_are_put_together_where_there_are_many():
    one = found(*a_pair(seconds=1200))
    assert 100 < len(one.files[0].blocks) <= 121
    few = one.files[0].blocks[:5]
    assert thinned(few, few[0].started_s, few[-1].started_s) == few


def test_throttling_is_what_was_looked_for_and_no_doubt():
    pair = a_pair()
    assert [doubts(one) for one in pair] == [(), ()]
    assert compare(pair) == ()
    busy = [replace(block, sensors={**block.sensors, "other_cores": 1.0}) for block in pair[0].blocks]
    assert [reason.name for reason in tainted(replace(pair[0], blocks=tuple(busy)))] == ["BUSY"]


@pytest.mark.parametrize("rounds", [1, 5, 6, 7, 40])
def test_a_run_that_was_interrupted_says_what_it_can(rounds):
    uncut, cut = a_pair()
    torn = [replace(uncut, blocks=uncut.blocks[:rounds]), replace(cut, blocks=cut.blocks[: rounds - 1])]
    whole = sustained(torn, machine_name)
    assert len(whole) == (rounds > 6)
    for one in whole:
        assert all(file.steady_ms > 0 for file in one.files)


def test_emulated_and_ordinary_measurements_are_passed_over():
    uncut, cut = a_pair()
    assert sustained([replace(uncut, device={"emulated": True})], machine_name) == ()
    assert sustained([replace(uncut, sustained=False), replace(cut, sustained=False)], machine_name) == ()
