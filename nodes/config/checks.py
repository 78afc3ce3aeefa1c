"""Checks of configuration values: one error type that names the field, the problem and the fix."""

from __future__ import annotations

import ipaddress
import re
from typing import Any

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")
_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")


class ConfigError(ValueError):
    """A configuration that cannot be used: `field` names where, the text says what is wrong and the fix."""

    def __init__(self, field: str, problem: str, fix: str) -> None:
        super().__init__(f"{field}: {problem}; {fix}")
        self.field = field
        self.problem = problem
        self.fix = fix


def check_host(field: str, host: object) -> None:
    """ConfigError unless `host` is an IP address or a host name that DNS could hold."""
    if isinstance(host, str) and 0 < len(host) <= 253:
        try:
            ipaddress.ip_address(host)
        except ValueError:
            labels = host.split(".")
            if all(_LABEL.fullmatch(label) for label in labels) and not labels[-1].isdigit():
                return
        else:
            if "%" not in host:
                return
    raise ConfigError(field, f"{host!r} is no host", "give a host name or an IP address, without a port")


def require_fields(where: str, value: object, names: frozenset[str]) -> dict[str, Any]:
    """`value` as an object with exactly the fields `names`, or ConfigError."""
    if not isinstance(value, dict):
        raise ConfigError(where, "not an object", "give a JSON object")
    for name in sorted(names - value.keys()):
        raise ConfigError(f"{where}.{name}", "missing", "add it")
    for name in sorted(value.keys() - names):
        raise ConfigError(f"{where}.{name}", "unknown", "remove it, or check its spelling")
    return value


def check_integer(field: str, value: object, low: int, high: int) -> None:
    """ConfigError unless `value` is an integer (no bool) of low..high, both included."""
    if type(value) is not int:
        raise ConfigError(field, f"{value!r} is not an integer", f"give {low} to {high}")
    if not low <= value <= high:
        raise ConfigError(field, f"{value} is out of range", f"give {low} to {high}")


def parse_hex(field: str, value: object, size: int) -> bytes:
    """The `size` bytes of lower-case hex text, or ConfigError."""
    if isinstance(value, str) and re.fullmatch(r"[0-9a-f]*", value) and len(value) == 2 * size:
        return bytes.fromhex(value)
    raise ConfigError(field, f"{value!r} is not {2 * size} lower-case hex digits", "copy it from the key file")


def check_name(field: str, value: object) -> None:
    """ConfigError unless `value` is a short lower-case name."""
    if not isinstance(value, str) or _NAME.fullmatch(value) is None:
        raise ConfigError(field, f"{value!r} is no name", "use up to 32 of a-z, 0-9 and inner hyphens")
