"""The bench command and its neighbours: what is measured, printed, kept, and which exit code it ends with."""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import jsonschema
import numpy as np
import pytest
from program_runs import run_here
from report_samples import FULL
from ssh_server import SSHD, SshServer
from test_bench_session import an_artifact

import edgeprune.benching as benching
from edgeprune.bench.session import INPUTS_NAME, LOG_NAME
from edgeprune.bench.trust import doubts
from edgeprune.benched import JSON_SCHEMA_FILE as BENCH_JSON_SCHEMA
from edgeprune.benching import bench
from edgeprune.errors import DataError, DeviceError, EdgepruneError, UsageError
from edgeprune.files import sha256_of
from edgeprune.material import open_run
from edgeprune.measurement import Block, Measurement, MeasurementLog, load_measurements
from edgeprune.order import Order
from edgeprune.report.document import SCHEMA_FILE, Report

PI = {"model": "Raspberry Pi 4 Model B Rev 1.4", "cpu": "Cortex-A72", "cores": 4, "machine": "aarch64"}
MS = {"baseline": 20.0, "pruned": 15.0}


class Pretended:
    """Stands for `measure`: times we choose, logged as real ones are; the device is a stand-in too."""

    def __init__(self, **facts) -> None:
        self.facts, self.sensors, self.calls, self.ms = facts or dict(PI), {}, [], dict(MS)
        self.by_device, self.energy = False, {}

    def __call__(self, artifacts, run, images, threads, *, transport, rounds, **settings):
        asked = {"seconds": settings["seconds"]} if "seconds" in settings else {}
        self.calls.append(SimpleNamespace(images=images, threads=threads, rounds=rounds, **asked))
        rng, found = np.random.default_rng(len(self.calls)), []
        facts = {**self.facts, "asked": transport.name} if self.by_device else self.facts
        session = f"session {len(self.calls)} {transport.name}"
        with MeasurementLog(run / LOG_NAME) as log:
            for count in threads:
                for artifact in artifacts:
                    one = self.measurement(artifact, count, rounds, rng, session)
                    one = replace(one, device=facts, sustained=bool(settings.get("sustained_s")))
                    key = log.begin(one)
                    for block in one.blocks:
                        log.append(key, block, one.peak_rss_bytes)
                    if settings.get("energy"):
                        one = replace(one, energy=self.energy)
                        log.energy(key, self.energy)
                    found.append(one)
        return tuple(found)

    def measurement(self, artifact, threads, rounds, rng, session) -> Measurement:
        times = self.ms[artifact.role] * 1e6 * np.exp(0.01 * rng.standard_normal((rounds, 3)))
        return Measurement(
            artifact=artifact.sha256,
            path=artifact.path,
            role=artifact.role,
            format=artifact.format,
            precision=artifact.precision,
            runtime=artifact.runtime,
            runtime_version="1",
            threads=threads,
            blocks=tuple(Block(at, 0, tuple(map(int, row)), self.sensors, 4.0 * at) for at, row in enumerate(times)),
            load_ns=1,
            first_ns=1,
            peak_rss_bytes=1,
            device=self.facts,
            session=session,
        )


class Pretend:
    def __init__(self, name: str) -> None:
        self.name = self.machine = name

    def __enter__(self):
        return self

    def __exit__(self, *_) -> None:
        pass


@pytest.fixture
def board(monkeypatch) -> Pretended:
    """A board that measures what it is told to; nothing runs."""
    pretended = Pretended()
    monkeypatch.setattr(benching, "measure", pretended)
    monkeypatch.setattr(benching, "open_device", Pretend)
    return pretended


@pytest.fixture
def run(tmp_path) -> Path:
    """A finished run with two ONNX files and the images they were timed with."""
    folder = tmp_path / "run"
    folder.mkdir()
    pair = (
        an_artifact(folder, "baseline-fp32.onnx", channels=16),
        an_artifact(folder, "pruned-fp32.onnx", role="pruned", channels=8),
    )
    replace(FULL, artifacts=pair, measurements=(), comparisons=(), devices=()).save(folder)
    np.save(folder / INPUTS_NAME, np.ones((2, 3, 32, 32), np.float32))
    return folder


