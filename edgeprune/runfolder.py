"""The output folder: it appears when what it holds is complete, or not at all."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgeprune.errors import EdgepruneError, OutputError
from edgeprune.files import is_out_of_space, output_error

_KINDS = {
    "report.json": "run",
    "training.json": "training",
    "bundle.json": "bundle",
    "app/opt/edgeprune/bundle.json": "context",
}


def check_free(out: Path, overwrite: bool, mark: str = "report.json") -> None:
    """Refuse a folder that cannot be made, before any work is done.

    Args:
        out: the folder.
        overwrite: replace it if it exists.
        mark: the document of ours that such a folder holds: none without it is replaced.

    Raises:
        OutputError: it exists and `overwrite` is not set, it holds something that is not ours, or it cannot be
            written.
    """
    with _explained(out):
        _check_replaceable(out, overwrite, mark)
        _check_place(_absolute(out))


def _check_replaceable(out: Path, overwrite: bool, mark: str) -> None:
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise OutputError("the output folder's name is taken by a file", where=str(out), fix="Name another with --out.")
    if out.is_dir() and any(out.iterdir()):
        if not overwrite:
            raise OutputError(
                "the output folder exists",
                where=str(out),
                fix="Name another with --out, or replace it with --overwrite.",
            )
        if not _is_ours(out / mark):
            raise OutputError(
                f"the output folder holds something that is not a {_KINDS[mark]} of edgeprune; it is not replaced",
                where=str(out),
                fix="Name another with --out.",
            )


def _is_ours(mark: Path) -> bool:
    """Whether a folder holds what edgeprune finished: the only kind that is ever replaced."""
    try:
        document = json.loads(mark.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(document, dict) and "edgeprune_version" in document


def _check_place(out: Path) -> None:
    if out.is_mount() or out == Path.cwd():
        raise OutputError(
            "the output folder cannot be replaced as a whole: it is a mounted volume or the current folder",
            where=str(out),
            fix=f"Name a folder in it: --out {out / 'run'}",
        )
    parent = next(folder for folder in out.parents if folder.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise OutputError(
            "the output folder cannot be written", where=str(parent), fix="Name a folder you can write to with --out."
        )


@contextmanager
def staged(out: Path) -> Iterator[Path]:
    """A folder to work in beside `out`; it becomes `out` when the block ends well, and is removed when it does not.

    Raises:
        OutputError: the disk is full, or the folder cannot be written.
    """
    out = _absolute(out)
    work, old = (out.with_name(f".{out.name}.{os.getpid()}.{kind}") for kind in ("partial", "replaced"))
    made = [folder for folder in out.parents if not folder.exists()]
    try:
        with _explained(out):
            work.mkdir(parents=True)
        try:
            yield work
        except EdgepruneError as error:
            error.where = error.where.replace(str(work), str(out))  # the name the user gave
            raise
        except OSError as error:
            if not is_out_of_space(error):  # any other is no fault of the folder, but a bug
                raise
            raise output_error(error, out) from error
        with _explained(out):
            if out.exists():
                out.replace(old)
            work.replace(out)
    finally:
        if old.exists() and not out.exists():
            old.replace(out)
        for left in (work, old):
            _remove(left)
        for folder in made:  # innermost first; stops at the first that something was put into
            try:
                folder.rmdir()
            except OSError:
                break


def _absolute(path: Path) -> Path:
    """The path without `.` and `..`, so that it has a name and a parent; links in it are kept."""
    return Path(os.path.abspath(path))  # noqa: PTH100 - Path.absolute keeps `..`


@contextmanager
def _explained(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise output_error(error, out) from error


def _remove(folder: Path) -> None:
    """Remove a folder; an interruption waits until it is gone."""
    try:
        shutil.rmtree(folder, ignore_errors=True)
    except KeyboardInterrupt:
        shutil.rmtree(folder, ignore_errors=True)
        raise
