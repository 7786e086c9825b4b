"""A trial: one cut of one network, as data; its result, kept as a line of JSON; and what results say together."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprune.stats import paired_difference


@dataclass(frozen=True)
class Trial:
    """What is done.

    Attributes:
        network: "resnet56" or "mobilenet_v2_tf".
        criterion: which filters go; "uncut": none.
        options: its settings, as on the command line: "metric=ssim,images=64".
        widths: how many stay; see `widths.py`.
        recovery: "none", "bn" (norm re-estimation) or "reconstruct".
        seed: which calibration images, and what a criterion draws.
        calibration: how many of them.
        images: how many images it is scored on.
        steps: of fine-tuning with labels, after the recovery.
    """

    network: str
    criterion: str = "uncut"
    options: str = ""
    widths: str = ""
    recovery: str = "none"
    seed: int = 0
    calibration: int = 256
    images: int = 5000
    steps: int = 0

    @property
    def key(self) -> str:
        """The trial as text, the same for equal trials."""
        return json.dumps(asdict(self))

    @property
    def uncut(self) -> Trial:
        """The uncut network on the same images."""
        return Trial(self.network, images=self.images)

    @property
    def name(self) -> str:
        """The criterion as people write it."""
        return f"{self.criterion} {self.options}".strip()


@dataclass(frozen=True, eq=False)
class Result:
    """What came of it.

    Attributes:
        trial: what was done.
        right: whether each image was classified right, bool [images]; for other trials on the same images in the same
            order, so that they can be compared image by image.
        macs: share of the uncut network's that stays.
        parameters: the same of parameters.
        kept: how many filters each cut space keeps, in the order of the network.
        seconds: that it took, on a machine with other work.
    """

    trial: Trial
    right: NDArray[np.bool_]
    macs: float = 1.0
    parameters: float = 1.0
    kept: tuple[int, ...] = ()
    seconds: float = 0.0

    @property
    def top1(self) -> float:
        """Share of images that were classified right, in percent."""
        return 100 * float(self.right.mean())

    def to_json(self) -> dict[str, Any]:
        """This result as a JSON document."""
        bits = base64.b64encode(np.packbits(self.right).tobytes()).decode()
        numbers = {"macs": round(self.macs, 5), "parameters": round(self.parameters, 5), "kept": list(self.kept)}
        return {**asdict(self.trial), **numbers, "seconds": round(self.seconds, 1), "right": bits}

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Result:
        """The result a JSON document describes."""
        trial = Trial(**{name: document[name] for name in Trial.__dataclass_fields__})
        bits = np.unpackbits(np.frombuffer(base64.b64decode(document["right"]), np.uint8), count=trial.images)
        rest = (document["macs"], document["parameters"], tuple(document["kept"]), document["seconds"])
        return cls(trial, bits.astype(bool), *rest)


class Results:
    """The results in a file of JSON lines, by trial."""

    def __init__(self, path: Path) -> None:
        self.path = path
        lines = path.read_text().splitlines() if path.is_file() else []
        found = [Result.from_json(json.loads(line)) for line in lines]
        self._found = {result.trial: result for result in found}

    def __contains__(self, trial: Trial) -> bool:
        return trial in self._found

    def __getitem__(self, trial: Trial) -> Result:
        return self._found[trial]

    def get(self, trial: Trial) -> Result | None:
        """The result of a trial that may not have been run."""
        return self._found.get(trial)

    def add(self, result: Result) -> None:
        """Keep a result, at once."""
        self._found[result.trial] = result
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as file:
            file.write(json.dumps(result.to_json()) + "\n")

    def missing(self, trials: Iterable[Trial]) -> list[Trial]:
        """The trials that were not run yet, each once, in order."""
        return [trial for trial in dict.fromkeys(trials) if trial not in self]

    def without(self, unwanted: Callable[[Trial], bool]) -> Results:
        """These results but for those of some trials."""
        rest = Results(self.path)
        rest._found = {trial: result for trial, result in self._found.items() if not unwanted(trial)}
        return rest

    def seeds(self, trial: Trial, seeds: int) -> list[Result]:
        """The same trial with other seeds, as far as they were run."""
        return [self[one] for one in (replace(trial, seed=seed) for seed in range(seeds)) if one in self]


@dataclass(frozen=True)
class Difference:
    """A difference of two results on the same images, in points, with its 95 % interval."""

    points: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.points:+.1f} [{self.low:+.1f}, {self.high:+.1f}]"

    @property
    def sure(self) -> bool:
        """Whether the interval excludes zero."""
        return self.low > 0 or self.high < 0


def difference(of: Result, to: Result) -> Difference:
    """By how many points one is better than the other, image by image."""
    gained, lost = (int(np.count_nonzero(more & ~less)) for more, less in ((of.right, to.right), (to.right, of.right)))
    low, high = paired_difference(gained, lost, len(of.right))
    return Difference(100 * (gained - lost) / len(of.right), 100 * low, 100 * high)
