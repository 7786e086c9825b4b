"""When a board under load began to throttle, and by which sign: docs/decisions/0007."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

from edgeprune.stats import robust_spread

Sign = Literal["bits", "clock", "times", ""]

SLOWER = 0.05
"""Times or a clock this share off what they were on the cold board are a sign of throttling, if they stay so."""
_NOISES = 3.0  # ... and times must be off by so many times the spread they had on the cold board
_STAYS = 10  # blocks: what lasts a shorter time is a disturbance


@dataclass(frozen=True)
class Seen:
    """A block of any file: when, its time over that of its file on the cold board, and the machine meanwhile."""

    at_s: float
    slower: float
    clean: bool
    bits: int | None
    clock_mhz: float | None


def throttling(seen: Sequence[Seen], cold: float) -> tuple[float | None, Sign, str]:
    """When throttling was first seen, by which sign, and the evidence in words.

    Times are looked at only where the machine tells neither throttling nor clock: they rise on a warming board, too.

    Args:
        seen: every block, in the order of time.
        cold: until when the board counts as cold.
    """
    clocks = [block.clock_mhz for block in seen if block.clock_mhz and block.at_s <= cold]
    usual = median(clocks) if clocks else 0.0
    bits = any(block.bits is not None for block in seen)
    calm = [block for block in seen if block.clean]
    noise = robust_spread([block.slower for block in calm if block.at_s <= cold] or [1.0])
    limit = 1 + max(SLOWER, _NOISES * noise)
    signs: list[tuple[float, Sign, str]] = []
    if hot := next((block for block in seen if block.bits), None):
        signs.append((hot.at_s, "bits", f"the firmware's throttle bits: 0x{hot.bits:x}"))
    told = [(block.at_s, block.clock_mhz) for block in seen if block.clock_mhz]
    if (at := _lasting([clock < (1 - SLOWER) * usual for _, clock in told])) is not None:
        signs.append((told[at][0], "clock", f"the clock: {usual:.0f} to {told[at][1]:.0f} MHz"))
    if not bits and not told and (at := _lasting([block.slower > limit for block in calm])) is not None:
        signs.append((calm[at].at_s, "times", f"the times: lastingly {100 * (limit - 1):.0f} % above the cold ones"))
    if signs:
        return min(signs, key=lambda sign: sign[0])
    looked = [*(["the firmware's throttle bits"] if bits else []), *(["the clock"] if told else [])]
    return None, "", f"looked at: {', '.join(looked or ['the times'])}"


def _lasting(signs: Sequence[bool]) -> int | None:
    """The first place from which on a sign is seen in most of the next blocks."""
    for at, seen in enumerate(signs):
        following = signs[at : at + _STAYS]
        if seen and len(following) == _STAYS and sum(following) > 0.7 * _STAYS:
            return at
    return None
