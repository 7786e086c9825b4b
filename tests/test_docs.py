"""Documents that cannot lie: what they name exists, and what they show can be typed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.main import get_command

from edgeprune.cli import app
from edgeprune.criteria import CRITERIA
from edgeprune.request import Request
from edgeprune.target import known_targets

ROOT = Path(__file__).parent.parent
PAGES = [
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    *sorted(ROOT.glob("docs/**/*.md")),
    *sorted(ROOT.glob("*/**/README.md")),
]
PAGES = [page for page in PAGES if ".venv" not in page.parts and "runs" not in page.parts]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_to_a_file_leads_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        assert target.startswith("https://") or (page.parent / target).exists(), target


def test_every_option_the_readme_shows_exists():
    commands = get_command(app).commands
    parameters = [parameter for command in commands.values() for parameter in command.params]
    known = {option for parameter in parameters for option in (*parameter.opts, *parameter.secondary_opts)}
    shown = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+", README))
    assert shown
    assert shown <= known, shown - known


def test_every_command_the_readme_shows_exists():
    commands = set(get_command(app).commands)
    shown = set(re.findall(r"^ {4}edgeprune (\w+)", README, re.MULTILINE)) | set(
        re.findall(r"`edgeprune (\w+)", README)
    )
    assert shown
    assert shown <= commands, shown - commands


def test_every_make_target_the_readme_shows_exists():
    known = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    shown = set(re.findall(r"\bmake ([a-z-]+)", README)) - {"python"}
    assert {"demo", "test"} <= shown
    assert shown - {"and"} <= known, shown - known


def test_the_readme_names_every_criterion_and_the_changelog_every_board():
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in README for name in CRITERIA.rows)
    assert all(name in changelog for name in known_targets())


def test_the_default_the_readme_states_is_the_default():
    assert f"{Request().calibration_images} images (`--calibration-images`)" in README
