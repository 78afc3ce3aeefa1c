"""Money and time as people write them: '1250' is minor units, '12.50' is major units of the currency.

Amounts are integers of minor units everywhere else. There are no floats here either.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from auction.cli.failure import usage

AMOUNT_MAX = 2**53 - 1
_DURATION_UNITS_US = {"ms": 1_000, "s": 1_000_000, "m": 60_000_000, "h": 3_600_000_000, "d": 86_400_000_000}


@dataclass(frozen=True, slots=True)
class Currency:
    code: str
    exponent: int
    """Digits after the decimal point: 2 for EUR, 0 for JPY."""

    @classmethod
    def from_genesis(cls, application_genesis: Mapping[str, Any]) -> Currency:
        """The currency of a cluster; plain minor units where the genesis names none (another application)."""
        return cls(str(application_genesis.get("currency", "")), int(application_genesis.get("exponent", 0)))

    def format(self, amount: int) -> str:
        """1250 -> '1250 (12.50 EUR)'."""
        if self.exponent == 0:
            return f"{amount} {self.code}".rstrip()
        major, minor = divmod(abs(amount), 10**self.exponent)
        sign = "-" if amount < 0 else ""
        return f"{amount} ({sign}{major}.{minor:0{self.exponent}d} {self.code})"

    def parse(self, text: str) -> int:
        """Minor units of '1250' or, with a decimal point and exactly `exponent` digits, of '12.50'."""
        match = re.fullmatch(r"(\d{1,16})(?:\.(\d+))?", text)
        if match is None:
            raise usage("invalid_amount", f"'{text}' is not an amount", "write 1250 (minor units) or 12.50")
        major, fraction = match.groups()
        if fraction is None:
            amount = int(major)
        elif len(fraction) != self.exponent:
            detail = f"{self.code} has {self.exponent} digits after the point, not {len(fraction)}"
            raise usage("invalid_amount", detail)
        else:
            amount = int(major) * 10**self.exponent + int(fraction)
        if amount > AMOUNT_MAX:
            raise usage("invalid_amount", f"{text} is beyond the largest amount, {AMOUNT_MAX} minor units")
        return amount


def parse_duration_us(text: str) -> int:
    """Microseconds of '10s', '1500ms', '5m', '2h', '3d'."""
    match = re.fullmatch(r"(\d{1,9})(ms|s|m|h|d)", text)
    if match is None:
        raise usage("invalid_duration", f"'{text}' is not a duration", "write 10s, 5m, 2h or 3d")
    return int(match[1]) * _DURATION_UNITS_US[match[2]]


def parse_time_us(text: str) -> int:
    """A moment in microseconds since 1970: '+10s' from now, an ISO 8601 time, or the number itself."""
    if text.startswith("+"):
        return time.time_ns() // 1_000 + parse_duration_us(text[1:])
    if text.isdecimal():
        return int(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        hint = "write +10m (from now) or 2030-01-31T12:00:00+00:00"
        raise usage("invalid_time", f"'{text}' is not a time", hint) from error
    if moment.tzinfo is None:
        raise usage("invalid_time", f"'{text}' names no time zone", f"write {text}+00:00 for UTC")
    return int(moment.timestamp()) * 1_000_000 + moment.microsecond


def format_time(time_us: int | None) -> str:
    """'2030-01-31 12:00:00.123 UTC', or '-' where there is none."""
    if not time_us:
        return "-"
    seconds, fraction_us = divmod(time_us, 1_000_000)
    moment = datetime.fromtimestamp(seconds, UTC)
    return f"{moment:%Y-%m-%d %H:%M:%S}.{fraction_us // 1_000:03d} UTC"
