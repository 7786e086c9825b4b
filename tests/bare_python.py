"""A Python that has a few packages and no edgeprune."""

from __future__ import annotations

import site
import subprocess
import venv
from pathlib import Path


def bare_python(folder: Path, *packages: str) -> Path:
    """The interpreter of a new environment that holds these packages of this one, by links."""
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    (there,) = (folder / "lib").glob("python*/site-packages")
    for here in map(Path, site.getsitepackages()):
        for name in (*packages, *(f"{package}.libs" for package in packages)):
            if (here / name).exists() and not (there / name).exists():
                (there / name).symlink_to(here / name)
    probe = subprocess.run([python, "-I", "-c", "import edgeprune"], capture_output=True, cwd=folder, check=False)
    assert probe.returncode == 1, "the bare environment must not see edgeprune, or a test with it shows nothing"
    return python
