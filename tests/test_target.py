"""Board files: what ships is complete and sourced, what a user writes is checked key by key."""

from __future__ import annotations

import dataclasses
import json
import tomllib
from pathlib import Path

import pytest

from edgeprune.errors import UsageError
from edgeprune.target import Fact, known_targets, load_target

README = Path(__file__).parent.parent / "devices" / "README.md"
EXAMPLE = README.read_text(encoding="utf-8").split("```toml\n")[1].split("```")[0]
BOARDS = ["host", "jetson-nano", "jetson-orin-nano", "rpi3", "rpi4", "rpi5"]


def write(folder: Path, text: str) -> str:
    path = folder / "board.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def changed(old: str, new: str) -> str:
    assert old in EXAMPLE
    return EXAMPLE.replace(old, new)


def test_the_promised_boards_ship():
    assert sorted(known_targets()) == BOARDS


@pytest.mark.parametrize("name", BOARDS)
def test_a_shipped_board_loads_and_is_a_json_document(name):
    target = load_target(name)
    assert target.name == name
    assert target.threads[0] == 1
    assert target.threads[-1] <= target.cores
    assert target.channel_multiple == 8
    assert target.warnings
    document = json.loads(json.dumps(target.to_json(), allow_nan=False))
    assert document["threads"] == list(target.threads)
    assert set(document) == {field.name for field in dataclasses.fields(target)}


@pytest.mark.parametrize("name", [name for name in BOARDS if name != "host"])
def test_a_shipped_board_has_facts_and_its_derived_peak_is_right(name):
    target = load_target(name)
    facts = target.facts
    assert {"cpu", "clock_ghz", "cache", "isa", "memory", "gpu", "peak_fp32_gflops"} <= set(facts)
    derivation = facts["peak_fp32_gflops"].source
    assert derivation.startswith("derived: cores x GHz x FLOP per cycle = ")
    cores, clock, flop = (float(part) for part in derivation.rpartition("= ")[2].split(" x "))
    assert (cores, clock) == (target.cores, facts["clock_ghz"].value)
    assert flop == (16 if "dotprod, fp16" in str(facts["isa"].value) else 8)
    assert facts["peak_fp32_gflops"].value == pytest.approx(cores * clock * flop, rel=2e-3)


def test_every_fact_names_a_public_source():
    for name in known_targets():
        for fact in load_target(name).facts.values():
            assert len(fact.source) > 8
            assert ".md" not in fact.source.replace("benchmark/README.md", "")


def test_rpi4_warns_of_what_it_lacks():
    warnings = " ".join(load_target("rpi4").warnings)
    for word in ("dot-product", "power sensor", "cooling", "emulation"):
        assert word in warnings
    assert "power" not in load_target("rpi4").sensors


def test_jetson_nano_says_that_its_gpu_has_no_int8():
    target = load_target("jetson-nano")
    assert any("no int8" in warning for warning in target.warnings)
    assert "int8" not in target.precisions


def test_boards_of_tensorrt_want_int8_with_zero_in_the_middle():
    symmetric = {name for name in known_targets() if load_target(name).int8_symmetric}
    assert symmetric == {"jetson-nano", "jetson-orin-nano"}


def test_host_is_filled_in_from_this_machine():
    target = load_target("host")
    assert target.arch not in ("host", "")
    assert target.cores >= 1
    assert max(target.threads) <= 4
    assert target.container_platform.startswith("linux/")


def test_the_host_file_may_not_name_what_is_filled_in(tmp_path):
    with pytest.raises(UsageError, match="container_platform, cores, threads: filled in"):
        load_target(write(tmp_path, changed('arch = "aarch64"', 'arch = "host"')))


def test_the_example_in_the_readme_is_a_valid_board(tmp_path):
    target = load_target(write(tmp_path, EXAMPLE))
    assert target.name == "my-board"
    assert target.memory_bytes == 2 << 30
    assert target.onnx_opset == 17
    assert target.facts["clock_ghz"] == Fact(1.8, "data sheet, section 2")


def test_the_readme_explains_every_key_and_lists_every_board():
    text = README.read_text(encoding="utf-8")
    for key in tomllib.loads(EXAMPLE):
        assert f"| `{key}` |" in text
    for name in known_targets():
        assert f"| `{name}` |" in text


def test_a_target_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        load_target("rpi4").cores = 8  # type: ignore[misc]


