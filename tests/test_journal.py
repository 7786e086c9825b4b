"""Journal: who listens hears what happens as it happens, and the report gets times and warnings."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from edgeprune.journal import Journal, Nobody
from edgeprune.progress import Tick


class Notes:
    """A listener that writes everything down."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    @contextmanager
    def stage(self, name: str) -> Iterator[Tick]:
        self.heard.append(f"begin {name}")
        yield lambda done, total: self.heard.append(f"{done}/{total}")
        self.heard.append(f"end {name}")

    def say(self, line: str) -> None:
        self.heard.append(line)


def test_a_listener_hears_stages_progress_and_lines_in_order():
    journal = Journal(notes := Notes())
    with journal.stage("score") as tick:
        tick(1, 2)
        journal.say("hello")
        journal.warn("careful")
    assert notes.heard == ["begin score", "1/2", "hello", "warning: careful", "end score"]


def test_only_warnings_are_kept_for_the_report():
    journal = Journal(Nobody())
    journal.say("hello")
    journal.warn("careful")
    assert journal.warnings == ["careful"]


def test_the_time_of_a_stage_that_is_entered_again_adds_up(monkeypatch):
    times = iter([0.0, 2.0, 10.0, 13.0, 20.0, 21.0])
    monkeypatch.setattr("edgeprune.journal.perf_counter", lambda: next(times))
    journal = Journal(Nobody())
    for name in ("export", "export", "bench"):
        with journal.stage(name):
            pass
    assert journal.seconds == {"export": 5.0, "bench": 1.0}
    assert list(journal.seconds) == ["export", "bench"]


def test_a_stage_that_fails_is_timed_and_its_error_goes_on():
    journal = Journal(Nobody())

    def failing() -> None:
        with journal.stage("cut"):
            raise ValueError("no luck")

    with pytest.raises(ValueError, match="no luck"):
        failing()
    assert journal.seconds.keys() == {"cut"}


def test_two_journals_share_nothing():
    Journal(Nobody()).warn("careful")
    assert Journal(Nobody()).warnings == []
