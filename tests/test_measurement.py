"""What a measurement keeps, and what its log survives."""

from __future__ import annotations

import json
import threading
from dataclasses import replace

import pytest

from edgeprune.errors import EdgepruneError, OutputError
from edgeprune.measurement import Block, Measurement, MeasurementLog, load_measurements


def a_measurement(**changes) -> Measurement:
    blocks = tuple(
        Block(i, i % 2, (1_000_000 + i, 1_100_000, 1_050_000), {"temperature_c": 50.0}, 0.25 * i) for i in range(8)
    )
    return replace(
        Measurement(
            artifact="ab" * 32,
            path="base.fp32.onnx",
            role="baseline",
            format="onnx",
            precision="fp32",
            runtime="onnxruntime",
            runtime_version="1.31.1",
            threads=1,
            blocks=blocks,
            load_ns=5,
            first_ns=6,
            peak_rss_bytes=7,
            device={"machine": "x86_64", "at_start": {}},
            warm_up={"calls": 12, "seconds": 0.3, "stable": True},
        ),
        **changes,
    )


def test_a_measurement_survives_json():
    one = a_measurement()
    assert Measurement.from_json(json.loads(json.dumps(one.to_json()))) == one


def test_percentiles_are_of_all_samples_of_all_blocks():
    one = a_measurement(blocks=(Block(0, 0, (1_000_000, 2_000_000)), Block(1, 1, (3_000_000,))))
    assert one.samples_ns == (1_000_000, 2_000_000, 3_000_000)
    assert (one.p50_ms, one.p90_ms) == (2.0, pytest.approx(2.8))


@pytest.mark.parametrize("spoil", [{"schema": 2}, {"blocks": [{"round": 0}]}, {"blocks": 3}, {"surprise": 1}])
def test_a_document_of_another_kind_is_refused(spoil):
    with pytest.raises(EdgepruneError, match="not a measurement"):
        Measurement.from_json({**a_measurement().to_json(), **spoil})


def write(path, one: Measurement) -> None:
    with MeasurementLog(path) as log:
        key = log.begin(one)
        for block in one.blocks:
            log.append(key, block, one.peak_rss_bytes)


def test_the_log_gives_back_what_was_written(tmp_path):
    path = tmp_path / "run" / "measurements.jsonl"
    first, second = a_measurement(), a_measurement(path="pruned.fp32.onnx", role="pruned")
    write(path, first)
    write(path, second)
    assert load_measurements(path) == (first, second)


def test_every_block_can_be_read_before_the_log_is_closed(tmp_path):
    path, one = tmp_path / "m.jsonl", a_measurement()
    with MeasurementLog(path) as log:
        key = log.begin(one)
        log.append(key, one.blocks[0], 9)
        (found,) = load_measurements(path)
        assert found.blocks == one.blocks[:1]
        assert found.peak_rss_bytes == 9


def test_a_torn_last_line_costs_one_block_and_the_log_can_be_continued(tmp_path):
    path, one = tmp_path / "m.jsonl", a_measurement()
    write(path, one)
    path.write_bytes(path.read_bytes()[:-20])
    assert load_measurements(path) == (replace(one, blocks=one.blocks[:-1]),)
    other = a_measurement(role="pruned")
    write(path, other)
    assert load_measurements(path) == (replace(one, blocks=one.blocks[:-1]), other)


def test_the_energy_that_comes_after_the_blocks_is_read_with_them(tmp_path):
    path, one = tmp_path / "m.jsonl", a_measurement()
    with MeasurementLog(path) as log:
        key = log.begin(one)
        for block in one.blocks:
            log.append(key, block, one.peak_rss_bytes)
        log.energy(key, {"unavailable": "no sensor"})
    assert load_measurements(path) == (replace(one, energy={"unavailable": "no sensor"}),)


def test_a_measurement_without_blocks_is_not_read(tmp_path):
    write(tmp_path / "m.jsonl", a_measurement(blocks=()))
    assert load_measurements(tmp_path / "m.jsonl") == ()


def test_a_damaged_line_is_named(tmp_path):
    path = tmp_path / "m.jsonl"
    write(path, a_measurement())
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:3], "{oops", *lines[3:]]) + "\n")
    with pytest.raises(EdgepruneError, match=r"m\.jsonl:4"):
        load_measurements(path)


def test_a_log_that_cannot_be_written_is_a_users_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError), MeasurementLog(tmp_path / "file" / "m.jsonl"):
        pass


def test_several_logs_of_one_file_lose_nothing_of_each_other(tmp_path):
    path, each = tmp_path / "m.jsonl", 20

    def write(name: str) -> None:
        for _ in range(each):
            with MeasurementLog(path) as log:  # opening removes a torn line: never one that is being written
                log.append(log.begin(a_measurement(session=name)), a_measurement(session=name).blocks[0], 1)

    threads = [threading.Thread(target=write, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = load_measurements(path)
    assert sorted(one.session for one in found) == sorted("abcd" * each)
    assert all(len(one.blocks) == 1 for one in found)
