"""The run folder: it appears when the run is complete, or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgeprune.errors import OutputError
from edgeprune.files import output_error

_OURS = ("report.json", "plan.json")


def check_free(out: Path, overwrite: bool) -> None:
    """Refuse a run folder that cannot be made, before any work is done.

    Raises:
        OutputError: it exists and `overwrite` is not set, it holds something that is not a run, or it cannot be written.
    """
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise OutputError("the output folder's name is taken by a file", where=str(out), fix="Name another with --out.")
    if out.is_dir() and any(out.iterdir()):
        if not overwrite:
            raise OutputError(
                "the output folder exists",
                where=str(out),
                fix="Name another with --out, or replace it with --overwrite.",
            )
        if not any((out / name).is_file() for name in _OURS):
            raise OutputError(
                "the output folder holds something that is not a run of edgeprune; it is not replaced",
                where=str(out),
                fix="Name another with --out.",
            )
    parent = next(folder for folder in out.absolute().parents if folder.exists())
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
    out = out.absolute()
    work, old = (out.with_name(f".{out.name}.{os.getpid()}.{kind}") for kind in ("partial", "replaced"))
    made = [folder for folder in out.parents if not folder.exists()]
    try:
        work.mkdir(parents=True)
        yield work
        if out.exists():
            out.replace(old)
        work.replace(out)
    except OSError as error:
        raise output_error(error, out) from error
    finally:
        if old.exists() and not out.exists():
            old.replace(out)
        for left in (work, old):
            shutil.rmtree(left, ignore_errors=True)
        for folder in made:  # innermost first; stops at the first that something was put into
            try:
                folder.rmdir()
            except OSError:
                break
