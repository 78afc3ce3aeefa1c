"""Amounts and times as people write them; never a float."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auction.cli.failure import ExitCode, Failure
from auction.cli.money import AMOUNT_MAX, Currency, format_time, parse_duration_us, parse_time_us

EURO = Currency("EUR", 2)
YEN = Currency("JPY", 0)


@pytest.mark.parametrize(("text", "units"), [("0", 0), ("1250", 1250), ("12.50", 1250), ("0.05", 5), ("007", 7)])
def test_amount_is_minor_units_or_has_all_digits_of_the_currency(text: str, units: int) -> None:
    assert EURO.parse(text) == units


@pytest.mark.parametrize(
    "text", ["", "-1", "+1", "1.5", "1.500", "1,50", ".5", "1.", "1e3", "ten", "9" * 17, str(2**53)]
)
def test_anything_else_is_no_amount(text: str) -> None:
    with pytest.raises(Failure) as caught:
        EURO.parse(text)
    assert (caught.value.exit_code, caught.value.code) == (ExitCode.USAGE, "invalid_amount")


def test_currency_without_minor_units_takes_no_point() -> None:
    assert YEN.parse("12") == 12
    with pytest.raises(Failure):
        YEN.parse("12.0")


@given(st.integers(0, AMOUNT_MAX), st.integers(1, 8))
def test_formatted_amount_reads_back(units: int, exponent: int) -> None:
    shown = Currency("XYZ", exponent).format(units)
    minor, _, major = shown.partition(" (")
    assert int(minor) == units
    digits = major.removesuffix(" XYZ)")
    if len(digits.partition(".")[0]) <= 16:
        assert Currency("XYZ", exponent).parse(digits) == units


@pytest.mark.parametrize(
    ("text", "expected"), [("1ms", 1_000), ("10s", 10_000_000), ("5m", 300_000_000), ("2h", 7_200_000_000)]
)
def test_duration(text: str, expected: int) -> None:
    assert parse_duration_us(text) == expected


@pytest.mark.parametrize("text", ["", "10", "s", "-1s", "1.5s", "1 s", "1w"])
def test_malformed_duration_is_refused(text: str) -> None:
    with pytest.raises(Failure):
        parse_duration_us(text)


def test_time_is_relative_absolute_or_a_number() -> None:
    now_us = time.time_ns() // 1_000
    assert 60_000_000 <= parse_time_us("+1m") - now_us < 70_000_000
    assert parse_time_us("1970-01-01T00:00:01.5+00:00") == 1_500_000
    assert parse_time_us("1970-01-01T01:00:00+01:00") == 0
    assert parse_time_us("123") == 123


def test_time_without_a_zone_is_refused() -> None:
    with pytest.raises(Failure, match="time zone"):
        parse_time_us("2030-01-01T00:00:00")


def test_time_is_shown_in_utc() -> None:
    assert format_time(1_500_000) == "1970-01-01 00:00:01.500 UTC"
    assert format_time(None) == "-"
