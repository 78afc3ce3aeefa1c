"""Canonical JSON: one byte string for one value, so that JSON can be hashed and compared.

Objects with keys sorted by code point, no white space, integers only (at most 2^53-1 in magnitude, so
that every language holds them exactly), UTF-8 unescaped except where JSON requires an escape.
`decode` accepts exactly what `encode` produces. Deliberately elsewhere: what the fields mean.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NoReturn

INTEGER_MAX = 2**53 - 1
"""Largest integer that JavaScript and every JSON library hold exactly."""
DEPTH_MAX = 16
"""Deepest nesting of objects and arrays; bounds recursion."""


class CanonicalError(ValueError):
    """The bytes are not canonical JSON, or the value has none."""


def encode(value: Any) -> bytes:
    """Canonical bytes of a value made of dict (text keys), list, tuple, str, int, bool and None.

    CanonicalError for floats, integers beyond 2^53-1, other types, lone surrogates and nesting over 16.
    """
    _check(value, 0)
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise CanonicalError("text with a lone surrogate") from error


def decode(data: bytes, size_max: int) -> Any:
    """The value of canonical bytes; CanonicalError for anything that `encode` would not have written."""
    if len(data) > size_max:
        raise CanonicalError(f"{len(data)} bytes, at most {size_max} allowed")
    try:
        text = bytes(data).decode("utf-8")
    except UnicodeDecodeError as error:
        raise CanonicalError("not UTF-8") from error
    try:
        value = json.loads(text, object_pairs_hook=_object, parse_float=_refuse_number, parse_constant=_refuse_number)
    except RecursionError as error:
        raise CanonicalError(f"nesting over {DEPTH_MAX}") from error
    except CanonicalError:
        raise
    except ValueError as error:
        raise CanonicalError(f"not JSON: {error}") from error
    if encode(value) != data:
        raise CanonicalError("not in canonical form (sorted keys, no white space, no needless escapes)")
    return value


def _check(value: Any, depth: int) -> None:
    if depth > DEPTH_MAX:
        raise CanonicalError(f"nesting over {DEPTH_MAX}")
    if value is None or isinstance(value, str | bool):
        return
    if isinstance(value, int):
        if not -INTEGER_MAX <= value <= INTEGER_MAX:
            raise CanonicalError(f"integer {value:.3e} is beyond 2^53-1" if abs(value) < 1 << 900 else "huge integer")
    elif isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise CanonicalError("an object's keys are text")
            _check(item, depth + 1)
    elif isinstance(value, list | tuple):
        for item in value:
            _check(item, depth + 1)
    else:
        raise CanonicalError(f"{type(value).__name__} has no canonical JSON")


def _object(pairs: list[tuple[str, Any]]) -> Mapping[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise CanonicalError("an object names a field twice")
    return value


def _refuse_number(text: str) -> NoReturn:
    raise CanonicalError(f"{text[:40]} is not an integer")
