"""Profile: what each operator of one artifact takes, in a pass of its own, for profiling disturbs what is timed.

History of the schema: 1, the first.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgeprune.errors import EdgepruneError
from edgeprune.files import append_lines

SCHEMA = 1


@dataclass(frozen=True)
class OperatorTime:
    """One operator as the runtime executes it; it may have fused several of the file's into it.

    Attributes:
        name: what the runtime calls it.
        kind: the runtime's name of the operation, "Conv"; empty where it does not say.
        ms: time of a call: of two passes the lower median.
        share: of the sum of all operators, 0 to 1.
        place: what executed it, by the runtime's own name.
        layer: the layer of the model it is, by its weights' name; empty for what has none or could not be told.
        macs: multiply-accumulates of that layer; 0 where there are none or they are not known.
        bytes: inputs, weights and outputs, each counted once; 0 where not known.
        channels: of that layer, (in, out); (0, 0) where not known.
        widths: channels out as the runtime executes them, padded to what its kernels want; 0 where it does not say.
    """

    name: str
    kind: str
    ms: float
    share: float
    place: str
    layer: str = ""
    macs: int = 0
    bytes: int = 0
    channels: tuple[int, int] = (0, 0)
    widths: int = 0

    @property
    def gflops(self) -> float:
        """Achieved rate in GFLOP/s, a MAC counted as two; 0 without MACs or time."""
        return 2 * self.macs / (self.ms * 1e6) if self.ms else 0.0


@dataclass(frozen=True)
class Profile:
    """One artifact, one runtime, one thread count, on one device.

    Attributes:
        artifact: SHA-256 of the file.
        path: the file, relative to the run folder.
        role: "baseline" or "pruned".
        format: "onnx" or "tflite".
        precision: "fp32", "fp16", "int8"; empty for a file that was not looked into.
        runtime: a name of `edgeprune.worker.runtimes.RUNTIMES`.
        runtime_version: as the runtime itself says.
        threads: that the runtime was told to use.
        calls: how many each median is of.
        call_ms: time of a whole call, while profiled: its operators, and what is between them where the runtime tells.
        operators: in the order they ran.
        device: facts of the machine.
    """

    artifact: str
    path: str
    role: str
    format: str
    precision: str
    runtime: str
    runtime_version: str
    threads: int
    calls: int
    call_ms: float
    operators: tuple[OperatorTime, ...]
    device: Mapping[str, Any]

    @property
    def overhead_ms(self) -> float:
        """What a call takes beside its operators: the runtime's own work, and what profiling adds."""
        return max(0.0, self.call_ms - sum(one.ms for one in self.operators))

    def to_json(self) -> dict[str, Any]:
        """This profile as a JSON document."""
        return {"schema": SCHEMA, **asdict(self)}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Profile:
        """The profile a JSON document describes.

        Raises:
            EdgepruneError: it is of another schema, or a field is missing or of the wrong kind.
        """
        if document.get("schema") != SCHEMA:
            raise EdgepruneError(
                f"not a profile of schema {SCHEMA}", fix="Profile again: edgeprune bench RUN --profile"
            )
        fields = {key: value for key, value in document.items() if key != "schema"}
        try:
            fields["operators"] = tuple(
                OperatorTime(**{**one, "channels": tuple(one["channels"])}) for one in fields["operators"]
            )
            return cls(**fields)
        except (KeyError, TypeError) as error:
            raise EdgepruneError(f"not a profile: {type(error).__name__}: {error}") from error


def append_profiles(path: Path, profiles: Sequence[Profile]) -> None:
    """Append profiles to a file, one JSON line each, and wait until they are on the disk.

    Raises:
        OutputError: the disk is full, or the folder cannot be written.
    """
    append_lines(path, (one.to_json() for one in profiles))


def load_profiles(path: Path) -> tuple[Profile, ...]:
    """Read what `append_profiles` wrote; a torn last line is ignored.

    Raises:
        EdgepruneError: the file cannot be read, or a whole line is not ours.
    """
    try:
        lines = path.read_bytes().split(b"\n")[:-1]
    except OSError as error:
        raise EdgepruneError(f"cannot read: {error.strerror}", where=str(path)) from error
    found = []
    for number, line in enumerate(lines, start=1):
        try:
            found.append(Profile.from_json(json.loads(line)))
        except (ValueError, AttributeError, EdgepruneError) as error:
            raise EdgepruneError(f"not a profile: {error}", where=f"{path}:{number}") from error
    return tuple(found)