def test_a_run_is_measured_with_its_own_images_and_its_report_written_anew(run, board):
    done = bench(Order((run,), devices=("ssh://pi@board",), threads=(1, 4)))
    assert (board.calls[0].images == 1).all()
    assert [(one.path, one.threads) for one in done.measurements] == [
        ("baseline-fp32.onnx", 1),
        ("pruned-fp32.onnx", 1),
        ("baseline-fp32.onnx", 4),
        ("pruned-fp32.onnx", 4),
    ]
    report = Report.load(run / "report.json")
    assert report == done.report
    assert [(row.device, row.verdict) for row in report.comparisons] == [(report.devices[0].name, "faster")] * 2
    assert report.devices[0].is_target
    assert "Raspberry Pi 4 Model B Rev 1.4" in (run / "report.html").read_text()
    assert len(load_measurements(run / LOG_NAME)) == 4


def test_times_of_another_machine_stand_beside_the_old_ones_and_of_the_same_replace_them(run, board):
    bench(Order((run,), threads=(1,)))
    board.facts = {"cpu": "AMD EPYC", "cores": 2, "machine": "x86_64"}
    bench(Order((run,), threads=(1,)))
    board.ms["pruned"] = 10.0
    report = bench(Order((run,), threads=(1,))).report
    assert report
    assert [device.name.split(",")[0] for device in report.devices] == ["Raspberry Pi 4 Model B Rev 1.4", "AMD EPYC"]
    assert [round(row.ratio, 1) for row in report.comparisons] == [1.3, 2.0]
    assert len(load_measurements(run / LOG_NAME)) == 6
    text = (run / "report.md").read_text()
    assert "device" in text
    assert text.count("Timed again at") == 1


def test_without_images_the_files_are_fed_noise(run, board):
    (run / INPUTS_NAME).unlink()
    bench(Order((run,), threads=(1,)))
    assert board.calls[0].images.shape == (8, 3, 32, 32)
    assert 0.9 < board.calls[0].images.std() < 1.1


@pytest.mark.parametrize("content", [b"", b"junk", b"\x93NUMPY\x01\x00"])
def test_torn_images_are_a_users_error(run, board, content):
    (run / INPUTS_NAME).write_bytes(content)
    with pytest.raises(DataError, match="not the images of a run"):
        bench(Order((run,)))


def test_a_file_that_has_changed_since_the_run_is_not_measured(run, board):
    (run / "pruned-fp32.onnx").write_bytes(b"other")
    with pytest.raises(UsageError, match="not the file of the run any more"):
        bench(Order((run,)))


def test_only_the_runtimes_asked_for_are_measured(run):
    with pytest.raises(UsageError, match="no such files"):
        open_run(run, ("litert",))


def test_minutes_are_the_devices_time(run, board):
    bench(Order((run,), threads=(1,), minutes=0.5))
    bench(Order((run,), threads=(1,)))
    assert [call.seconds for call in board.calls] == [30.0, 0.0]


def test_single_files_leave_nothing_behind_unless_asked(tmp_path, board):
    one, two = (an_artifact(tmp_path, name) for name in ("a.onnx", "b.onnx"))
    files = (tmp_path / one.path, tmp_path / two.path)
    done = bench(Order(files, threads=(1,)))
    assert [(Path(m.path).name, m.role) for m in done.measurements] == [("a.onnx", "baseline"), ("b.onnx", "pruned")]
    assert done.comparisons[0].verdict == "faster"
    assert done.report is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.onnx", "b.onnx"]
    bench(Order(files, threads=(1,), out=tmp_path / "kept"))
    assert len(load_measurements(tmp_path / "kept" / LOG_NAME)) == 2
    assert {path.name for path in (tmp_path / "kept").iterdir()} == {LOG_NAME, "bench.json", "bench.md", "bench.html"}
    told = json.loads((tmp_path / "kept" / "bench.json").read_text())
    assert [row["artifact"] for row in told["measurements"]] == ["a.onnx", "b.onnx"]
    assert told["comparisons"][0]["verdict"] == "faster"


def test_a_report_of_emulated_times_shows_none(tmp_path, board):
    board.facts["emulated"] = True
    one = an_artifact(tmp_path, "a.onnx")
    bench(Order((tmp_path / one.path,), threads=(1,), out=tmp_path / "kept"))
    told = json.loads((tmp_path / "kept" / "bench.json").read_text())
    assert (told["measurements"], told["comparisons"], told["devices"]) == ([], [], [])
    assert told["warnings"][0].startswith("EMULATED: the files work on Raspberry Pi 4")
    page = (tmp_path / "kept" / "bench.html").read_text()
    assert "Spread of the times" not in page
    assert not re.search(r"\d ms\b", page)


