"""Numbers as text, with no more digits than are known, and thousands separators."""

from __future__ import annotations

import math

_MOST_DECIMALS = 4


def decimals(width: float) -> int:
    """How many decimals an interval of this width supports.

    Two significant digits of the width where they begin with 1 or 2, else one (after the rounding rule of the
    Particle Data Group, Review of Particle Physics, section "Introduction").
    """
    if not width > 0:
        return 2
    exponent = math.floor(math.log10(width))
    digits = 2 if width / 10**exponent < 3 else 1
    return min(max(digits - 1 - exponent, 0), _MOST_DECIMALS)


def speed_up(ratio: float, ci95: tuple[float, float]) -> str:
    """A ratio with its interval: "1.31x [1.27, 1.35]"."""
    return f"{times(ratio, ci95)} {bounds(ci95)}"


def times(ratio: float, ci95: tuple[float, float]) -> str:
    """A ratio, rounded by its interval: "1.31x"."""
    return f"{ratio:,.{_ratio_decimals(ci95)}f}x"


def bounds(ci95: tuple[float, float]) -> str:
    """An interval of a ratio: "[1.27, 1.35]"."""
    places = _ratio_decimals(ci95)
    return f"[{ci95[0]:,.{places}f}, {ci95[1]:,.{places}f}]"


def change(detectable: float) -> str:
    """The smallest change that would have been seen: "2.1 %"."""
    return f"{significant(100 * detectable, 2)} %"


def share(value: float, ci95: tuple[float, float] | None = None) -> str:
    """A share in per cent, with its 95 % interval where there is one: "77.9 % [75.3, 80.3]"."""
    if ci95 is None:
        return f"{100 * value:.4g} %"
    low, high = ci95
    # Rounded by half the interval: its ends are quoted too.
    places = min(max(decimals(50 * (high - low)), 0), 2)
    return f"{100 * value:.{places}f} % [{100 * low:.{places}f}, {100 * high:.{places}f}]"


def kept(after: float, before: float) -> str:
    """What is left, in per cent: "64.8 %"."""
    return f"{100 * after / before:.1f} %" if before else "-"


def significant(value: float, digits: int = 3) -> str:
    """A number with so many significant digits and thousands separators, never in powers of ten: "0.0412", "45.8"."""
    if value == 0:
        return "0"
    # Rounded first: 0.9997 has the exponent of 1.00.
    exponent = int(f"{value:.{digits - 1}e}".partition("e")[2])
    return f"{value:,.{max(digits - 1 - exponent, 0)}f}"


def count(value: int) -> str:
    """A whole number with thousands separators."""
    return f"{value:,}"


def scaled(value: float, unit: str = "") -> str:
    """A number with a decimal prefix and three digits: "301 M", "13.9 MB" (1 MB = 10^6 bytes)."""
    for prefix, factor in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        # 999,700 is written "1.00 M", not "1,000 k".
        if value >= factor * 0.9995:
            return f"{significant(value / factor)} {prefix}{unit}"
    return f"{value:,.0f} {unit}".rstrip()


def duration(seconds: float) -> str:
    """A wall time: "0.41 s", "12.3 s", "3 min 05 s"."""
    if seconds < 59.95:
        return f"{seconds:.2f} s" if seconds < 9.995 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes:,} min {rest:02d} s"


def _ratio_decimals(ci95: tuple[float, float]) -> int:
    places = decimals(ci95[1] - ci95[0])
    # A bound that is not 1 must not be rounded onto it: the verdict rests on which side it lies.
    while places < _MOST_DECIMALS and any(bound != 1 and round(bound, places) == 1 for bound in ci95):
        places += 1
    return places
