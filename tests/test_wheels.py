"""Wheels for another machine: what pip is asked for, and what there can be none for."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from edgeprune.errors import DeviceError, UsageError
from edgeprune.wheels import Platform, download, pip_download, wheels_in

BOARD = Platform("aarch64", (3, 9), ("glibc", "2.31"))


def test_wheels_are_asked_for_the_platforms_python_machine_and_c_library():
    words = pip_download(BOARD, ["numpy"], Path("wheels"), "ssh://b")
    platforms = [word for before, word in pairwise(words) if before == "--platform"]
    assert platforms[0] == "manylinux_2_31_aarch64"
    assert platforms[-2:] == ["manylinux_2_17_aarch64", "manylinux2014_aarch64"]
    assert words[words.index("--python-version") + 1] == "3.9"


@pytest.mark.parametrize(("changed", "what"), [({"bits": 32}, "32-bit"), ({"libc": ("", "")}, "not glibc")])
def test_a_platform_that_has_no_wheels_by_its_kind_is_told(changed, what):
    with pytest.raises(DeviceError, match=what) as told:
        pip_download(replace(BOARD, **changed), ["numpy"], Path("wheels"), "ssh://b")
    assert told.value.where == "ssh://b"


def test_a_package_without_a_wheel_is_named_with_the_platform(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(DeviceError, match=r"no wheels of tiny for aarch64, Python 3\.9, glibc 2\.31") as told:
        download(BOARD, ["tiny"], tmp_path, "ssh://b")
    assert "No matching distribution found for tiny" in told.value.where


def test_the_wheels_of_a_bundle_are_a_floor_below(tmp_path):
    with pytest.raises(UsageError, match="no wheels here"):
        wheels_in(tmp_path)
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels" / "tiny-1.0-py3-none-any.whl").touch()
    assert wheels_in(tmp_path) == wheels_in(tmp_path / "wheels") == tmp_path / "wheels"
