"""How a stage tells how far it is, without knowing who listens."""

from __future__ import annotations

from collections.abc import Callable

Tick = Callable[[int, int], None]
"""Called as `tick(done, total)`; may be called often, must be cheap."""


def silent(done: int, total: int) -> None:
    """A `Tick` that nobody listens to."""
