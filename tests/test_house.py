"""The house: floors, names, sizes, and what a stranger must not find in it."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from program_runs import REPOSITORY, run_python

import edgeprune
from edgeprune.cards import known_models
from edgeprune.criteria import CRITERIA, configure
from edgeprune.export import EXPORTERS
from edgeprune.report.render import FILES, RENDERERS
from edgeprune.target import known_targets, load_target

MODULES = sorted((REPOSITORY / "edgeprune").rglob("*.py"))
LONGEST_MODULE, LONGEST_FUNCTION = 300, 60
VAGUE = {"utils", "util", "helpers", "helper", "common", "manager", "handler", "base", "cfg", "idxs", "misc", "stuff"}


def name_of(path: Path) -> str:
    return path.relative_to(REPOSITORY).as_posix()


def tracked() -> list[Path]:
    git = shutil.which("git")
    if git is None or not (REPOSITORY / ".git").exists():
        pytest.skip("not a git checkout")
    listing = [git, "ls-files", "--cached", "--others", "--exclude-standard"]
    found = subprocess.run(listing, cwd=REPOSITORY, check=True, capture_output=True, text=True)
    return [REPOSITORY / line for line in found.stdout.splitlines() if (REPOSITORY / line).is_file()]


def test_every_file_imports_from_floors_below_only() -> None:
    settings = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    if "importlinter" not in settings["tool"]:
        pytest.skip("pyproject.toml has no [tool.importlinter]")
    pytest.importorskip("importlinter", reason="import-linter is not installed ([dev] extra)")
    start = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    done = subprocess.run([sys.executable, "-c", start], cwd=REPOSITORY, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", edgeprune.__all__)
def test_every_public_name_can_be_imported_and_is_documented(name: str) -> None:
    found = getattr(edgeprune, name)
    assert name in dir(edgeprune)
    assert isinstance(found, str) or found.__doc__


def test_a_name_that_is_not_public_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="prune_it"):
        _ = edgeprune.prune_it


def test_importing_any_public_name_works_without_the_others() -> None:
    start = "from edgeprune import Budget, Target, load_target; import sys; print('torch' in sys.modules)"
    assert run_python(["-c", start]).out == "False\n"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_no_module_is_long(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= LONGEST_MODULE


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_no_function_is_long(path: Path) -> None:
    """From the first statement on: a signature may be a table of documented options."""
    long = {
        node.name: length
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (length := (node.end_lineno or 0) - node.body[0].lineno + 1) > LONGEST_FUNCTION
    }
    assert not long


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_no_name_is_vague(path: Path) -> None:
    own = set(defined(ast.parse(path.read_text()))) | {path.stem, path.parent.name}
    assert not {name for name in own if name.strip("_").lower() in VAGUE or set(re.split("_", name.lower())) & VAGUE}


def defined(tree: ast.AST) -> Iterator[str]:
    """The names that a module itself chooses."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr


def test_no_tracked_file_holds_a_path_of_someones_machine() -> None:
    foreign = re.compile(
        "|".join((r"/home/(?!pi\b|me\b|user\b)\w", "/ro" + "ot/", r"/" + "work/", r"/Users/\w", "/tmp/" + "boot"))
    )
    found = [
        f"{name_of(path)}: {match[0]}"
        for path in tracked()
        if path.suffix not in (".safetensors", ".png")
        and (match := foreign.search(path.read_text(encoding="utf-8", errors="ignore")))
    ]
    assert not found


def test_no_tracked_file_is_large() -> None:
    large = {name_of(path): path.stat().st_size for path in tracked() if path.stat().st_size > 1_500_000}
    assert not large


@pytest.mark.parametrize("name", sorted(known_targets()))
def test_every_board_loads(name: str) -> None:
    target = load_target(name)
    assert target.name == name
    assert set(target.formats) <= set(EXPORTERS.table())
    assert all(fact.source for fact in target.facts.values())


@pytest.mark.parametrize("name", sorted(known_models()))
def test_every_model_card_loads(name: str) -> None:
    card = known_models()[name]
    assert card.name == name
    assert card.weights is None or card.weights.is_file()


@pytest.mark.parametrize("name", sorted(CRITERIA.table()))
def test_every_criterion_is_there_and_its_settings_have_defaults(name: str) -> None:
    assert configure(name).function.__doc__


@pytest.mark.parametrize("name", sorted(EXPORTERS.table()))
def test_every_exporter_is_there(name: str) -> None:
    assert callable(EXPORTERS.load(name))


@pytest.mark.parametrize("name", sorted(FILES.values()))
def test_every_renderer_is_there(name: str) -> None:
    assert callable(RENDERERS.load(name))


def test_onnx_runtime_does_not_call_home(tmp_path: Path) -> None:
    """Its telemetry leaves a session file in the temporary folder when it starts."""
    ran = run_python(["-c", "import edgeprune, onnxruntime"], {"TMPDIR": str(tmp_path)})
    assert ran.code == 0, ran.err
    assert not list(tmp_path.iterdir())
