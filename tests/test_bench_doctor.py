"""What `edgeprune doctor` says of a device, and what to do about it."""

from __future__ import annotations

import json

from program_runs import run_here
from test_bench_session import START, Scripted

from edgeprune.bench import transport
from edgeprune.bench.doctor import examine
from edgeprune.errors import DeviceError

HEALTHY = {
    "cores": 4,
    "model": "Raspberry Pi 4 Model B Rev 1.4",
    "governor": "performance",
    "at_start": {"temperature_c": 45.0, "throttled": 0, "load_average": 0.1, "memory_available_bytes": 3e9},
    "power": {"unavailable": "Raspberry Pi 4 Model B has no sensor of its current"},
}
METERED = {**HEALTHY, "power": {"source": "pmic_adc"}}
METERED["at_start"] = {**HEALTHY["at_start"], "memory_pressure": 0.0}
PROVIDERS = ["CUDAExecutionProvider", "CPUExecutionProvider"]
INSTALLED = {"numpy": "2.4.6", "onnxruntime": "1.31.1", "ai-edge-litert": "2.3.0"}


class Told(Scripted):
    """A device that answers the question about software, then runs a worker that says its facts."""

    def __init__(self, facts: dict, *, packages: dict = INSTALLED, free: float = 9e9, name: str = "local") -> None:
        super().__init__({**START, "device": facts}, {"event": "end"}, name=name)
        self._software = json.dumps(
            {"python": "3.11.2", "packages": packages, "free_bytes": free, "providers": PROVIDERS}
        )

    def run(self, argv):
        if "-c" in argv:
            yield self._software
        else:
            yield from super().run(argv)


def found(device: Told) -> dict:
    return {one.what: one for one in examine(device)}


def test_of_a_healthy_board_there_is_nothing_to_do():
    rows = found(Told(METERED))
    assert {row.state for name, row in rows.items() if name != "clocks"} == {"ok"}
    assert (rows["temperature"].value, rows["throttle bits"].value) == ("45 C", "0x0")


def test_it_says_on_what_onnxruntime_can_execute_there():
    row = found(Told(HEALTHY))["onnxruntime providers"]
    assert (row.state, row.value) == ("ok", "CUDAExecutionProvider, CPUExecutionProvider")


def test_a_sensor_that_does_not_answer_is_missing_and_not_made_up():
    row = found(Told(HEALTHY))["clocks"]
    assert (row.state, row.value) == ("missing", "no answer")


def test_a_board_without_a_meter_says_why():
    row = found(Told(HEALTHY))["power"]
    assert (row.state, row.fix) == ("missing", "Raspberry Pi 4 Model B has no sensor of its current")


def test_a_board_that_waits_for_memory_is_warned_of():
    rows = found(Told({**HEALTHY, "at_start": {"memory_pressure": 12.5}}))
    assert (rows["memory pressure"].state, rows["memory pressure"].value) == ("warning", "12 %")


def test_each_trouble_has_its_remedy():
    now = {"temperature_c": 75.0, "throttled": 0x50005, "load_average": 3.0}
    rows = found(
        Told({**HEALTHY, "governor": "ondemand", "at_start": now, "emulated": True, "emulated_by": "qemu"}, free=1e8)
    )
    troubled = {name for name, row in rows.items() if row.state == "warning"}
    assert troubled == {"governor", "temperature", "throttle bits", "load", "emulated", "free disk"}
    assert "power supply" in rows["throttle bits"].fix
    assert all(rows[name].fix for name in troubled)


def test_a_missing_runtime_says_how_to_get_it_here_and_there():
    assert found(Told(HEALTHY, packages={}))["litert"].fix == "pip install 'edgeprune[tflite]'"
    there = found(Told(HEALTHY, packages={}, name="ssh://pi@board"))["onnxruntime"]
    assert (there.state, there.fix) == ("missing", "edgeprune bench --setup --device ssh://pi@board")


def test_doctor_looks_at_this_machine():
    document = json.loads(run_here("doctor", "--json").out)
    rows = {row["what"]: row for row in document["devices"]["local"]}
    assert rows["onnxruntime"]["state"] == "ok"
    assert rows["python"]["value"].startswith("3.")
    table = run_here("doctor").out
    assert all(what in table for what in ("governor", "free disk", "load"))


def test_of_several_devices_one_that_cannot_be_reached_does_not_hide_the_others(monkeypatch):
    def opened(name: str) -> Told:
        if "dead" in name:
            raise DeviceError("does not answer", where=name)
        return Told(HEALTHY, name=name)

    monkeypatch.setattr(transport, "open_device", opened)
    ran = run_here("doctor", "--device", "ssh://dead", "--device", "ssh://pi@board", "--json")
    assert (ran.code, "does not answer" in ran.err) == (3, True)
    assert list(json.loads(ran.out)["devices"]) == ["ssh://pi@board"]
