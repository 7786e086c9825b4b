"""What is said against a measurement, and which of its blocks still count."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edgeprune.bench.trust import Reason, clean_blocks, doubts, verdict
from edgeprune.measurement import Block, Measurement

BLOCKS = 12


def measured(*readings: dict, samples=(1000, 1000, 1000), **changes) -> Measurement:
    """Twelve blocks of equal times; the readings are those of the last blocks."""
    padded = [{}] * (BLOCKS - len(readings)) + list(readings)
    return replace(
        Measurement(
            artifact="ab" * 32,
            path="base.onnx",
            role="baseline",
            format="onnx",
            precision="fp32",
            runtime="onnxruntime",
            runtime_version="1",
            threads=1,
            blocks=tuple(Block(i, 0, samples, seen) for i, seen in enumerate(padded)),
            load_ns=5,
            first_ns=6,
            peak_rss_bytes=7,
            device={"machine": "aarch64", "cores": 4, "at_start": {}},
        ),
        **changes,
    )


def at_start(**readings) -> dict:
    return {"device": {"machine": "aarch64", "cores": 4, "at_start": readings}}


def reasons(measurement: Measurement) -> list[str]:
    return [doubt.reason.name for doubt in doubts(measurement)]


def test_steady_times_are_trusted():
    assert doubts(measured()) == ()
    assert verdict(()) == "ok"


def test_emulated_times_are_never_trusted():
    found = doubts(measured(device={"emulated": True, "emulated_by": "qemu in maps"}))
    assert verdict(found) == "EMULATED: qemu in maps: these times say nothing about a board"


def test_a_throttled_block_is_left_out_and_the_rest_is_trusted():
    one = measured({"throttled": 0x4}, {}, {})
    (doubt,) = doubts(one)
    assert str(doubt) == "THROTTLED: 1 of 12 blocks"
    assert not doubt.fatal
    assert [block.round for block in clean_blocks(one)] == [*range(9), 10, 11]


@pytest.mark.parametrize("bits", [0x2, 0x4, 0x8])
def test_a_capped_clock_is_throttling_too(bits):
    assert reasons(measured({"throttled": bits})) == ["THROTTLED"]


def test_under_voltage_has_a_remedy_of_its_own():
    assert reasons(measured({"throttled": 0x1})) == ["UNDER_VOLTAGE"]
    assert "power supply" in Reason.UNDER_VOLTAGE.value.remedy


def test_if_more_than_a_third_is_tainted_the_run_is_untrusted():
    third, more = measured(*[{"throttled": 0x4}] * 4), measured(*[{"throttled": 0x4}] * 5)
    assert verdict(doubts(third)) == "ok"
    assert verdict(doubts(more)) == "THROTTLED: 5 of 12 blocks"
    assert (len(clean_blocks(third)), len(clean_blocks(more))) == (8, 12)


def test_several_small_taints_add_up():
    one = measured(*[{"throttled": 0x4}] * 3, *[{"other_cores": 0.9}] * 3)
    assert all(doubt.fatal for doubt in doubts(one))
    assert reasons(one) == ["THROTTLED", "BUSY"]


def test_a_sticky_bit_counts_only_if_it_was_set_during_the_run_and_only_once():
    old = [{"throttled": 0x10000}] * BLOCKS
    assert doubts(measured(*old, **at_start(throttled=0x10000))) == ()
    new = [{"throttled": 0x10000}] * 6 + [{"throttled": 0x50000}] * 6
    one = measured(*new, **at_start(throttled=0x10000))
    assert reasons(one) == ["THROTTLED"]
    assert [block.round for block in clean_blocks(one)] == [*range(6), *range(7, BLOCKS)]


def test_a_block_at_another_clock_is_left_out():
    steady = [{"frequencies_mhz": [1500.0, 600.0]}] * 11
    one = measured({"frequencies_mhz": [1000.0, 600.0]}, *steady)
    assert reasons(one) == ["CLOCK_CHANGED"]
    assert len(clean_blocks(one)) == 11
    assert doubts(measured(*steady)) == ()


def test_other_programs_make_a_block_busy():
    found = doubts(measured({"other_cores": 0.8}, {"other_cores": 0.1}))
    assert list(map(str, found)) == ["BUSY: 1 of 12 blocks: other programs used up to 0.8 cores"]


def test_more_threads_than_cores_get_in_each_others_way():
    assert reasons(measured(threads=8)) == ["BUSY"]


def test_few_blocks_are_too_few():
    one = measured()
    assert verdict(doubts(replace(one, blocks=one.blocks[:5]))) == "TOO_FEW_SAMPLES: 5 blocks to compare, needs 6"


def test_what_could_be_better_is_said_and_no_reason_to_distrust():
    one = measured(**at_start(temperature_c=71.5))
    one = replace(one, device={**one.device, "governor": "ondemand"}, warm_up={"stable": False, "seconds": 5.0})
    assert reasons(one) == ["HOT_START", "GOVERNOR", "NOISY"]
    assert verdict(doubts(one)) == "ok"


def test_blocks_that_spread_are_noisy():
    one = measured()
    wide = tuple(replace(block, samples_ns=(1000 + 400 * (block.round % 2),) * 3) for block in one.blocks)
    (found,) = doubts(replace(one, blocks=wide))
    assert str(found) == "NOISY: blocks spread by 25%"


@pytest.mark.parametrize("reason", list(Reason), ids=lambda reason: reason.name)
def test_every_reason_has_a_remedy(reason):
    assert reason.value.remedy.endswith(".") or "/" in reason.value.remedy
