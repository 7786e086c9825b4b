"""Every error a user can meet, in one tree, each with its exit code.

EdgepruneError                2   something the user asked for cannot be done as asked
├── UsageError                2   an option or a name is wrong
│   └── MissingExtraError     2   an optional part is not installed
├── ModelError                2   the model cannot be found, built or run
│   ├── WeightsError          2   the weights cannot be read or do not fit
│   └── TraceError            2   the model cannot be traced to channel spaces
├── DataError                 2   the images cannot be read or do not fit
├── OutputError               2   the output folder cannot be written
├── ExportError               2   a file format cannot express the model
├── BudgetError               1   the asked budget cannot be reached
│   └── SpeedupError          1   no plan is foretold to be so fast
├── DeviceError               3   a device or its runtime cannot be reached
├── TrustError                4   a measurement is not trustworthy
└── ParityError               5   an artifact does not compute what the model computes

Raised where the fault is known, caught once, in `edgeprune.cli`. A bug is not an `EdgepruneError` and keeps its
traceback.
"""

from __future__ import annotations


class EdgepruneError(Exception):
    """Something went wrong that the user can understand and mend.

    Args:
        what: what is wrong, one sentence.
        where: the option, file, layer or node it is about; empty if `what` already says.
        fix: what to do about it; empty only where nothing can be done.
    """

    exit_code = 2

    def __init__(self, what: str, *, where: str = "", fix: str = "") -> None:
        self.what, self.where, self.fix = what, where, fix
        super().__init__("\n".join(line for line in (what, where, fix) if line))


class UsageError(EdgepruneError):
    """An option or a name is wrong."""


class MissingExtraError(UsageError):
    """An optional part is not installed.

    Args:
        extra: the extra's name in `pip install 'edgeprune[extra]'`.
        needed_for: what asked for it.
    """

    def __init__(self, extra: str, needed_for: str) -> None:
        super().__init__(f"{needed_for} needs the [{extra}] extra: pip install 'edgeprune[{extra}]'")


class ModelError(EdgepruneError):
    """The model cannot be found, built or run."""


class WeightsError(ModelError):
    """The weights cannot be read or do not fit the model."""


class TraceError(ModelError):
    """The model cannot be traced to channel spaces."""


class DataError(EdgepruneError):
    """The images cannot be read or do not fit the model."""


class TrainingError(EdgepruneError):
    """A training cannot go on."""


class OutputError(EdgepruneError):
    """The output folder cannot be written."""


class ExportError(EdgepruneError):
    """A file format cannot express the model."""


class BudgetError(EdgepruneError):
    """The asked budget cannot be reached."""

    exit_code = 1


class SpeedupError(BudgetError):
    """No plan is foretold to be as fast as was asked.

    Args:
        what: what is wrong, one sentence.
        most: the highest speed-up that a plan can be made for.
        fix: what to do about it.
    """

    def __init__(self, what: str, *, most: float, fix: str) -> None:
        self.most = most
        super().__init__(what, fix=fix)


class DeviceError(EdgepruneError):
    """A device or its runtime cannot be reached."""

    exit_code = 3


class TrustError(EdgepruneError):
    """A measurement is not trustworthy."""

    exit_code = 4


class ParityError(EdgepruneError):
    """An artifact does not compute what the model computes."""

    exit_code = 5
