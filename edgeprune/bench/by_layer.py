"""What each layer takes with all that is around it: activation, change of layout, quantising and dequantising."""

from __future__ import annotations

from edgeprune.profile import Profile


def by_layer(profile: Profile) -> dict[str, float]:
    """Time of each layer of a profile in ms; together they are that of all operators, unless none could be told.

    An operator that is no layer belongs to the one that ran before it, those before the first to that.
    """
    found: dict[str, float] = {}
    latest, waiting = "", 0.0
    for one in profile.operators:
        latest = one.layer or latest
        waiting += one.ms
        if latest:
            found[latest] = found.get(latest, 0.0) + waiting
            waiting = 0.0
    return found