def test_sustained_load_heats_the_board_for_one_setting_and_stands_beside_the_other_times(run, board):
    bench(Order((run,), threads=(1,)))
    done = bench(Order((run,), sustained_s=60.0, gate=1.2))
    assert len(board.calls[1].threads) == 1
    assert done.comparisons == ()
    assert done.gate_met
    assert not replace(done, gate=1.5).gate_met
    report = Report.load(run / "report.json")
    assert [one.verdict for one in report.comparisons] == ["faster"]
    (one,) = report.sustained
    assert [file.artifact for file in one.files] == ["baseline-fp32.onnx", "pruned-fp32.onnx"]
    assert one.device == report.devices[0].name
    assert "Under load for 1 min 00 s" in (run / "report.md").read_text()
    bench(Order((run,), sustained_s=60.0))
    assert len(Report.load(run / "report.json").sustained) == 1, "measured again, it replaces what was there"


def test_sustained_load_is_printed_by_minute(run, board):
    said = run_here("bench", str(run), "--sustained", "1m")
    assert said.code == 0
    assert "Under load for 1 min 00 s" in said.out
    assert "minute" in said.out
    document = json.loads(run_here("bench", str(run), "--sustained", "60s", "--json").out)
    assert document["devices"][0]["sustained"][0]["files"][1]["speed_up"]["ratio"] == pytest.approx(1.33, abs=0.02)


def test_sustained_load_of_an_emulated_board_shows_no_time(run, board):
    board.facts["emulated"] = True
    said = run_here("bench", str(run), "--sustained", "1m", "--json")
    assert said.code == 4
    assert json.loads(said.out)["devices"][0]["sustained"] == []
    assert Report.load(run / "report.json").sustained == ()


@pytest.mark.parametrize(
    "options",
    [
        ("--sustained", "10"),
        ("--sustained", "5s"),
        ("--sustained", "ten minutes"),
        ("--sustained", "1m", "--blocks", "16"),
        ("--sustained", "1m", "--minutes", "2"),
        ("--sustained", "1m", "--threads", "1,4"),
        ("--sustained", "1m", "--energy"),
    ],
)
def test_what_makes_no_sense_with_sustained_load_is_refused(run, options):
    assert run_here("bench", str(run), *options).code == 2


METERED = {
    "source": "ina3221:VDD_IN",
    "covers": "the whole board",
    "idle_w": 2.0,
    "load_w": 5.0,
    "calls": 100,
    "readings": 50,
    "joules": 0.1,
    "joules_above_idle": 0.06,
}


@pytest.mark.parametrize(
    ("told", "printed"),
    [
        (METERED, "Energy: Measured by ina3221:VDD_IN: the whole board."),
        ({"unavailable": "no sensor"}, "Energy: Unavailable: no sensor."),
    ],
)
def test_energy_is_told_with_its_source_or_why_there_is_none(run, board, told, printed):
    board.energy = told
    said = run_here("bench", str(run), "--energy", "--threads", "1")
    assert printed in said.out
    assert ("60.0" in said.out) == ("source" in told)
    report = Report.load(run / "report.json")
    assert report.measurements[0].energy.unavailable == told.get("unavailable", "")
    assert report.measurements[0].energy.joules == told.get("joules")
    assert printed.removeprefix("Energy: ") in (run / "report.md").read_text()
    assert ">Energy<" in (run / "report.html").read_text()


def test_what_was_not_asked_for_is_not_told(run, board):
    assert "Energy" not in run_here("bench", str(run), "--threads", "1").out
    assert Report.load(run / "report.json").measurements[0].energy is None


def test_what_is_no_model_file_is_named(tmp_path):
    (tmp_path / "junk.onnx").write_bytes(b"junk")
    for path, words in (
        (tmp_path / "junk.onnx", "not a model file"),
        (tmp_path / "gone.onnx", "no such file"),
        (tmp_path / "photo.jpg", "neither a run nor a model file"),
    ):
        with pytest.raises(UsageError, match=words):
            bench(Order((path,)))


def test_files_of_other_inputs_do_not_go_together(tmp_path):
    import onnx
    from onnx import TensorProto, helper

    an_artifact(tmp_path, "a.onnx")
    source = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])
    sink = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3, 8, 8])
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "net", [source], [sink])
    onnx.save(helper.make_model(graph), tmp_path / "small.onnx")
    with pytest.raises(UsageError, match=r"\[3, 8, 8\], not onnx with \[3, 32, 32\]"):
        bench(Order((tmp_path / "a.onnx", tmp_path / "small.onnx")))