def test_memory_and_facts_may_be_left_out(tmp_path):
    text = EXAMPLE.replace("memory_bytes = 2147483648\nonnx_opset = 17\nint8_symmetric = false\n", "")
    target = load_target(write(tmp_path, text.partition("[facts]")[0]))
    assert (target.memory_bytes, target.onnx_opset, target.int8_symmetric) == (None, None, False)
    assert target.facts == {}


def test_an_unknown_name_suggests_the_nearest():
    with pytest.raises(UsageError, match="unknown target 'rpi44'\nDid you mean 'rpi4'"):
        load_target("rpi44")


@pytest.mark.parametrize("name", ["", "..", "RPI4"])
def test_odd_names_are_unknown_names(name):
    with pytest.raises(UsageError, match="unknown target"):
        load_target(name)


def test_a_missing_file_says_what_there_is(tmp_path):
    with pytest.raises(UsageError, match="cannot read the target: No such file") as caught:
        load_target(str(tmp_path / "none.toml"))
    assert "none.toml" in caught.value.where
    assert "rpi4" in caught.value.fix


def test_a_folder_is_not_a_board(tmp_path):
    with pytest.raises(UsageError, match="cannot read the target"):
        load_target(f"{tmp_path}/")


@pytest.mark.parametrize("content", [b"name = ", b"\xff\xfe\x00", b"a = 1\na = 2\n"])
def test_broken_toml_names_the_file(tmp_path, content):
    path = tmp_path / "board.toml"
    path.write_bytes(content)
    with pytest.raises(UsageError, match="not TOML") as caught:
        load_target(str(path))
    assert caught.value.where == str(path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("cores = 4", "core = 4", "unknown key 'core'. Did you mean 'cores'"),
        ("cores = 4\n", "", "cores: missing, wanted a whole number above 0"),
        ("cores = 4", "cores = 0", "cores: wanted a whole number above 0, is 0"),
        ("cores = 4", "cores = true", "cores: wanted a whole number above 0, is True"),
        ("cores = 4", "cores = 4.0", "cores: wanted a whole number above 0, is 4.0"),
        ("channel_multiple = 8", 'channel_multiple = "8"', "channel_multiple: wanted"),
        ("channel_multiple = 8", "channel_multiple = -8", "channel_multiple: wanted"),
        ("threads = [1, 4]", "threads = []", "threads: wanted a list of whole numbers"),
        ("threads = [1, 4]", "threads = 4", "threads: wanted a list of whole numbers"),
        ("threads = [1, 4]", "threads = [4, 1]", "threads: must ascend"),
        ("threads = [1, 4]", "threads = [1, 8]", "not exceed the 4 cores"),
        ('formats = ["onnx", "tflite"]', "formats = []", "formats: wanted a list of at least one text"),
        ('formats = ["onnx", "tflite"]', 'formats = "onnx"', "formats: wanted a list"),
        ('precisions = ["fp32", "int8"]', 'precisions = ["fp23"]', "precisions: 'fp23' is not one of"),
        ('title = "My board"', 'title = " "', "title: wanted a text"),
        ('name = "my-board"', 'name = "../../evil"', "name: '../../evil' becomes part of a folder's name"),
        ("memory_bytes = 2147483648", 'memory_bytes = "2 GB"', "memory_bytes: wanted"),
        ("onnx_opset = 17", "onnx_opset = 12", "onnx_opset: wanted a whole number, 13 or more"),
        ("int8_symmetric = false", 'int8_symmetric = "no"', "int8_symmetric: wanted true or false, is 'no'"),
        ("value = 1.8, ", "", "facts.clock_ghz: wanted a table with exactly"),
        ("value = 1.8", "value = nan", "facts.clock_ghz.value: wanted a text or a finite number"),
        ("value = 1.8", "value = true", "facts.clock_ghz.value: wanted"),
        ('value = 1.8, source = "data sheet, section 2"', 'value = 1.8, source = ""', "facts.clock_ghz.source: wanted"),
    ],
)
def test_a_wrong_key_is_named_with_its_file(tmp_path, old, new, message):
    path = write(tmp_path, changed(old, new))
    with pytest.raises(UsageError) as caught:
        load_target(path)
    assert message in caught.value.what
    assert caught.value.where == path
    assert caught.value.exit_code == 2
