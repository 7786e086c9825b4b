"""LatencyTable: what a board took for a network cut in many ways, layer by layer and as a whole.

Only what was measured is stored; what follows from it (`edgeprune.prune.timing`) is worked out on reading. History of
the schema: 1, the first; 2, of layers in parallel branches none stands for another (convolutions beside a shortcut of
their own, as in ResNet-18, had each other's times).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from edgeprune.errors import EdgepruneError
from edgeprune.files import read_as, write_json

SCHEMA = 2


@dataclass(frozen=True)
class LayerTime:
    """One layer of one variant, profiled.

    Attributes:
        shape: what it computes but for its widths, see `edgeprune.prune.shapes.LayerAt`; layers of equal shape and
            widths take equally long.
        inputs: channels it reads.
        outputs: channels it makes.
        ms: time of a call.
    """

    shape: str
    inputs: int
    outputs: int
    ms: float


@dataclass(frozen=True)
class Variant:
    """A network at some widths, measured.

    Attributes:
        widths: channel space -> how many filters stay.
        ms: time of a call, not profiled, in the interleaved run that all variants of a batch share: `uncut_ms` over the
            speed-up, see `edgeprune.bench.compare`.
        uncut_ms: median time of a call of the uncut network in that run.
        layers: profiled one by one, in the order they run.
        rest_ms: of all operators that are no layers, profiled.
        activation_mb: of all values that operators put out, in 10^6 bytes of fp32, for one image.
    """

    widths: Mapping[str, int]
    ms: float
    uncut_ms: float
    layers: tuple[LayerTime, ...]
    rest_ms: float
    activation_mb: float

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Variant:
        """The variant a JSON document describes."""
        layers = tuple(LayerTime(**one) for one in document["layers"])
        return cls(**{**document, "widths": dict(document["widths"]), "layers": layers})


@dataclass(frozen=True)
class Conditions:
    """Under which times were taken; those under others are never put into one table.

    Attributes:
        board: the machine, by `edgeprune.report.machines.machine_name`.
        runtime: that executed the files.
        runtime_version: as it says itself.
        threads: that it used.
        format: of the files.
        precision: of the files.
    """

    board: str
    runtime: str
    runtime_version: str
    threads: int
    format: str
    precision: str = "fp32"

    def differ(self, other: Conditions) -> str:
        """In what they differ from others, in words; empty if they do not."""
        own, its = asdict(self), asdict(other)
        return "; ".join(f"{key}: {own[key]} and {its[key]}" for key in own if own[key] != its[key])


@dataclass(frozen=True)
class Network:
    """What was measured of one network.

    Attributes:
        name: of the model.
        variants: in the order they were measured.
    """

    name: str
    variants: tuple[Variant, ...] = ()


@dataclass(frozen=True)
class LatencyTable:
    """Times of networks on one board.

    Attributes:
        conditions: of all of them.
        networks: fingerprint of the channel map -> what was measured.
        mixed: in what other times differ that were added by `--allow-mixed`; empty where all are of these conditions.
    """

    conditions: Conditions
    networks: Mapping[str, Network] = field(default_factory=dict)
    mixed: tuple[str, ...] = ()

    def with_variants(self, fingerprint: str, name: str, variants: tuple[Variant, ...]) -> LatencyTable:
        """This table with more variants of a network."""
        known = self.networks.get(fingerprint, Network(name))
        return replace(
            self,
            networks={**self.networks, fingerprint: replace(known, variants=(*known.variants, *variants))},
        )

    def to_json(self) -> dict[str, Any]:
        """This table as a JSON document."""
        return {"schema": SCHEMA, "kind": "latency table", **asdict(self)}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> LatencyTable:
        """The table a JSON document describes.

        Raises:
            EdgepruneError: a field is missing or of the wrong kind, or a time is no number above 0.
        """
        try:
            networks = {
                key: Network(one["name"], tuple(map(Variant.from_json, one["variants"])))
                for key, one in document["networks"].items()
            }
            found = cls(Conditions(**document["conditions"]), networks, tuple(document.get("mixed", ())))
            times = [time for one in networks.values() for variant in one.variants for time in _times(variant)]
            if not all(0 < time < float("inf") for time in times):
                raise ValueError("a time is no number above 0")
            rests = [one for its in networks.values() for v in its.variants for one in (v.rest_ms, v.activation_mb)]
            if not all(0 <= rest < float("inf") for rest in rests):
                raise ValueError("what is no layer is no number from 0 on")
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise EdgepruneError(f"not a latency table: {type(error).__name__}: {error}") from error
        return found

    def save(self, path: Path) -> None:
        """Write this table, whole or not at all."""
        write_json(path, self.to_json())

    @classmethod
    def load(cls, path: Path) -> LatencyTable:
        """Read a table written by `save`.

        Raises:
            EdgepruneError: the file is missing, torn, or not a table.
        """
        return read_as(path, SCHEMA, cls.from_json, "Make one with edgeprune profile MODEL --table FILE")


def _times(variant: Variant) -> list[float]:
    return [variant.ms, variant.uncut_ms, *(layer.ms for layer in variant.layers)]