@pytest.mark.parametrize(
    "order",
    [
        Order(()),
        Order((Path("x"),), runtimes=("torch",)),
        Order((Path("x"),), rounds=5),
        Order((Path("x"),), rounds=16, minutes=1.0),
        Order((Path("x"),), minutes=0.0),
        Order((Path("x"),), gate=float("nan")),
        Order((Path("x"),), threads=(0,)),
    ],
)
def test_what_cannot_be_done_is_refused_at_once(order):
    with pytest.raises(UsageError):
        order.check()


def test_the_gate_is_the_lower_end_of_every_interval(run, board):
    low = bench(Order((run,), threads=(1,))).comparisons[0].ci95[0]
    assert bench(Order((run,), threads=(1,), gate=1.25)).gate_met
    assert not bench(Order((run,), threads=(1,), gate=1.34)).gate_met
    assert 1.25 < low < 1.34


# the command line


def test_bench_prints_a_table_with_the_trust_of_the_device(run, board):
    ran = run_here("bench", str(run), "--threads", "1")
    assert (ran.code, ran.out.splitlines()[0]) == (
        0,
        "local (Raspberry Pi 4 Model B Rev 1.4, 4 cores)  trust: OK",
    )
    assert "faster" in ran.out
    assert "reference" in ran.out


def test_bench_prints_one_json_document(run, board):
    document = json.loads(run_here("bench", str(run), "--threads", "1", "--gate", "1.2", "--json").out)
    (device,) = document["devices"]
    assert (document["schema"], device["trust"], document["gate"]) == (1, "ok", {"asked": 1.2, "met": True})
    base, cut = device["rows"]
    assert (base["reference"], base["speed_up"], cut["speed_up"]["verdict"]) == (True, None, "faster")
    assert cut["speed_up"]["ci95"][0] < cut["speed_up"]["ratio"] < cut["speed_up"]["ci95"][1]
    assert cut["speed_up"]["detectable"] > 0


def test_a_missed_gate_is_exit_1_and_says_so(run, board):
    ran = run_here("bench", str(run), "--threads", "1", "--gate", "1.5")
    assert ran.code == 1
    assert "gate missed" in ran.err
    assert "gate 1.5x: not met" in ran.out


def test_times_not_to_trust_are_exit_4_with_what_to_do(run, board):
    board.sensors = {"throttled": 0x4}
    ran = run_here("bench", str(run), "--threads", "1", "--gate", "1.2")
    assert ran.code == 4
    assert "THROTTLED: 16 of 16 blocks" in ran.err
    assert "Cool the board" in ran.err
    assert "trust: THROTTLED" in ran.out


def test_an_emulated_board_shows_no_time_at_all(run, board):
    board.facts = {**PI, "emulated": True}
    ran = run_here("bench", str(run), "--threads", "1")
    assert ran.code == 4
    assert "functional" in ran.out
    assert not [line for line in ran.out.splitlines() if "20.0" in line or "15.0" in line or "1x" in line]
    document = json.loads(run_here("bench", str(run), "--threads", "1", "--json").out)
    assert all("p50_ms" not in row and row["functional"] for row in document["devices"][0]["rows"])
    assert Report.load(run / "report.json").measurements == ()


def test_threads_that_are_no_numbers_are_exit_2(run):
    ran = run_here("bench", str(run), "--threads", "all")
    assert (ran.code, "For example: --threads 1,4" in ran.err) == (2, True)


def test_setting_a_board_up_is_asked_for_and_needs_no_files(monkeypatch):
    setup = pytest.importorskip("edgeprune.bench.setup")
    asked = []
    monkeypatch.setattr(setup, "set_up", lambda device, runtimes, **_: asked.append((device, *runtimes)))
    monkeypatch.setattr(setup, "clean", lambda device: asked.append(("clean", device)))
    assert run_here("bench", "--setup", "--clean", "--device", "ssh://pi@board", "--runtime", "litert").code == 0
    assert asked == [("ssh://pi@board", "litert"), ("clean", "ssh://pi@board")]


