from dataclasses import replace

import jsonschema
import numpy as np
import pytest
from report_samples import FULL, PLAN
from test_report_document import SCHEMA

from edgeprune import __version__
from edgeprune.bench.compare import compare
from edgeprune.bench.trust import doubts
from edgeprune.course import course
from edgeprune.measurement import Block, Measurement
from edgeprune.plan import Budget, PruningPlan
from edgeprune.report.build import Evidence, Pruning, build
from edgeprune.report.machines import machine_name
from edgeprune.report.parts import Layer, Method, Protected
from edgeprune.target import load_target

PRUNING_PLAN = PruningPlan(
    model="f" * 64,
    criterion="qsfm",
    settings={"measure": "ssim"},
    budget=Budget(macs=0.65),
    channel_multiple=8,
    sizes={"conv1": 16, "conv2": 32},
    keep={"conv2": tuple(range(24))},
    macs_kept=0.66,
)
PC = {"cpu": "AMD EPYC", "cores": 2, "machine": "x86_64", "at_start": {"load_average": 0.1}}
PI = {"model": "Raspberry Pi 4 Model B Rev 1.4", "cpu": "Cortex-A72", "cores": 4, "machine": "aarch64"}


def measured(role, base_ns, device):
    sha = next(one.sha256 for one in FULL.artifacts if one.role == role and one.format == "onnx")
    blocks = tuple(Block(number, 0, tuple(base_ns + 1000 * at + number for at in range(50))) for number in range(8))
    return Measurement(
        artifact=sha,
        path=f"elsewhere/{role}.onnx",
        role=role,
        format="onnx",
        precision="fp32",
        runtime="onnxruntime",
        runtime_version="1.22.1",
        threads=2,
        blocks=blocks,
        load_ns=40_000_000,
        first_ns=30_000_000,
        peak_rss_bytes=10**8,
        device=device,
    )


def built(target="rpi4", device=PC):
    measurements = (measured("baseline", 20_000_000, device), measured("pruned", 15_000_000, device))
    pruning = Pruning(PRUNING_PLAN, FULL.cost.baseline, FULL.cost.pruned, {"fc": "is the output"}, Method("none"))
    found = [doubts(one) for one in measurements]
    evidence = Evidence(FULL.data, FULL.accuracy, FULL.artifacts, measurements, compare(measurements), found)
    return build(FULL.model, load_target(target), pruning, evidence, FULL.run)


def test_a_built_report_fits_the_schema():
    jsonschema.Draft202012Validator(SCHEMA).validate(built().to_json())


def test_the_plan_gives_layers_criterion_and_budget():
    report = built()
    assert report.layers == (Layer("conv1", 16, 16), Layer("conv2", 32, 24))
    assert report.criterion == Method("qsfm", {"measure": "ssim"})
    assert (report.budget.asked, report.budget.reached) == ({"macs": 0.65}, {"macs": 0.66})
    assert report.budget.plan == PRUNING_PLAN.fingerprint != PLAN
    assert report.protected == (Protected("fc", "is the output"),)
    assert report.edgeprune_version == __version__


def test_measurements_and_comparisons_name_the_artifacts_of_the_report():
    report = built()
    assert [row.artifact for row in report.measurements] == ["baseline.fp32.onnx", "pruned.fp32.onnx"]
    assert [(row.baseline, row.candidate) for row in report.comparisons] == [("baseline.fp32.onnx", "pruned.fp32.onnx")]
    assert report.comparisons[0].verdict == "faster"


def test_percentiles_are_those_of_all_samples():
    row, samples = built().measurements[1], measured("pruned", 15_000_000, PC).samples_ns
    assert row.samples == 400
    assert row.p90_ms == pytest.approx(np.percentile(samples, 90) / 1e6)
    assert len(row.quantiles_ms) == 21
    assert (row.quantiles_ms[0], row.quantiles_ms[-1]) == (min(samples) / 1e6, max(samples) / 1e6)
    assert row.quantiles_ms[10] == pytest.approx(row.p50_ms)


def test_the_distribution_and_the_course_of_the_samples_come_along():
    row, one = built().measurements[1], measured("pruned", 15_000_000, PC)
    assert (row.histogram.from_ms, len(row.histogram.counts)) == (min(one.samples_ns) / 1e6, 60)
    assert 0.98 * 400 <= sum(row.histogram.counts) <= 400
    assert [block.round for block in row.blocks] == list(range(8))
    assert row.blocks[3].p50_ms == one.blocks[3].median_ns / 1e6
    assert (row.blocks[0].temperature_c, row.blocks[0].clock_mhz) == (None, None)


def test_a_block_says_what_befell_it():
    one = measured("pruned", 15_000_000, PI)
    seen = [{"temperature_c": 81.0, "frequencies_mhz": [600.0, 1000.0], "throttled": 4 * (at > 6)} for at in range(8)]
    blocks = tuple(replace(block, sensors=its, started_s=9.5) for block, its in zip(one.blocks, seen, strict=True))
    found = course(replace(one, blocks=blocks))
    assert [block.tainted for block in found] == [()] * 7 + [("THROTTLED",)]
    assert (found[0].started_s, found[0].temperature_c, found[0].clock_mhz) == (9.5, 81.0, 1000.0)


def test_a_pc_is_not_the_target():
    (device,) = built().devices
    assert (device.name, device.is_target) == ("AMD EPYC, 2 cores, x86_64", False)
    assert "at_start" not in device.facts


@pytest.mark.parametrize(
    ("target", "device", "is_target"),
    [
        ("host", PC, True),
        ("rpi4", PI, True),
        ("rpi5", PI, False),
    ],
)
def test_the_target_is_the_host_if_asked_for_or_the_board_of_that_name(target, device, is_target):
    assert built(target, device).devices[0].is_target is is_target


def test_emulated_times_are_told_of_and_never_shown():
    report = built("rpi4", {**PI, "emulated": True})
    assert (report.devices, report.measurements, report.comparisons) == ((), (), ())
    (told,) = (warning for warning in report.run.warnings if warning.startswith("EMULATED"))
    assert "Raspberry Pi 4 Model B Rev 1.4, Cortex-A72, 4 cores, aarch64, emulated" in told


def test_what_speaks_against_a_measurement_comes_along():
    row, _ = built(device={**PC, "governor": "powersave"}).measurements
    assert (row.trust, row.warnings[0].partition(":")[0]) == ("ok", "GOVERNOR")
    row, _ = built(device={**PC, "at_start": {"temperature_c": 80.0}}).measurements
    assert row.warnings == ("HOT_START: 80 C before the run",)


def test_a_machine_is_named_by_what_it_says():
    assert machine_name(PI) == "Raspberry Pi 4 Model B Rev 1.4, Cortex-A72, 4 cores, aarch64"
    assert machine_name({**PC, "emulated": True}) == "AMD EPYC, 2 cores, x86_64, emulated"
    assert machine_name({}) == "a machine that does not name itself"


def test_the_warnings_of_the_board_come_along():
    assert built().target.warnings == load_target("rpi4").warnings


def test_a_report_without_files_and_times_can_be_built():
    pruning = Pruning(PRUNING_PLAN, FULL.cost.baseline, FULL.cost.pruned, {}, Method("none"))
    report = build(FULL.model, load_target("rpi4"), pruning, Evidence(FULL.data), replace(FULL.run, stages=()))
    document = report.to_json()
    jsonschema.Draft202012Validator(SCHEMA).validate(document)
    assert document["accuracy"] is None
    assert document["devices"] == []
