"""Power meters by documented formats, and energy by a meter we read ourselves; no hardware was at hand."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprune.worker import power, sensors
from edgeprune.worker.power import Meter

GOLDEN = sorted((Path(__file__).parent / "golden" / "sensors").glob("*.json"))
RAPL = "/sys/class/powercap/intel-rapl:0/"


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_a_board_has_the_meter_it_has_or_says_why_it_has_none(path):
    case = json.loads(path.read_text())
    found = power.meter(sensors.Recording(case["files"], case["commands"]), case["facts"].get("model", ""))
    if isinstance(found, str):
        assert case["power"] == {"unavailable": found}
    else:
        watts = found.read()
        told = {"source": found.source, "watts": None if watts is None else round(watts, 4)}
        assert case["power"] == told


def test_every_case_says_whether_it_was_recorded():
    for path in GOLDEN:
        case = json.loads(path.read_text())
        assert case["recorded"] == case["note"].startswith("Recorded"), path.stem


def counters(*readings: tuple[float, str], span: str = "1000000000") -> list[float | None]:
    """What a RAPL meter reads, from the second reading on."""
    files = {RAPL + "name": "package-0\n", RAPL + "energy_uj": readings[0][1], RAPL + "max_energy_range_uj": span}
    now = [0.0]
    meter = power.meter(sensors.Recording(files, {}), clock=lambda: now[0])
    assert isinstance(meter, Meter)
    seen = []
    for when, text in readings:
        now[0], files[RAPL + "energy_uj"] = when, text
        seen.append(meter.read())
    assert seen[0] is None
    return seen[1:]


def test_a_counter_of_energy_becomes_power():
    assert counters((0.0, "5000000"), (0.5, "10000000"), (1.0, "40000000")) == [10.0, 60.0]


def test_a_counter_that_began_again_is_read_over_its_end():
    assert counters((0.0, "999000000"), (0.1, "1000000")) == [pytest.approx(20.0)]


@pytest.mark.parametrize("torn", ["", "x", "-5", "99999999999999999999"])
def test_a_counter_that_answers_nonsense_gives_no_power(torn):
    assert counters((0.0, "5000000"), (0.5, torn), (1.0, "9000000")) == [None, None]


def test_counters_only_root_may_read_are_said_to_be_so():
    said = power.meter(sensors.Recording({RAPL + "name": "package-0\n"}, {}))
    assert said == "only root may read /sys/class/powercap/intel-rapl:0/energy_uj"


def test_rails_of_a_pmic_without_both_current_and_voltage_do_not_count():
    told = "  VDD_CORE_A current(7)=2.0A\n  VDD_CORE_V volt(15)=0.5V\n  EXT5V_V volt(24)=5.0V\n"
    assert power.watts_of_pmic(told) == pytest.approx(1.1451 * 1.0 + 0.5879)
    assert power.watts_of_pmic("VDD_CORE_V=0.5V\nVDD_CORE_A=2.0A\n") == pytest.approx(1.733)
    assert power.watts_of_pmic("EXT5V_V volt(24)=5.0V\n") is None


@given(st.text(st.sampled_from("VDD_CORE3A current(7)=0.12\n-e\x00"), max_size=200))
def test_whatever_a_pmic_says_gives_watts_or_nothing(told):
    watts = power.watts_of_pmic(told)
    assert watts is None or 0.5 < watts < 1e9


PATHS = st.sampled_from(
    [
        *(f"/sys/class/hwmon/hwmon0/{name}" for name in ("name", "in1_label", "in1_input", "curr1_input")),
        *(f"/sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0/{name}" for name in ("rail_name_0", "in_power0_input")),
        *(RAPL + name for name in ("name", "energy_uj", "max_energy_range_uj")),
    ]
)
TEXTS = st.sampled_from(["ina3221\n", "VDD_IN\n", "POM_5V_IN\n", "package-0\n", "4500\n"]) | st.text(max_size=12)


@given(st.dictionaries(PATHS, TEXTS), st.text(max_size=60), st.text(max_size=30))
def test_whatever_the_files_hold_there_is_a_meter_or_a_reason(files, told, model):
    found = power.meter(sensors.Recording(files, {"vcgencmd pmic_read_adc": told}), model)
    if isinstance(found, str):
        assert found
    else:
        found.read()
        watts = found.read()
        assert watts is None or watts >= 0


@given(st.dictionaries(st.sampled_from(["/proc/pressure/memory", "/etc/nv_tegra_release", "/proc/cpuinfo"]), st.text()))
def test_whatever_the_new_sensors_hold_is_told_or_not(files):
    reader = sensors.Recording(files, {"vcgencmd version": files.get("/proc/cpuinfo", "")})
    json.dumps(sensors.facts(reader))
    assert sensors.readings(reader).get("memory_pressure", 0.0) >= 0


@pytest.fixture
def fast(monkeypatch):
    for name, seconds in (("IDLE_SECONDS", 0.05), ("LOAD_SECONDS", 0.05), ("SETTLE_SECONDS", 0.0)):
        monkeypatch.setattr(power, name, seconds)


class Board:
    """A board that draws 2 W, and 5 W while a file runs."""

    def __init__(self, answers: bool = True) -> None:
        self.answers, self.works = answers, False

    def meter(self, *_) -> Meter:
        return Meter("a meter", "the board", 0.002, lambda: (5.0 if self.works else 2.0) if self.answers else None)

    def run(self) -> dict:
        self.works = True
        time.sleep(0.2)
        self.works = False
        return {"samples_ns": [1] * 100}


def test_the_energy_of_an_image_is_power_over_the_rate_of_images(fast, monkeypatch):
    board = Board()
    monkeypatch.setattr(power, "meter", board.meter)
    ((name, told),) = power.energies(sensors.Recording({}, {}), "", {"file": board.run})
    assert (name, told["source"], told["covers"], told["calls"]) == ("file", "a meter", "the board", 100)
    assert (told["idle_w"], told["load_w"]) == (2.0, pytest.approx(5.0, abs=0.1))
    each = told["joules"] / told["load_w"]
    assert each >= 0.002  # a fifth of a second for a hundred images, or longer where the machine is busy
    assert told["joules_above_idle"] == pytest.approx((told["load_w"] - 2.0) * each, rel=1e-3)


def test_a_meter_that_does_not_answer_is_named(fast, monkeypatch):
    board = Board(answers=False)
    monkeypatch.setattr(power, "meter", board.meter)
    assert dict(power.energies(sensors.Recording({}, {}), "", {"file": board.run})) == {
        "file": {"unavailable": "a meter does not answer"}
    }


def test_without_a_meter_nothing_is_run(monkeypatch):
    runs = {"file": lambda: pytest.fail("ran")}
    said = dict(power.energies(sensors.Recording({}, {}), "Raspberry Pi 4 Model B Rev 1.4", runs))
    assert said["file"]["unavailable"].startswith("Raspberry Pi 4 Model B has no sensor of its current")
