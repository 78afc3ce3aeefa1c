"""Canonical JSON: one value, one byte string."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nodes import canonical

SIZE = 10_000
leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-canonical.INTEGER_MAX, canonical.INTEGER_MAX),
    st.text(st.characters(exclude_categories=("Cs",)), max_size=20),
)
values = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.text(st.characters(exclude_categories=("Cs",)), max_size=8), inner, max_size=4),
    ),
    max_leaves=12,
)


@settings(max_examples=100, deadline=None)
@given(values)
def test_value_comes_back_equal(value: object) -> None:
    data = canonical.encode(value)
    assert canonical.decode(data, SIZE) == value
    assert canonical.encode(canonical.decode(data, SIZE)) == data


def test_form_is_sorted_tight_and_unescaped() -> None:
    assert (
        canonical.encode({"b": [1, None, True], "a": 'caf\u00e9"\n'})
        == '{"a":"caf\u00e9\\"\\n","b":[1,null,true]}'.encode()
    )


@pytest.mark.parametrize(
    "data",
    [
        b'{"a": 1}',
        b'{"b":1,"a":2}',
        b'{"a":1,"a":1}',
        b"1.0",
        b"1e3",
        b"NaN",
        b"-Infinity",
        b"-0",
        b"01",
        b'"\\u0041"',
        b'"\\/"',
        b'"\xff"',
        b'"\\ud800"',
        b"[1]\n",
        b"\xef\xbb\xbf1",
        b"9007199254740992",
        b"1" * 5000,
        b"",
        b"[" * 100 + b"]" * 100,
        b"[" * 5_000,
        b'"' + b"a" * SIZE + b'"',
    ],
    ids=lambda data: repr(data[:16]),
)
def test_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(canonical.CanonicalError):
        canonical.decode(data, SIZE)


@pytest.mark.parametrize("value", [1.0, {1: 2}, b"", {"a": {1}}, 2**53, -(2**53), 10**1000, "\ud800"], ids=repr)
def test_value_without_canonical_form_is_refused(value: object) -> None:
    with pytest.raises(canonical.CanonicalError):
        canonical.encode(value)
