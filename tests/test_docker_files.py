"""docker/ and docs/package.yml: what they name is there, and nothing is run while an image is built."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from package_runs import a_run, plain_wheels
from program_runs import REPOSITORY
from typer.main import get_command

from edgeprune.cli import app
from edgeprune.package.image import PARENTS, ROOT
from edgeprune.packaging import PackageOrder, package
from edgeprune.wheels import DEFAULT_PYTHON

DOCKERFILE = (REPOSITORY / "docker" / "Dockerfile").read_text()
BAKE = (REPOSITORY / "docker" / "docker-bake.hcl").read_text()
WORDS = [line.split() for line in re.sub(r"\\\n", " ", DOCKERFILE).splitlines() if line and not line.startswith("#")]
COMPOSE = [name for name in ("docker-compose",) if shutil.which(name)]


def yaml(path: str) -> dict[Any, Any]:
    found = pytest.importorskip("yaml", reason="PyYAML is not installed").safe_load((REPOSITORY / path).read_text())
    assert isinstance(found, dict)
    return found


@pytest.fixture(scope="module")
def context(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("context")
    run, wheels = a_run(folder / "run"), plain_wheels(folder / "wheels")
    return package(PackageOrder(run, "rpi4", output="context", out=folder / "context", wheels=wheels)).place


def test_nothing_is_run_while_an_image_is_built():
    """So there is no compiler, no emulation and no index either."""
    assert {words[0] for words in WORDS} == {
        *("ARG", "FROM", "COPY", "ENV", "USER", "STOPSIGNAL", "HEALTHCHECK", "ENTRYPOINT", "CMD")
    }


def test_the_dockerfile_copies_all_that_the_context_holds_and_starts_what_is_there(context):
    copied = [words[1] for words in WORDS if words[0] == "COPY"]
    assert {path.name for path in context.iterdir() if path.is_dir()} == set(copied)
    assert (context / ".dockerignore").read_text().splitlines() == ["*", *(f"!{name}" for name in copied)]
    there = {
        f"/{path.relative_to(context / name).as_posix()}" for name in copied for path in context.glob(f"{name}/**/*")
    }
    named = set(re.findall(rf"/{ROOT}[\w./]*", " ".join(" ".join(words) for words in WORDS)))
    assert named == {f"/{ROOT}/site", f"/{ROOT}/edgeprune.pyz"}
    assert named <= there


def test_the_images_user_is_a_number_and_not_root():
    """A number, because a base may have no such name."""
    (user,) = [words[1] for words in WORDS if words[0] == "USER"]
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)


def test_bake_names_the_dockerfiles_arguments_and_the_same_base():
    arguments = {words[1].partition("=")[0] for words in WORDS if words[0] == "ARG"}
    assert set(re.findall(r"args\s*=\s*{\s*(\w+)", BAKE)) == arguments
    (parent,) = re.findall(r'variable "BASE" {\s*default = "([^"]+)"', BAKE)
    assert f"ARG BASE={parent}" in DOCKERFILE
    assert parent.startswith(PARENTS[DEFAULT_PYTHON])
    (body,) = re.findall(r'target "default" {(.*)}', BAKE, re.DOTALL)
    assert set(re.findall(r'variable "(\w+)"', BAKE)) == set(re.findall(r"\b[A-Z]+\b", body))
    assert 'dockerfile = "Dockerfile"' in BAKE


def test_compose_takes_everything_from_the_container_that_the_model_does_not_need():
    for service in yaml("docker/compose.yaml")["services"].values():
        assert (service["init"], service["read_only"], service["network_mode"]) == (True, True, "none")
        assert (service["cap_drop"], service["security_opt"]) == (["ALL"], ["no-new-privileges:true"])


@pytest.mark.skipif(not COMPOSE, reason="not installed: docker-compose")
@pytest.mark.parametrize("profile", [(), ("--profile", "jetson")])
def test_compose_accepts_its_file_and_wants_an_image(profile):
    words = ["docker-compose", "--file", REPOSITORY / "docker" / "compose.yaml", *profile, "config", "--quiet"]
    variables = {name: value for name, value in os.environ.items() if name != "IMAGE"}
    assert subprocess.run(words, env={**variables, "IMAGE": "net:1"}, check=False, capture_output=True).returncode == 0
    refused = subprocess.run(words, env=variables, check=False, capture_output=True, text=True)
    assert refused.returncode != 0
    assert "name the image" in refused.stderr


def test_every_option_of_the_workflow_exists():
    steps = [step["run"] for job in yaml("docs/package.yml")["jobs"].values() for step in job["steps"] if "run" in step]
    calls = [shlex.split(step)[1:] for step in steps if step.startswith("edgeprune ")]
    assert [words[0] for words in calls] == ["compress", "package"]
    for command, *words in calls:
        parameters = get_command(app).commands[command].params
        known = {option for one in parameters for option in (*one.opts, *one.secondary_opts)}
        assert {word for word in words if word.startswith("--")} <= known


def test_what_the_workflow_reads_of_a_report_is_in_its_schema():
    text = (REPOSITORY / "docs" / "package.yml").read_text()
    (expression,) = re.findall(r"jq --exit-status '([^']+)'", text)
    schema = (REPOSITORY / "edgeprune" / "report" / "schema.json").read_text()
    assert all(f'"{word}"' in schema for word in re.findall(r"[a-z_]{3,}", expression))
