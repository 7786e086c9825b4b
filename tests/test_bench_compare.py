"""Which measurements are compared, and in which words."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edgeprune.bench.compare import compare
from edgeprune.measurement import Block, Measurement


def measured(role: str, ms: float, *, rounds: int = 16, seed: int = 0, **changes) -> Measurement:
    """Blocks of three samples around `ms`, 1 % noise."""
    rng = np.random.default_rng([seed, role == "pruned"])
    blocks = tuple(
        Block(i, 0, tuple(int(s) for s in ms * 1e6 * np.exp(0.01 * rng.standard_normal(3)))) for i in range(rounds)
    )
    fields = {
        "artifact": "ab" * 32,
        "path": f"{role}.onnx",
        "role": role,
        "format": "onnx",
        "precision": "fp32",
        "runtime": "onnxruntime",
        "runtime_version": "1",
        "threads": 1,
        "blocks": blocks,
        "load_ns": 1,
        "first_ns": 1,
        "peak_rss_bytes": 1,
        "device": {},
        "session": "s",
    }
    return Measurement(**{**fields, **changes})


def test_a_faster_file_is_called_faster_with_its_ratio():
    (found,) = compare([measured("baseline", 13), measured("pruned", 10)])
    assert (found.baseline, found.candidate, found.runtime, found.threads) == (
        "baseline.onnx",
        "pruned.onnx",
        "onnxruntime",
        1,
    )
    assert found.ratio == pytest.approx(1.3, rel=0.02)
    assert found.ci95[0] < found.ratio < found.ci95[1]
    assert (found.verdict, found.rounds) == ("faster", 16)


def test_a_slower_file_is_called_slower():
    (found,) = compare([measured("baseline", 10), measured("pruned", 13)])
    assert found.verdict == "slower"


def test_equal_files_are_mostly_not_called_different():
    verdicts = [
        compare([measured("baseline", 10, seed=i), measured("pruned", 10, seed=i)])[0].verdict for i in range(30)
    ]
    assert verdicts.count("no significant difference") >= 25


def test_with_few_rounds_nothing_is_claimed_however_large_the_ratio():
    assert compare([measured("baseline", 20, rounds=5), measured("pruned", 10, rounds=5)]) == ()
    (found,) = compare([measured("baseline", 20, rounds=6), measured("pruned", 10, rounds=6)])
    assert found.verdict == "faster"


def test_a_comparison_says_how_small_a_change_it_would_have_seen():
    few, many = (
        compare([measured("baseline", 10, rounds=count), measured("pruned", 10, rounds=count)])[0] for count in (8, 64)
    )
    assert 0.001 < many.detectable < few.detectable < 0.05


def test_tainted_blocks_are_left_out_on_both_sides():
    slow = measured("baseline", 13)
    fast = measured("pruned", 10)
    spoilt = [replace(b, samples_ns=(9_000_000_000,), sensors={"other_cores": 1.0}) for b in fast.blocks[:4]]
    (found,) = compare([slow, replace(fast, blocks=(*spoilt, *fast.blocks[4:]))])
    assert found.rounds == 12
    assert found.ratio == pytest.approx(1.3, rel=0.02)


def test_emulated_times_are_not_compared():
    emulated = {"device": {"emulated": True}}
    assert compare([measured("baseline", 13, **emulated), measured("pruned", 10, **emulated)]) == ()


def test_files_are_paired_by_format_runtime_and_threads():
    odd = {"format": "tflite", "runtime": "litert"}
    found = compare(
        [
            measured("baseline", 10),
            measured("baseline", 30, threads=4),
            measured("baseline", 20, path="base.tflite", **odd),
            measured("pruned", 10, path="cut.tflite", **odd),
            measured("pruned", 10),
            measured("pruned", 10, threads=2),
        ]
    )
    assert [(c.baseline, c.candidate, c.threads) for c in found] == [
        ("base.tflite", "cut.tflite", 1),
        ("baseline.onnx", "pruned.onnx", 1),
    ]
    assert found[0].ratio == pytest.approx(2, rel=0.02)


def test_every_precision_is_compared_with_the_uncut_fp32_file():
    half, int8 = {"precision": "fp16"}, {"precision": "int8"}
    found = compare(
        [
            measured("baseline", 20),
            measured("baseline", 12, path="uncut-int8.onnx", **int8),
            measured("pruned", 16),
            measured("pruned", 15, path="cut-fp16.onnx", **half),
            measured("pruned", 10, path="cut-int8.onnx", **int8),
        ]
    )
    assert [(c.baseline, c.candidate) for c in found] == [
        ("baseline.onnx", "pruned.onnx"),
        ("baseline.onnx", "cut-fp16.onnx"),
        ("baseline.onnx", "cut-int8.onnx"),
    ]
    assert found[2].ratio == pytest.approx(2, rel=0.02)


def test_without_an_uncut_fp32_file_that_of_the_same_precision_serves():
    int8 = {"precision": "int8"}
    (found,) = compare([measured("baseline", 12, **int8), measured("pruned", 10, **int8)])
    assert found.ratio == pytest.approx(1.2, rel=0.02)
    assert compare([measured("baseline", 12, **int8), measured("pruned", 10)]) == ()


def test_files_of_different_runs_are_not_compared():
    assert compare([measured("baseline", 10, session="monday"), measured("pruned", 10, session="tuesday")]) == ()


def test_only_rounds_both_have_are_used():
    cut_off = measured("pruned", 10)
    (found,) = compare([measured("baseline", 13), measured("pruned", 10, blocks=cut_off.blocks[:9])])
    assert found.rounds == 9
