"""benchmarks/instructions: what it counts under QEMU is the network's work."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from arm_board import missing
from program_runs import REPOSITORY, Tiny, run_program, run_python

from edgeprune.artifact import Artifact

ABSENT = [name for name in ("qemu-aarch64", "cc") if not shutil.which(name)]
WHY_NOT = missing() or (f"not installed: {', '.join(ABSENT)}" if ABSENT else "")
pytestmark = [pytest.mark.arm, pytest.mark.slow, pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT or "-")]

LANES = 4
"""float32 numbers that one fmla multiplies and adds."""


def test_the_multiply_adds_that_run_on_arm_are_those_that_the_report_states(tmp_path: Path):
    run = tmp_path / "run"
    made = run_program("compress", "--target", "rpi4", "--formats", "onnx", "--no-bench", "--out", str(run))
    assert made.code == 0, made.err

    counted = run_python([str(REPOSITORY / "benchmarks" / "instructions"), str(run), "--calls", "2"])

    assert counted.code == 0, counted.err
    assert "not a time" in counted.out
    found = dict(re.findall(r"\| (\S+\.onnx) \| [\d,]+ \| [\d.]+% \| ([\d,]+) ", counted.out))
    assert set(found) == {"baseline-fp32.onnx", "pruned-fp32.onnx"}
    for name, fmla in found.items():
        macs = Artifact.load_manifest(run / f"{name}.json").macs
        assert int(fmla.replace(",", "")) * LANES == pytest.approx(macs, rel=0.02)


def test_the_loop_of_a_speed_up_reaches_what_was_asked_in_executed_instructions(tiny: Tiny) -> None:
    loop = str(REPOSITORY / "benchmarks" / "instructions" / "loop.py")
    given = ("--weights", str(tiny.weights), "--data", str(tiny.data), "--input", "1x8x8")

    ran = run_python([loop, tiny.net, "1.3", *given])

    assert ran.code == 0, ran.err
    assert "not a time" in ran.out
    assert " ms" not in ran.out + ran.err
    shares = dict(re.findall(r"\| \w*Conv \| (\w+) \| [\d,]+ \| [\d.]+ \| ([\d.]+)% \|", ran.out))
    assert set(shares) == {"first", "second"}  # each operator's count is that of its layer, not of its neighbour
    assert [float(share) for share in shares.values()] == [pytest.approx(100, abs=5)] * 2
    uncut = float(re.search(r"([\d.]+) M in a call", ran.out)[1])
    rounds = re.findall(r"\| 1.3 \| (\d) \| [\d.]+ \| [\d.]+ \| ([\d.]+) \| ([\d.]+) \| (\w+) \|", ran.out)
    assert [int(number) for number, *_ in rounds] == list(range(1, 1 + len(rounds)))
    assert [verdict for *_, verdict in rounds] == ["missed"] * (len(rounds) - 1) + ["reached"]
    for _, counted, executed, verdict in rounds:
        assert uncut / float(executed) == pytest.approx(float(counted), rel=0.01)
        assert (float(counted) >= 1.3) == (verdict == "reached")