def test_the_wheels_for_a_board_may_be_those_of_a_bundle(monkeypatch, tmp_path):
    setup = pytest.importorskip("edgeprune.bench.setup")
    asked = []
    monkeypatch.setattr(setup, "set_up", lambda device, runtimes, source, **_: asked.append(source))
    (tmp_path / "tiny-1.0-py3-none-any.whl").touch()
    words = ("bench", "--device", "ssh://pi@board", "--wheels", str(tmp_path))
    assert run_here(*words, "--setup").code == 0
    assert asked == [tmp_path]
    ran = run_here(*words, "--clean")
    assert (ran.code, "--wheels says what --setup puts on the board" in ran.err) == (2, True)


def stored(tmp_path, name: str, pretended: Pretended) -> Path:
    folder = tmp_path / name
    folder.mkdir()
    files = (an_artifact(folder, "baseline.onnx"), an_artifact(folder, "pruned.onnx", role="pruned"))
    pretended(files, folder, None, (1,), transport=Pretend("local"), rounds=16)
    return folder


def test_stored_runs_are_compared_file_by_file(tmp_path):
    pretended = Pretended()
    first = stored(tmp_path, "first", pretended)
    pretended.ms["pruned"] = 12.0
    second = stored(tmp_path, "second", pretended)
    rows = json.loads(run_here("compare", str(first), str(second / LOG_NAME), "--json").out)["comparisons"]
    assert [(row["role"], row["verdict"]) for row in rows] == [
        ("baseline", "no significant difference"),
        ("pruned", "faster"),
    ]
    assert rows[1]["ratio"] == pytest.approx(1.25, rel=0.01)
    assert "faster" in run_here("compare", str(first), str(second)).out


def test_runs_under_different_conditions_are_not_compared_unless_asked_and_then_marked(tmp_path):
    pretended = Pretended()
    first = stored(tmp_path, "first", pretended)
    pretended.facts = {**PI, "governor": "ondemand"}
    second = stored(tmp_path, "second", pretended)
    ran = run_here("compare", str(first), str(second))
    assert ran.code == 2
    assert "governor None against 'ondemand'" in ran.err
    ran = run_here("compare", str(first), str(second), "--allow-mixed")
    assert ran.code == 0
    assert "(MIXED)" in ran.out
    assert "governor None against 'ondemand'" in ran.out


def test_runs_without_anything_in_common_are_exit_2(tmp_path):
    pretended = Pretended()
    first, second = (stored(tmp_path, name, pretended) for name in ("first", "second"))
    lines = [json.loads(line) for line in (second / LOG_NAME).read_text().splitlines()]
    text = "".join(json.dumps(line | ({"threads": 4} if "threads" in line else {})) + "\n" for line in lines)
    (second / LOG_NAME).write_text(text)
    ran = run_here("compare", str(first), str(second))
    assert ran.code == 2
    assert "onnxruntime with 1 threads against onnxruntime with 4 threads" in ran.err


def test_emulated_runs_are_not_compared(tmp_path):
    pretended = Pretended(**PI, emulated=True)
    first, second = (stored(tmp_path, name, pretended) for name in ("first", "second"))
    ran = run_here("compare", str(first), str(second))
    assert (ran.code, "emulated" in ran.err) == (2, True)


def test_model_files_are_compared_by_measuring_them(tmp_path, board):
    for name in ("a.onnx", "b.onnx"):
        an_artifact(tmp_path, name)
    ran = run_here("compare", str(tmp_path / "a.onnx"), str(tmp_path / "b.onnx"), "--threads", "1")
    assert ran.code == 0
    assert "faster" in ran.out


def test_two_real_files_are_timed_here(tmp_path):
    for name, channels in (("a.onnx", 64), ("b.onnx", 16)):
        an_artifact(tmp_path, name, channels=channels)
    files = (tmp_path / "a.onnx", tmp_path / "b.onnx")
    done = bench(Order(files, threads=(1,), rounds=6))
    # How many of so few blocks are clean enough to compare is up to what else this machine does.
    assert all(found.verdict == "faster" for found in done.comparisons)
    assert [one.artifact for one in done.measurements] == [sha256_of(file) for file in files]
    slow, fast = (min(block.median_ns for block in one.blocks) for one in done.measurements)
    assert fast < slow
    assert len(done.doubts) == 2
    assert done.doubts[0] == doubts(done.measurements[0])


def test_boards_that_are_alike_are_told_apart(run, board):
    board.by_device = True
    names = ("ssh://pi@one", "ssh://pi@two")
    report = bench(Order((run,), devices=names, threads=(1,))).report
    assert report
    assert {device.name.rpartition(" ")[2] for device in report.devices} == {"(ssh://pi@one)", "(ssh://pi@two)"}
    assert len({row.device for row in report.comparisons}) == 2
    again = bench(Order((run,), devices=names[1:], threads=(1,))).report
    assert again
    assert len(again.comparisons) == 2


