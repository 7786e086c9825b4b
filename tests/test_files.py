"""Files are whole or absent, and what goes wrong is told with its path."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprune.errors import EdgepruneError, OutputError
from edgeprune.files import (
    output_error,
    plain_name,
    read_json,
    sha256_of,
    sha256_of_json,
    write_json,
    write_text,
    writing,
)


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("resnet-18_v1.5", "resnet-18_v1.5"),
        ("ssh://pi@raspberrypi.local:22", "ssh-pi-raspberrypi.local-22"),
        ("zähler 2/3", "z-hler-2-3"),
        ("", ""),
    ],
)
def test_a_name_has_no_signs_that_a_file_system_or_a_shell_minds(text: str, name: str) -> None:
    assert plain_name(text) == name


def test_a_file_appears_when_the_block_ends_and_not_before(tmp_path):
    path = tmp_path / "a.txt"
    with writing(path) as temporary:
        temporary.write_text("whole")
        assert not path.exists()
        assert temporary.parent == path.parent  # a rename across file systems would not be atomic
    assert path.read_text() == "whole"
    assert names(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("fault", [RuntimeError, KeyboardInterrupt, ValueError])
def test_a_block_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, fault):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def torn() -> None:
        with writing(path) as temporary:
            temporary.write_text("half")
            raise fault

    with pytest.raises(fault):
        torn()
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_missing_folders_are_made(tmp_path):
    write_text(tmp_path / "a" / "b" / "c.txt", "x")
    assert (tmp_path / "a" / "b" / "c.txt").read_text() == "x"


def test_a_folder_that_is_a_file_is_told_with_the_path(tmp_path):
    (tmp_path / "a").write_text("")
    with pytest.raises(OutputError) as caught:
        write_text(tmp_path / "a" / "b.txt", "x")
    assert "b.txt" in caught.value.where
    assert "--out" in caught.value.fix


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write everywhere")
def test_a_folder_that_may_not_be_written_is_told(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="cannot write: Permission denied"):
        write_text(tmp_path / "a.txt", "x")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_is_called_so(tmp_path):
    def fill() -> None:
        with writing(tmp_path / "a.txt"), Path("/dev/full").open("w") as full:
            full.write("x")

    with pytest.raises(OutputError, match="the disk is full"):
        fill()
    assert names(tmp_path) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_quotas_and_file_limits_count_as_a_full_disk(tmp_path, number):
    assert output_error(OSError(number, "x"), tmp_path).what == "the disk is full"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), json_values))
def test_documents_are_read_as_written(tmp_path_factory, document):
    path = tmp_path_factory.mktemp("json") / "a.json"
    document["schema"] = 3
    write_json(path, document)
    assert read_json(path, 3) == document


def test_a_document_is_readable_utf8_that_ends_in_a_newline(tmp_path):
    write_json(tmp_path / "a.json", {"name": "Übung"})
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == '{\n  "name": "Übung"\n}\n'


def test_numbers_that_json_does_not_have_are_refused_and_nothing_is_written(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    assert names(tmp_path) == []


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"schema": 2}', '{"a": 1}', "\ufeff{"])
def test_torn_and_foreign_documents_are_refused_with_the_path(tmp_path, text):
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(EdgepruneError) as caught:
        read_json(path, 1)
    assert str(path) in str(caught.value)
    assert caught.value.fix


def test_bytes_that_are_no_text_are_refused(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(EdgepruneError, match="cannot read"):
        read_json(path, 1)


def test_a_missing_document_is_told(tmp_path):
    with pytest.raises(EdgepruneError, match="cannot read"):
        read_json(tmp_path / "none.json", 1)


@given(st.binary())
def test_the_hash_of_a_file_is_sha256(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("hash") / "a"
    path.write_bytes(content)
    assert sha256_of(path) == hashlib.sha256(content).hexdigest()


def test_the_hash_of_a_document_does_not_depend_on_the_order_of_keys():
    assert sha256_of_json({"a": 1, "b": [1, 2]}) == sha256_of_json(json.loads('{"b": [1, 2], "a": 1}'))
    assert sha256_of_json({"a": [1, 2]}) != sha256_of_json({"a": [2, 1]})
