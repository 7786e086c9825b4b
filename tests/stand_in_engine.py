"""Stands for podman: notes what it is told in $ENGINE_LOG, and complains at the word $ENGINE_FAILS of $ENGINE_SAYS.

Of $ENGINE_NAMED, two ids, the first has the image's name before the build, the second after it.
"""

from __future__ import annotations

import io
import json
import os
import sys
import tarfile
from pathlib import Path

CHECKED = {"schema": 1, "runtime": "onnxruntime", "runtime_version": "1", "passed": True, "max_rel": 0.0}


def main(words: list[str]) -> None:
    noted = Path(os.environ["ENGINE_LOG"])
    built = noted.exists() and '["build"' in noted.read_text()
    with noted.open("a") as log:
        log.write(json.dumps(words) + "\n")
    if words[0] == os.environ.get("ENGINE_FAILS"):
        print(os.environ["ENGINE_SAYS"], file=sys.stderr)
        sys.exit(int(os.environ.get("ENGINE_CODE", "125")))
    given = dict(word.partition("=")[::2] for word in words if word.startswith("--"))
    if words[0] == "build":
        Path(given["--iidfile"]).write_text("sha256:1d")
    elif words[0] == "images" and "ENGINE_NAMED" in os.environ:
        print(os.environ["ENGINE_NAMED"].split()[built])
    elif words[0] == "image":
        print(os.environ.get("ENGINE_BASE", "arm64"))
    elif words[0] == "run":
        print(json.dumps(CHECKED))
    elif words[0] == "save":
        write_archive(Path(given["--output"]))


def write_archive(path: Path) -> None:
    layer = {"size": 7, "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip"}
    documents = {
        "oci-layout": {},
        "index.json": {"manifests": [{"digest": "sha256:aa"}]},
        "blobs/sha256/aa": {"layers": [layer]},
    }
    with tarfile.open(path, "w") as archive:
        for name, document in documents.items():
            text = json.dumps(document).encode()
            member = tarfile.TarInfo(name)
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text))


if __name__ == "__main__":
    main(sys.argv[1:])
