"""The run folder appears whole or not at all, and nothing of the user's is lost."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from edgeprune.errors import ExportError, OutputError
from edgeprune.runfolder import check_free, staged


def finished(folder: Path, content: str = "old") -> Path:
    """A run as it is left behind."""
    folder.mkdir(parents=True)
    (folder / "report.json").write_text(json.dumps({"schema": 1, "edgeprune_version": "0"}))
    (folder / "model.onnx").write_text(content)
    return folder


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_folder_appears_when_the_block_ends_and_not_before(tmp_path):
    out = tmp_path / "run"
    with staged(out) as work:
        (work / "a").write_text("x")
        assert not out.exists()
    assert names(out) == ["a"]
    assert names(tmp_path) == ["run"]


@pytest.mark.parametrize("fault", [ValueError, KeyboardInterrupt, ExportError])
def test_a_run_that_fails_leaves_nothing_behind(tmp_path, fault):
    def failing() -> None:
        with staged(tmp_path / "deep" / "er" / "run") as work:
            (work / "a").write_text("x")
            raise fault("no luck")

    with pytest.raises(fault):
        failing()
    assert names(tmp_path) == []


def test_a_run_that_fails_leaves_the_old_run_as_it_was(tmp_path):
    out = finished(tmp_path / "run")

    def failing() -> None:
        with staged(out) as work:
            (work / "model.onnx").write_text("new")
            raise ValueError("no luck")

    with pytest.raises(ValueError, match="no luck"):
        failing()
    assert (out / "model.onnx").read_text() == "old"
    assert names(tmp_path) == ["run"]


def test_a_run_that_ends_well_replaces_the_old_one_as_a_whole(tmp_path):
    out = finished(tmp_path / "run")
    with staged(out) as work:
        (work / "b").write_text("new")
        assert (out / "model.onnx").read_text() == "old"
    assert names(out) == ["b"]
    assert names(tmp_path) == ["run"]


def test_folders_made_for_the_run_stay_where_something_else_was_put_in(tmp_path):
    def failing() -> None:
        with staged(tmp_path / "a" / "run"):
            (tmp_path / "a" / "mine").write_text("x")
            raise ValueError("no luck")

    with pytest.raises(ValueError, match="no luck"):
        failing()
    assert names(tmp_path) == ["a"]
    assert names(tmp_path / "a") == ["mine"]


def test_a_full_disk_is_told_by_the_name_the_user_gave(tmp_path):
    def failing() -> None:
        with staged(tmp_path / "run"):
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OutputError, match="the disk is full") as caught:
        failing()
    assert caught.value.where == str(tmp_path / "run")
    assert names(tmp_path) == []


def test_a_folder_that_is_not_there_yet_or_empty_is_free(tmp_path):
    check_free(tmp_path / "new" / "er", overwrite=False)
    (tmp_path / "empty").mkdir()
    check_free(tmp_path / "empty", overwrite=False)
    assert names(tmp_path) == ["empty"]


def test_a_folder_with_a_run_is_free_only_with_overwrite(tmp_path):
    out = finished(tmp_path / "run")
    with pytest.raises(OutputError, match="exists") as caught:
        check_free(out, overwrite=False)
    assert "--overwrite" in caught.value.fix
    check_free(out, overwrite=True)


def test_a_folder_of_something_else_is_never_free(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_text("x")
    with pytest.raises(OutputError, match="not a run of edgeprune; it is not replaced"):
        check_free(tmp_path / "photos", overwrite=True)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_file_or_a_link_of_that_name_is_not_replaced(tmp_path, overwrite):
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(finished(tmp_path / "run"))
    for name in ("file", "link"):
        with pytest.raises(OutputError, match="taken by a file"):
            check_free(tmp_path / name, overwrite)


def test_a_parent_that_is_a_file_is_told(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError):
        check_free(tmp_path / "file" / "run", overwrite=False)


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write everywhere")
def test_a_parent_that_may_not_be_written_is_told(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="cannot be written"):
        check_free(tmp_path / "run", overwrite=False)


def test_the_current_folder_is_not_replaced(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OutputError, match="current folder"):
        check_free(Path(), overwrite=True)
