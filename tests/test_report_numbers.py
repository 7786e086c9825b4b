import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprune.report import numbers


@pytest.mark.parametrize(
    ("ratio", "ci95", "text"),
    [
        (1.3124, (1.274, 1.351), "1.31x [1.27, 1.35]"),
        (1.3102, (1.3031, 1.3172), "1.310x [1.303, 1.317]"),
        (1.92, (1.4, 2.6), "1.9x [1.4, 2.6]"),
        (12.34, (9.0, 16.0), "12x [9, 16]"),
        (1.0, (1.0, 1.0), "1.00x [1.00, 1.00]"),
    ],
)
def test_a_ratio_has_as_many_digits_as_its_interval_supports(ratio, ci95, text):
    assert numbers.speed_up(ratio, ci95) == text


def test_a_bound_is_never_rounded_onto_one():
    assert numbers.bounds((1.004, 1.09)) == "[1.004, 1.090]"
    assert numbers.bounds((0.93, 0.996)) == "[0.930, 0.996]"


@given(st.floats(0.2, 5), st.floats(1e-3, 2))
def test_the_printed_interval_lies_on_the_side_of_one_where_the_interval_lies(low, width):
    high = low + width
    first, last = (float(text) for text in numbers.bounds((low, high)).strip("[]").split(", "))
    for value, printed in ((low, first), (high, last)):
        if abs(value - 1) > 1e-4:
            assert math.copysign(1, value - 1) == math.copysign(1, printed - 1)
            assert printed != 1


@pytest.mark.parametrize(
    ("value", "ci95", "text"),
    [
        (0.7787, (0.7526, 0.8028), "77.9 % [75.3, 80.3]"),
        (0.937, (0.9321, 0.9416), "93.7 % [93.2, 94.2]"),
        (0.5, (0.2, 0.8), "50 % [20, 80]"),
        (0.99971, None, "99.97 %"),
        (1.0, None, "100 %"),
    ],
)
def test_a_share_is_written_in_per_cent(value, ci95, text):
    assert numbers.share(value, ci95) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (0.04123, "0.0412"), (1.234, "1.23"), (45.84, "45.8"), (1234.5, "1,234")]
)
def test_three_significant_digits_never_in_powers_of_ten(value, text):
    assert numbers.significant(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(999, "999 B"), (1_234, "1.23 kB"), (999_700, "1.00 MB"), (13_912_345, "13.9 MB"), (1.5e9, "1.50 GB")],
)
def test_sizes_have_decimal_prefixes(value, text):
    assert numbers.scaled(value, "B") == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.412, "0.41 s"), (9.999, "10.0 s"), (59.97, "1 min 00 s"), (185, "3 min 05 s"), (119.6, "2 min 00 s")],
)
def test_durations(seconds, text):
    assert numbers.duration(seconds) == text


def test_whole_numbers_have_thousands_separators():
    assert numbers.count(300_774_272) == "300,774,272"
