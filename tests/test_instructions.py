"""benchmarks/instructions: what it counts under QEMU is the network's work."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from arm_board import missing
from program_runs import REPOSITORY, run_program, run_python

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
