"""Why fewer MACs did not become less time, and what physics forbids: on profiles whose cause is known."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_bench_session import START, Scripted, an_artifact, bench

from edgeprune.artifact import Artifact
from edgeprune.bench.explain import WORTH, Cause, explain, explanations, pairs
from edgeprune.bench.profiling import quieter
from edgeprune.bench.roofline import Roof, board_of, forbidden, refuse_forbidden, roof_of
from edgeprune.errors import TrustError
from edgeprune.measurement import Block, Measurement
from edgeprune.profile import OperatorTime, Profile
from edgeprune.profile_tables import profile_table
from edgeprune.report.layers import change_table
from edgeprune.target import load_target

PI4 = MappingProxyType({"model": "Raspberry Pi 4 Model B Rev 1.4", "cores": 4, "max_frequency_mhz": 1500.0})


def layer(name: str, ms: float, macs: int, *, channels=(64, 64), moved: int = 1000, widths: int = 0) -> OperatorTime:
    return OperatorTime(f"fused {name}", "Conv", ms, 0.0, "CPU", name, macs, moved, channels, widths)


def operator(kind: str, ms: float) -> OperatorTime:
    return OperatorTime(kind, kind, ms, 0.0, "CPU")


def a_profile(*operators: OperatorTime, role: str = "pruned", call_ms: float = 0.0, **changes) -> Profile:
    whole = call_ms or sum(one.ms for one in operators)
    return Profile(
        **{
            "artifact": role,
            "path": f"{role}.onnx",
            "role": role,
            "format": "onnx",
            "precision": "fp32",
            "runtime": "onnxruntime",
            "runtime_version": "1",
            "threads": 1,
            "calls": 50,
            "call_ms": whole,
            "operators": operators,
            "device": {},
            **changes,
        }
    )


def causes(
    baseline: tuple[OperatorTime, ...], candidate: tuple[OperatorTime, ...], roof: Roof | None = None, **changes
):
    found = explain(a_profile(*baseline, role="baseline"), a_profile(*candidate, **changes), roof)
    return {one.cause: one for one in found.findings}


def test_a_cut_that_pays_everywhere_needs_no_explanation():
    assert causes((layer("a", 1.0, 10**8),), (layer("a", 0.5, 5 * 10**7),)) == {}


def test_layers_that_were_not_cut_are_named_with_their_share():
    found = causes(
        (layer("stem", 1.0, 10**8), layer("body", 1.0, 10**8)),
        (layer("stem", 1.0, 10**8), layer("body", 0.4, 4 * 10**7)),
    )
    assert set(found) == {"UNCUT"}
    assert found["UNCUT"].layers == ("stem",)
    assert found["UNCUT"].share == pytest.approx(1 / 1.4)
    assert "71% of the time" in found["UNCUT"].said


def test_a_rate_that_falls_with_the_new_width_is_the_widths_fault():
    found = causes((layer("a", 1.0, 10**8),), (layer("a", 0.9, 5 * 10**7, channels=(64, 40)),))
    assert set(found) == {"WIDTHS"}
    assert "a 64 -> 40, 200 -> 111 GFLOP/s" in found["WIDTHS"].said
    assert "channel_multiple" in found["WIDTHS"].remedy


def test_a_layer_that_is_computed_wider_than_it_is_says_how_wide():
    found = causes((layer("a", 1.0, 10**8),), (layer("a", 0.6, 6 * 10**7, channels=(64, 40), widths=48),))
    assert "a 64 -> 40, computed 48 wide" in found["WIDTHS"].said


def test_layout_changes_and_operators_without_weights_are_told_apart():
    found = causes(
        (layer("a", 1.0, 10**8),),
        (layer("a", 0.5, 5 * 10**7), operator("ReorderOutput", 0.1), operator("Sigmoid", 0.2)),
    )
    assert set(found) == {"LAYOUT", "OTHER_OPERATORS"}
    assert "1 operator change layout or number format (ReorderOutput)" in found["LAYOUT"].said
    assert "(Sigmoid) take 25% of the time" in found["OTHER_OPERATORS"].said


def test_time_between_operators_is_a_fixed_cost():
    found = causes((layer("a", 1.0, 10**8),), (layer("a", 0.5, 5 * 10**7),), call_ms=0.7)
    assert found["FIXED_COST"].share == pytest.approx(0.2 / 0.7)


def test_layers_too_small_to_become_faster_are_a_fixed_cost():
    found = causes((layer("a", 0.01, 10**5),), (layer("a", 0.01, 5 * 10**4),))
    assert found["FIXED_COST"].layers == ("a",)


def test_a_layer_that_the_memory_holds_up_is_found_only_where_its_peak_is_known():
    before, after = (layer("a", 1.0, 10**7, moved=10**7),), (layer("a", 0.8, 9 * 10**6, moved=8 * 10**6),)
    assert causes(before, after) == {}
    found = explain(a_profile(*before, role="baseline"), a_profile(*after), Roof(100.0, 10.0, "the board's file"))
    assert [one.cause for one in found.findings] == ["MEMORY_BOUND"]
    assert (found.layers[0].bound, found.layers[0].limit_ms) == ("memory", pytest.approx(0.8))
    assert found.peak_source == "the board's file"


def test_int8_layers_slower_than_the_same_in_fp32_are_found():
    fp32 = a_profile(layer("a", 0.5, 10**7), layer("b", 0.5, 10**7))
    int8 = a_profile(layer("a", 0.8, 10**7), layer("b", 0.2, 10**7), precision="int8", path="int8.onnx")
    base = a_profile(layer("a", 1.0, 10**8), layer("b", 1.0, 10**8), role="baseline", precision="int8")
    found = explain(base, int8, None, fp32)
    slower = next(one for one in found.findings if one.cause == "INT8_SLOWER")
    assert (slower.layers, slower.share) == (("a",), pytest.approx(0.8))
    assert pairs([fp32, int8, base]) == [(base, int8, fp32)]


def test_only_profiles_under_the_same_conditions_are_compared():
    base = a_profile(layer("a", 1.0, 10**8), role="baseline")
    for change in ({"threads": 4}, {"runtime": "litert"}, {"precision": "int8"}, {"format": "tflite"}):
        assert pairs([base, a_profile(layer("a", 1.0, 10**8), **change)]) == []
    assert len(explanations([base, a_profile(layer("a", 1.0, 10**8))])) == 1


@given(
    st.lists(
        st.tuples(st.floats(0.001, 10), st.floats(0.001, 10), st.integers(1, 10**9), st.integers(1, 10**9)), min_size=1
    ),
    st.floats(0, 5),
)
def test_whatever_is_found_is_of_the_closed_list_and_worth_saying(rows, between):
    before = [layer(f"l{at}", a, max(m, n)) for at, (a, _, m, n) in enumerate(rows)]
    after = [layer(f"l{at}", b, min(m, n)) for at, (_, b, m, n) in enumerate(rows)]
    whole = sum(one.ms for one in after) + between
    found = explain(a_profile(*before, role="baseline"), a_profile(*after, call_ms=whole), None)
    for one in found.findings:
        assert one.remedy == Cause[one.cause].value
        assert WORTH <= one.share <= 1.000001
    shares = [one.share for one in found.findings]
    assert shares == sorted(shares, reverse=True)
    assert sum(one.ms[1] for one in found.layers) == pytest.approx(sum(one.ms for one in after))


def test_of_two_passes_each_operator_counts_with_its_quieter_one():
    first = {"call_ns": 5.0, "version": "1", "operators": [{"name": "a", "ns": 1.0}, {"name": "b", "ns": 4.0}]}
    second = {"call_ns": 5.0, "version": "1", "operators": [{"name": "a", "ns": 2.0}, {"name": "b", "ns": 2.0}]}
    merged = quieter([first, second])
    assert [one["ns"] for one in merged["operators"]] == [1.0, 2.0]
    assert merged["call_ns"] == 3.0, "the first had nothing between its operators, the second 1 ns"
    assert quieter([first, {**second, "operators": []}]) == first
    assert quieter([{"refused": "no"}, {"refused": "no"}]) == {"refused": "no"}


def test_a_boards_peaks_are_its_files_for_the_threads_and_at_the_clock_it_says():
    one, four = roof_of(PI4, 1), roof_of(PI4, 4)
    assert (one.gflops, four.gflops) == (pytest.approx(12.0), pytest.approx(48.0))
    assert roof_of({**PI4, "max_frequency_mhz": 1800.0}, 4).gflops == pytest.approx(57.6)
    assert roof_of({**PI4, "emulated": "yes"}, 1) is None
    assert roof_of({"cpu": "AMD EPYC"}, 1) is None
    assert board_of({"model": "Raspberry Pi 5 Model B Rev 1.0"}) == load_target("rpi5")
    assert roof_of({"model": "Raspberry Pi 5 Model B Rev 1.0"}, 4).gb_per_s == pytest.approx(17.1)


def a_measurement(ms: float, **changes) -> Measurement:
    fields = {
        "artifact": "a" * 64,
        "path": "a.onnx",
        "role": "baseline",
        "format": "onnx",
        "precision": "fp32",
        "runtime": "onnxruntime",
        "runtime_version": "1",
        "threads": 4,
        "blocks": (Block(0, 0, (int(ms * 1e6),) * 3),),
        "load_ns": 1,
        "first_ns": 1,
        "peak_rss_bytes": 1,
        "device": PI4,
    }
    return Measurement(**{**fields, **changes})


def test_a_rate_above_the_boards_peak_is_refused_and_one_below_is_not():
    macs = 300 * 10**6
    artifact = Artifact("a.onnx", "a" * 64, 1, "baseline", "onnx", "fp32", (3, 224, 224), "NCHW", macs, 1)
    assert forbidden(a_measurement(13.0), macs) == ""  # 46 GFLOP/s of 48
    refuse_forbidden([a_measurement(13.0)], [artifact])
    with pytest.raises(TrustError, match=r"physics forbids it: a\.onnx would reach 60 GFLOP/s .* peak is 48") as caught:
        refuse_forbidden([a_measurement(13.0), a_measurement(10.0)], [artifact])
    assert caught.value.exit_code == 4
    assert "doctor" in caught.value.fix


@pytest.mark.parametrize(
    "change",
    [
        {"precision": "int8"},
        {"precision": ""},
        {"runtime": "onnxruntime-cuda"},
        {"device": {"cpu": "AMD EPYC"}},
        {"blocks": ()},
    ],
)
def test_what_the_peak_does_not_speak_of_is_not_judged(change):
    assert forbidden(a_measurement(0.001, **change), 10**9) == ""


def test_a_profile_is_judged_by_its_operators():
    fast = a_profile(layer("a", 0.1, 10**8), device=PI4)
    assert "would reach 2000 GFLOP/s" in forbidden(fast, 10**8)


def test_both_tables_show_every_layer_or_say_how_many_more():
    many = tuple(layer(f"l{at}", 1.0 + at, 10**6) for at in range(20))
    found = explain(a_profile(*many, role="baseline"), a_profile(*many), Roof(100.0, 0.0, "a file"))
    drawn = change_table(found)
    assert [row[0] for row in drawn.rows[-2:]] == ["9 others", "a call"]
    assert drawn.rows[0][:2] == ("l19", "64 -> 64")
    assert drawn.note == "Peak: a file."
    assert [row[0] for row in profile_table(a_profile(*many).to_json()).rows][-1] == "8 others"
    assert profile_table(replace(a_profile(layer("a", 0.0, 10)), call_ms=1.0).to_json()).rows[0][2] == "< 0.001"


def test_a_run_whose_times_cannot_be_ends_with_that(tmp_path):
    one = replace(an_artifact(tmp_path, "a.onnx"), macs=10**9)
    ready = {"event": "ready", "entry": "a.onnx@1", "load_ns": 1, "first_ns": 1, "runtime_version": "1"}
    ready |= {"output_sha256": "", "warm_up": {"calls": 10, "seconds": 0.1, "stable": True}}
    block = {"event": "block", "entry": "a.onnx@1", "round": 0, "order": 0, "started_s": 0.0, "samples_ns": [10**6] * 3}
    block |= {"peak_rss_bytes": 1, "sensors": {}}
    device = Scripted({**START, "device": dict(PI4)}, ready, block, {"event": "end"})
    with pytest.raises(TrustError, match="physics forbids it"):
        bench([one], tmp_path, transport=device)