def test_of_several_devices_one_that_fails_is_exit_3_after_the_others_are_shown(run, board, monkeypatch):
    def opened(name: str) -> Pretend:
        if "dead" in name:
            raise DeviceError("does not answer", where=name, fix="Is it on?")
        return Pretend(name)

    monkeypatch.setattr(benching, "open_device", opened)
    devices = [word for name in ("ssh://dead", "ssh://pi@board", "ssh://dead2") for word in ("--device", name)]
    ran = run_here("bench", str(run), "--threads", "1", *devices, "--json")
    assert ran.code == 3
    document = json.loads(ran.out)
    assert [device["device"] for device in document["devices"]] == ["ssh://pi@board"]
    assert [(one["device"], one["error"]) for one in document["failures"]] == [
        ("ssh://dead", "does not answer"),
        ("ssh://dead2", "does not answer"),
    ]
    assert ("where: ssh://dead\n" in ran.err, "where: ssh://dead2\n" in ran.err) == (True, True)
    assert len(Report.load(run / "report.json").comparisons) == 1


def test_an_unreachable_device_is_exit_3(run, monkeypatch):
    def refuse(_: str):
        raise DeviceError("cannot be reached", where="ssh://pi@board")

    monkeypatch.setattr(benching, "open_device", refuse)
    assert run_here("bench", str(run), "--device", "ssh://pi@board").code == 3


@pytest.fixture
def server(tmp_path, monkeypatch):
    if not Path(SSHD).exists():
        pytest.skip(f"{SSHD} is not installed")
    server = SshServer(tmp_path / "board")
    monkeypatch.setenv("PATH", f"{server.folder}/bin:{os.environ['PATH']}")
    server.start()
    yield server
    server.stop()


@pytest.mark.slow
def test_a_run_is_measured_over_ssh_and_compared_with_the_host(run, server):
    ran = run_here("bench", str(run), "--device", server.device, "--threads", "1", "--blocks", "6", "--json")
    assert ran.code in (0, 4), ran.err  # this machine may be busy
    (device,) = json.loads(ran.out)["devices"]
    assert device["device"] == server.device
    assert [row["device_parity"]["passed"] for row in device["rows"]] == [True, True]
    assert len(load_measurements(run / LOG_NAME)) == 2
    assert not list(server.cache.glob("run-*"))


@pytest.mark.slow
def test_doctor_looks_at_a_board_over_ssh(server):
    ran = run_here("doctor", "--device", server.device, "--json")
    assert ran.code == 0, ran.err
    rows = {row["what"]: row["state"] for row in json.loads(ran.out)["devices"][server.device]}
    assert (rows["python"], rows["onnxruntime"]) == ("ok", "ok")


def test_samples_of_another_version_are_told_of_before_anything_is_measured(run, board):
    (run / LOG_NAME).write_text('{"record": "measurement", "key": "1", "schema": 2}\n')
    with pytest.raises(EdgepruneError, match="move it away"):
        bench(Order((run,)))
    assert board.calls == []


@pytest.mark.parametrize(
    ("options", "changes"),
    [
        ((), {}),
        (("--gate", "1.2"), {}),
        (("--energy",), {"energy": METERED}),
        (("--energy",), {"energy": {"unavailable": "no sensor"}}),
        (("--sustained", "60s"), {}),
        ((), {"facts": {**PI, "emulated": True}}),
        (("--device", "local", "--device", "ssh://pi@board"), {}),
    ],
    ids=lambda value: " ".join(value) or "plain",
)
def test_what_bench_prints_as_json_fits_its_published_schema(run, board, options, changes):
    vars(board).update(changes)
    schema = json.loads(BENCH_JSON_SCHEMA.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    document = json.loads(run_here("bench", str(run), *options, "--json").out)
    jsonschema.Draft202012Validator(schema).validate(document)
    assert document["devices"]


def test_what_the_published_schemas_share_is_the_same():
    printed, whole = (json.loads(path.read_text()) for path in (BENCH_JSON_SCHEMA, SCHEMA_FILE))
    device = printed["properties"]["devices"]["items"]
    assert device["properties"]["sustained"] == whole["properties"]["sustained"]
    assert device["properties"]["explanations"]["items"] == whole["properties"]["explanations"]["items"]
    assert printed["$defs"].items() <= whole["$defs"].items()
