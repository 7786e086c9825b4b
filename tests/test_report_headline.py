from dataclasses import replace

import pytest
from report_samples import FULL, speed_up, timing

from edgeprune.explanation import Explanation, Finding
from edgeprune.report.headline import headline, notices, short_name, speed
from edgeprune.report.parts import Machine
from edgeprune.report.wording import context, warnings

FASTER = speed_up("onnxruntime", 2, 1.3124, (1.274, 1.351), "faster")
SLOWER = speed_up("litert", 1, 0.871, (0.842, 0.913), "slower")
SAME = speed_up("litert", 2, 1.008, (0.972, 1.044), "no significant difference")


def of(*comparisons):
    return replace(FULL, comparisons=comparisons)


@pytest.mark.parametrize(
    ("comparisons", "start"),
    [
        ([FASTER], "1.31x faster [1.27, 1.35] in onnxruntime with 2 threads, for 1.54x fewer MACs, "),
        ([SLOWER], "Slower: 0.87x the speed of the uncut model [0.84, 0.91] in litert with 1 thread, "),
        ([SAME], "No significant difference in speed: 1.01x [0.97, 1.04] in litert with 2 threads, "),
        ([FASTER, FASTER], "Faster in both settings: from "),
        ([SLOWER] * 3, "Slower in all 3 settings: from "),
        ([SAME, SAME], "No significant difference in speed in both settings: from "),
        ([FASTER, SAME, SLOWER], "Faster in 1 of 3 settings, slower in 1, no significant difference in 1: from 0.87x"),
        ([SLOWER, SAME], "Faster in none of 2 settings, slower in 1, no significant difference in 1: from 0.87x"),
        ([], "Speed was not measured; 1.54x fewer MACs."),
    ],
)
def test_the_headline_begins_with_the_verdict(comparisons, start):
    assert headline(of(*comparisons)).startswith(start)


def test_several_settings_are_quoted_from_the_worst_to_the_best():
    assert "from 0.87x [0.84, 0.91] (litert, 1 thread) to 1.31x [1.27, 1.35] (onnxruntime, 2 threads)" in speed(
        of(FASTER, SAME, SLOWER)
    )


def test_a_file_that_is_not_surely_faster_is_not_recommended():
    told = headline(of(FASTER, SAME))
    assert "Not recommended, as not surely faster than the uncut model: pruned.fp32.tflite." in told
    assert "edgeprune bench RUN --profile" in told
    assert notices(of(SLOWER))[1] in headline(of(SLOWER))
    assert "Not recommended" not in headline(of(FASTER))


def test_a_file_that_is_faster_in_some_settings_is_named_with_the_others():
    other = speed_up("onnxruntime", 1, 0.98, (0.9, 1.06), "no significant difference")
    assert "pruned.fp32.onnx (onnxruntime, 1 thread)." in headline(of(FASTER, other))


def test_where_a_profile_tells_why_the_reason_and_the_remedy_stand_beside_it():
    (one,) = of(SLOWER).comparisons
    finding = Finding("UNCUT", "3 layers were not cut and take 60% of the time", 0.6, "See edgeprune inspect.")
    told = Explanation(one.baseline, one.candidate, one.runtime, one.threads, (1.0, 1.1), (9, 8), (), (finding,))
    report = replace(of(SLOWER), explanations=(replace(told, device=one.device),))
    assert "pruned.fp32.tflite: 3 layers were not cut and take 60% of the time. See edgeprune inspect." in headline(
        report
    )
    assert "bench RUN --profile" not in headline(report)


def test_of_a_model_that_was_only_trained_no_speed_was_asked():
    cost = replace(FULL.cost, pruned=FULL.cost.baseline)
    assert "Not recommended" not in headline(replace(of(SAME), cost=cost))


def test_it_says_that_the_host_is_not_the_target():
    assert "on the host (AMD EPYC, 2 cores, x86_64), not on Raspberry Pi 4 Model B." in speed(FULL)
    assert notices(FULL)[0].endswith("these times and ratios are not those of that board.")


def test_it_does_not_say_so_on_the_target_itself():
    report = replace(FULL, devices=(replace(FULL.devices[0], is_target=True),))
    assert "on AMD EPYC, 2 cores, x86_64." in speed(report)
    assert not any("not on" in text for text in (headline(report), *notices(report), *context(report)))


def test_accuracy_is_given_before_and_after_with_intervals():
    assert "Top-1 from 77.9 % [75.3, 80.3] to 70.1 % [67.3, 72.8] on 1,044 images." in headline(FULL)


