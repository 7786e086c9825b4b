"""The user's own Python: an object named `path/file.py:name` or `package.module:name`."""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import importlib
import importlib.util
import re
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from edgeprune.errors import EdgepruneError, UsageError

_FILE = re.compile(r"(?P<module>.+\.py):(?P<name>[^\W\d]\w*)")
_MODULE = re.compile(r"(?P<module>[^\W\d]\w*(\.[^\W\d]\w*)*):(?P<name>[^\W\d]\w*)")


def looks_like_object(spec: str) -> bool:
    """Whether `spec` is written as `path/file.py:name` or `package.module:name`; nothing is opened or imported."""
    return bool(_FILE.fullmatch(spec) or _MODULE.fullmatch(spec))


def load_object(spec: str, kind: str, error: type[EdgepruneError] = UsageError) -> Any:
    """Import the object that `spec` names. This runs the user's code.

    Args:
        spec: `path/file.py:name` or `package.module:name`; modules are also looked for in the current folder.
        kind: what the object is, for messages ("model", "data function").
        error: the class of error to raise.

    Raises:
        EdgepruneError: of class `error`: there is no such file, module or name in it, or importing it failed
            (the user's own exception is quoted with its file and line).
    """
    match = _FILE.fullmatch(spec) or _MODULE.fullmatch(spec)
    if match is None:
        raise error(f"{spec!r} does not name a {kind}", fix="Write path/file.py:name or package.module:name.")
    module = (
        _file(Path(match["module"]), spec, error) if _FILE.fullmatch(spec) else _module(match["module"], spec, error)
    )
    name = match["name"]
    if hasattr(module, name):
        return getattr(module, name)
    known = sorted(key for key, value in vars(module).items() if callable(value) and not key.startswith("_"))
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"Did you mean {near[0]!r}? " if near else ""
    raise error(
        f"no {kind} {name!r} in {match['module']}",
        where=spec,
        fix=f"{hint}It has: {', '.join(known) or 'no functions'}",
    )


@contextlib.contextmanager
def user_code(spec: str, doing: str, error: type[EdgepruneError] = UsageError) -> Iterator[None]:
    """Run the user's code in this block: its folder importable, its prints on stderr, its exceptions quoted.

    Args:
        spec: the object whose code runs, as given to `load_object`.
        doing: what is being done, for the message ("building the model").
        error: the class of error to raise.

    Raises:
        EdgepruneError: of class `error`, quoting the user's exception with its file and line.
    """
    match = _FILE.fullmatch(spec)
    file = Path(match["module"]).resolve() if match else None
    folder = str(file.parent if file else Path.cwd())
    sys.path.insert(0, folder)
    try:
        # stdout carries our own JSON.
        with contextlib.redirect_stdout(sys.stderr):
            yield
    except EdgepruneError:
        raise
    except (Exception, SystemExit) as fault:
        raise error(
            f"{doing} failed: {_quote(fault, file)}", where=spec, fix="Mend the Python code that is named here."
        ) from fault
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(folder)


def _file(path: Path, spec: str, error: type[EdgepruneError]) -> ModuleType:
    try:
        source = path.read_bytes()
    except OSError as fault:
        raise error(f"cannot read {path}: {fault.strerror}", where=spec, fix="Check the path.") from fault
    path = path.resolve()
    # Named by path and content: two files called net.py do not meet, and an edited file is imported anew.
    name = f"_edgeprune_{path.stem}_{hashlib.sha256(str(path).encode() + source).hexdigest()[:16]}"
    if name in sys.modules:
        return sys.modules[name]
    description = importlib.util.spec_from_file_location(name, path)
    if description is None or description.loader is None:
        raise error(f"cannot import {path}", where=spec)
    module = importlib.util.module_from_spec(description)
    sys.modules[name] = module
    try:
        with user_code(spec, f"importing {path.name}", error):
            description.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _module(name: str, spec: str, error: type[EdgepruneError]) -> ModuleType:
    with user_code(spec, f"importing {name}", error):
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as fault:
            # A module missing further inside is the fault of the user's code, and is quoted as such.
            if fault.name is None or not f"{name}.".startswith(f"{fault.name}."):
                raise
            fix = "Install it, or run from the folder that holds it, or name the file: path/file.py:name."
            raise error(f"no module named {fault.name!r}", where=spec, fix=fix) from fault


def _quote(fault: BaseException, file: Path | None) -> str:
    """The exception, and the line it comes from: in `file` where it passed there, else the innermost."""
    text = "".join(traceback.format_exception_only(fault)).strip().splitlines()[-1]
    if isinstance(fault, SyntaxError) and fault.filename:
        return f"{text} ({fault.filename}, line {fault.lineno})"
    frames = [frame for frame in traceback.extract_tb(fault.__traceback__) if not _ours(frame.filename)]
    own = [frame for frame in frames if file is not None and frame.filename == str(file)]
    last = (own or frames)[-1:]
    return f"{text} ({last[0].filename}, line {last[0].lineno})" if last else text


def _ours(filename: str) -> bool:
    return filename.startswith("<frozen") or Path(filename).is_relative_to(Path(__file__).parent)
