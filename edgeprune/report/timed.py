"""What the report of a run and the report of single files have in common."""

from __future__ import annotations

from typing import Protocol

from edgeprune.artifact import Artifact
from edgeprune.explanation import Explanation
from edgeprune.report.parts import Machine, RunFacts, SpeedUp, Timing
from edgeprune.sustained import Sustained


class Timed(Protocol):
    """What tables and drawings of times need: reports of runs and of single files both have it."""

    @property
    def artifacts(self) -> tuple[Artifact, ...]:
        """The files."""

    @property
    def devices(self) -> tuple[Machine, ...]:
        """The machines they were timed on."""

    @property
    def measurements(self) -> tuple[Timing, ...]:
        """Their times."""

    @property
    def comparisons(self) -> tuple[SpeedUp, ...]:
        """Uncut against cut."""

    @property
    def explanations(self) -> tuple[Explanation, ...]:
        """Why cut files are not faster; empty unless they were profiled."""

    @property
    def run(self) -> RunFacts:
        """How they came about."""

    @property
    def sustained(self) -> tuple[Sustained, ...]:
        """What sustained load did to them."""