def test_without_recovery_the_accuracy_is_that_after_the_cut():
    report = replace(FULL, accuracy=replace(FULL.accuracy, steps=FULL.accuracy.steps[:2]))
    assert "to 0.4 % [0.2, 1.0] on" in headline(report)


def test_agreement_is_not_called_accuracy():
    scored = replace(FULL.accuracy, metric="agreement")
    text = headline(replace(FULL, accuracy=scored))
    assert "Agreement with the uncut model: 70.1 % [67.3, 72.8] of 1,044 images; without labels" in text
    assert "Top-1" not in text


def test_it_says_that_nothing_was_scored():
    assert "Accuracy was not measured." in headline(replace(FULL, accuracy=None))


def test_measurements_not_to_rely_on_are_counted_and_explained():
    assert headline(FULL).endswith("1 of 6 measurements cannot be relied on (THROTTLED).")
    assert "pruned.fp32.tflite (litert, 1 thread): THROTTLED: 8 of 16 blocks" in warnings(FULL)


def test_trusted_measurements_need_no_words():
    report = replace(FULL, measurements=(timing("pruned", "litert", 1, 24.7),))
    assert "relied" not in headline(report)
    assert warnings(report) == list(FULL.run.warnings)


PREDICTED = {
    "speedup": 1.5,
    "error": 0.07,
    "worst_error": 0.17,
    "threads": 1,
    "board": "Raspberry Pi 4 Model B",
    "source": "a table",
}


def test_what_was_predicted_is_called_so_with_its_known_error():
    report = replace(FULL, budget=replace(FULL.budget, predicted=PREDICTED))
    (told,) = (line for line in context(report) if "PREDICTED" in line)
    assert told == (
        "PREDICTED 1.5x on Raspberry Pi 4 Model B with 1 thread, from published latencies of other networks (a table), "
        "which foretell each other to 7% (median; worst 17%); not measured there."
    )
    assert not any("PREDICTED" in line for line in context(FULL))


@pytest.mark.parametrize(("ratio", "said"), [(1.3124, "confirms"), (1.1, "refutes"), (1.9, "refutes")])
def test_a_measurement_on_the_board_stands_beside_what_was_predicted(ratio, said):
    there = speed_up("onnxruntime", 1, ratio, (ratio - 0.04, ratio + 0.04), "faster")
    on_target = replace(FULL.devices[0], is_target=True)
    report = replace(of(there), devices=(on_target,), budget=replace(FULL.budget, predicted=PREDICTED))
    (told,) = (line for line in context(report) if "PREDICTED" in line)
    assert f"; measured there: {ratio:.2f}x [" in told
    assert told.endswith(f" in onnxruntime, which {said} it.")


def test_broken_images_are_counted_and_named():
    assert "1 broken image was skipped: class_3/broken|file.jpg." in context(FULL)


def test_of_many_broken_images_the_first_are_named():
    names = tuple(f"{number:02}.jpg" for number in range(12))
    scoring = replace(FULL.data.scoring, skipped=names)
    told = context(replace(FULL, data=replace(FULL.data, scoring=scoring)))
    assert f"12 broken images were skipped: {', '.join(names[:10])} and 2 more." in told


def test_times_on_the_target_itself_come_before_those_of_the_host():
    board = Machine("Raspberry Pi 4 Model B Rev 1.4", True)
    there = replace(FULL.comparisons[0], ratio=1.52, ci95=(1.5, 1.54), device=board.name)
    report = replace(FULL, devices=(*FULL.devices, board), comparisons=(*FULL.comparisons, there))
    assert headline(report).startswith("1.52x faster [1.50, 1.54] in onnxruntime with 1 thread, for")
    assert "on Raspberry Pi 4 Model B Rev 1.4." in headline(report)
    assert "AMD EPYC" not in headline(report)


def test_several_machines_are_told_apart_by_as_short_a_name_as_will_do():
    pi, other = (Machine(f"Raspberry Pi 4, {cores} cores", True) for cores in (4, 2))
    assert short_name(pi.name, replace(FULL, devices=(*FULL.devices, pi))) == "Raspberry Pi 4"
    assert short_name(pi.name, replace(FULL, devices=(pi, other))) == pi.name


def test_the_timed_calls_are_those_of_all_machines():
    board = Machine("Raspberry Pi 4", True)
    assert (
        "on AMD EPYC, 2 cores, x86_64 and Raspberry Pi 4." in context(replace(FULL, devices=(*FULL.devices, board)))[0]
    )
