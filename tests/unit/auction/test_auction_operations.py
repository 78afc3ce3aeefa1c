"""Operations: what is an operation, and everything that is not."""

from __future__ import annotations

import json
import sys
import unicodedata
from itertools import pairwise

import pytest
from auction_harness import House, Person
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import UNSET

import fastpath
from auction import operations
from auction.operations import Bid, Fence, MalformedOperation, Open, Register, decode
from auction.text import is_acceptable
from auction.unicode_assigned import BOUNDARIES
from nodes import canonical

ID = "0123456789abcdef" * 2
KEY = fastpath.public_key(b"k" * 32).hex()

WELL_FORMED = [
    operations.register("ana", "Ana"),
    operations.register("ana-2.x_y", "Ana \u00c5", public_key=KEY, roles=["bidder", "issuer"]),
    operations.register("ana", "Ana", public_key=KEY, roles=[]),
    operations.rotate_key(KEY, "ab" * 64),
    operations.grant(ID, "admin"),
    operations.revoke(ID, "gateway"),
    operations.freeze(ID),
    operations.unfreeze(ID),
    operations.mint(ID, 5, "gr\u00fc\u00dfe \U0001f600"),
    operations.transfer(ID, 2**53 - 1),
    operations.open_auction("Lot", starting_price=1, closes_at_us=2, description="two\nlines\tand a tab"),
    operations.open_auction(
        "Lot",
        starting_price=1,
        closes_at_us=2,
        min_increment=3,
        soft_close_seconds=4,
        reserve_price=5,
        buy_now=6,
        opens_at_us=7,
        closes_at_max_us=8,
    ),
    operations.bid(ID, 5),
    operations.bid(ID, 5, 9),
    operations.close(ID),
    operations.cancel(ID, "why"),
    operations.fence(),
    operations.activate(2, 100),
]


@pytest.mark.parametrize("payload", WELL_FORMED, ids=lambda payload: json.loads(payload)["type"])
def test_encoders_give_canonical_bytes_of_the_same_operation(payload: bytes) -> None:
    assert canonical.encode(json.loads(payload)) == payload
    assert operations.canonical(decode(payload)) == payload


@pytest.mark.parametrize("payload", WELL_FORMED, ids=lambda payload: json.loads(payload)["type"])
def test_order_of_fields_white_space_and_escapes_do_not_matter(payload: bytes) -> None:
    fields = json.loads(payload)
    shuffled = dict(reversed(fields.items()))
    assert decode(json.dumps(shuffled, indent=2).encode()) == decode(payload)
    assert decode(b" \n" + json.dumps(fields, ensure_ascii=True).encode() + b"\t") == decode(payload)


@pytest.mark.parametrize("payload", WELL_FORMED, ids=lambda payload: json.loads(payload)["type"])
def test_any_field_repeated_unknown_missing_or_null_is_malformed(payload: bytes) -> None:
    fields = json.loads(payload)
    for name, value in fields.items():
        repeated = payload[:-1] + b"," + json.dumps({name: value}).encode()[1:]
        null = json.dumps({**fields, name: None}).encode()
        listed = json.dumps({**fields, name: [value]}).encode()
        for wrong in (repeated, null, listed):
            with pytest.raises(MalformedOperation):
                decode(wrong)
        missing = json.dumps({key: value for key, value in fields.items() if key != name}).encode()
        optional = {"max_amount", "public_key", "roles", "reserve_price", "buy_now", "opens_at_us", "closes_at_max_us"}
        if name not in optional or fields["type"] == "account.rotate_key":
            with pytest.raises(MalformedOperation):
                decode(missing)
    with pytest.raises(MalformedOperation):
        decode(json.dumps({**fields, "extra": 1}).encode())


BID = '{"type":"auction.bid","auction":"%s","amount":%s}'
MALFORMED = {
    "empty": b"",
    "not json": b"bid",
    "not an object": b'["auction.bid"]',
    "a number": b"5",
    "null": b"null",
    "no type": b'{"auction":"%s","amount":5}' % ID.encode(),
    "unknown type": b'{"type":"auction.steal"}',
    "type is no text": b'{"type":5}',
    "trailing bytes": operations.fence() + b"x",
    "two values": operations.fence() + operations.fence(),
    "trailing comma": b'{"type":"session.fence",}',
    "comment": b'{"type":"session.fence"}//x',
    "single quotes": b"{'type':'session.fence'}",
    "byte order mark": b"\xef\xbb\xbf" + operations.fence(),
    "utf-16": '{"type":"session.fence"}'.encode("utf-16"),
    "duplicate type": b'{"type":"session.fence","type":"session.fence"}',
    "duplicate by escape": b'{"type":"session.fence","\\u0074ype":"session.fence"}',
    "true": (BID % (ID, "true")).encode(),
    "text for a number": (BID % (ID, '"5"')).encode(),
    "fraction": (BID % (ID, "5.5")).encode(),
    "whole fraction": (BID % (ID, "5.0")).encode(),
    "exponent": (BID % (ID, "5e0")).encode(),
    "NaN": (BID % (ID, "NaN")).encode(),
    "Infinity": (BID % (ID, "Infinity")).encode(),
    "minus Infinity": (BID % (ID, "-Infinity")).encode(),
    "leading zero": (BID % (ID, "05")).encode(),
    "plus": (BID % (ID, "+5")).encode(),
    "2^53": (BID % (ID, 2**53)).encode(),
    "minus 2^53": (BID % (ID, -(2**53))).encode(),
    "2^64": (BID % (ID, 2**64)).encode(),
    "5000 digits": (BID % (ID, "9" * 5_000)).encode(),
    "short id": (BID % (ID[:-1], 5)).encode(),
    "long id": (BID % (ID + "0", 5)).encode(),
    "upper case id": (BID % (ID.upper(), 5)).encode(),
    "id with a space": (BID % (ID[:-1] + " ", 5)).encode(),
    "id with a line feed": (BID % (ID[:-1] + "0\\n", 5)).encode(),
    "maximum below amount": b'{"type":"auction.bid","auction":"%s","amount":5,"max_amount":4}' % ID.encode(),
    "deep": b'{"type":"auction.bid","auction":' + b"[" * 9 + b"]" * 9 + b"}",
    "very deep": b'{"type":' + b"[" * 60_000,
    "very deep objects": b'{"x":' * 10_000,
    "deep in an unknown field": b'{"type":"session.fence","x":' + b"[" * 30_000 + b"]" * 30_000 + b"}",
    "invalid UTF-8": b'{"type":"money.mint","to":"%s","amount":5,"memo":"\xff"}' % ID.encode(),
    "overlong UTF-8": b'{"type":"money.mint","to":"%s","amount":5,"memo":"\xc0\x80"}' % ID.encode(),
    "surrogate in UTF-8": b'{"type":"money.mint","to":"%s","amount":5,"memo":"\xed\xa0\x80"}' % ID.encode(),
    "lone surrogate": b'{"type":"money.mint","to":"%s","amount":5,"memo":"\\ud800"}' % ID.encode(),
    "lone low surrogate": b'{"type":"money.mint","to":"%s","amount":5,"memo":"\\udc00x"}' % ID.encode(),
    "raw control": b'{"type":"money.mint","to":"%s","amount":5,"memo":"\x01"}' % ID.encode(),
    "escaped control": b'{"type":"money.mint","to":"%s","amount":5,"memo":"\\u0001"}' % ID.encode(),
    "NUL": b'{"type":"money.mint","to":"%s","amount":5,"memo":"\\u0000"}' % ID.encode(),
    "line feed in a memo": b'{"type":"money.mint","to":"%s","amount":5,"memo":"a\\nb"}' % ID.encode(),
    "C1 control": '{"type":"money.mint","to":"%s","amount":5,"memo":"\u0085"}'.replace("%s", ID).encode(),
    "not NFC": '{"type":"money.mint","to":"%s","amount":5,"memo":"e\u0301"}'.replace("%s", ID).encode(),
    "not NFC by escape": b'{"type":"money.mint","to":"%s","amount":5,"memo":"e\\u0301"}' % ID.encode(),
    "unassigned character": '{"type":"money.mint","to":"%s","amount":5,"memo":"\u0378"}'.replace("%s", ID).encode(),
    "newer than Unicode 14": '{"type":"auction.cancel","auction":"%s","reason":"\U0001fae8"}'.replace(
        "%s", ID
    ).encode(),
    "noncharacter": '{"type":"money.mint","to":"%s","amount":5,"memo":"\ufffe"}'.replace("%s", ID).encode(),
    "long memo": b'{"type":"money.mint","to":"%s","amount":5,"memo":"%s"}' % (ID.encode(), b"m" * 201),
    "short handle": b'{"type":"account.register","handle":"ab","name":"x"}',
    "long handle": b'{"type":"account.register","handle":"%s","name":"x"}' % (b"a" * 33),
    "capital handle": b'{"type":"account.register","handle":"Ana","name":"x"}',
    "handle with a line feed": b'{"type":"account.register","handle":"ana\\n","name":"x"}',
    "empty name": b'{"type":"account.register","handle":"ana","name":""}',
    "long name": b'{"type":"account.register","handle":"ana","name":"%s"}' % (b"n" * 65),
    "unknown role": b'{"type":"account.register","handle":"ana","name":"x","roles":["king"]}',
    "role twice": b'{"type":"account.register","handle":"ana","name":"x","roles":["bidder","bidder"]}',
    "roles is text": b'{"type":"account.register","handle":"ana","name":"x","roles":"bidder"}',
    "key is no point": b'{"type":"account.register","handle":"ana","name":"x","public_key":"%s"}' % (b"ff" * 32),
    "key of small order": b'{"type":"account.register","handle":"ana","name":"x","public_key":"%s"}' % (b"00" * 32),
    "short key": b'{"type":"account.rotate_key","public_key":"%s","proof":"%s"}' % (b"0a" * 31, b"0a" * 64),
    "new key of small order": b'{"type":"account.rotate_key","public_key":"%s","proof":"%s"}'
    % (b"00" * 32, b"0a" * 64),
    "short proof": b'{"type":"account.rotate_key","public_key":"%s","proof":"%s"}' % (KEY.encode(), b"0a" * 63),
    "too large": operations.fence()[:-1] + b" " * 65_536 + b"}",
}


@pytest.mark.parametrize("payload", MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed_bytes_are_refused(payload: bytes) -> None:
    with pytest.raises(MalformedOperation) as refusal:
        decode(payload)
    assert str(refusal.value)


def test_malformed_operation_is_a_replicated_outcome_that_leaves_the_state_alone() -> None:
    ana = Person("ana", "admin", "bidder")
    house = House(ana)
    before = {name: dict(rows) for name, rows in house.rows.rows.items()}
    outcomes = house.block(*((ana.key, payload) for payload in MALFORMED.values()))
    assert {house.machine.code_name(outcome.status) for outcome in outcomes} == {"malformed_operation"}
    assert {outcome.result for outcome in outcomes} == {b'{"effects":[],"error":"malformed_operation"}'}
    assert house.rows.rows == before


@pytest.mark.parametrize(
    ("encode", "arguments"),
    [
        (operations.bid, (ID, 5, 4)),
        (operations.bid, ("xyz", 5)),
        (operations.mint, (ID, 2**53)),
        (operations.cancel, (ID, "a" * 201)),
        (operations.grant, (ID, "king")),
    ],
)
def test_encoders_refuse_what_would_be_malformed(encode: object, arguments: tuple[object, ...]) -> None:
    assert callable(encode)
    with pytest.raises(MalformedOperation):
        encode(*arguments)


@pytest.mark.parametrize("characters", [199, 200, 201])
def test_title_has_at_most_200_characters(characters: int) -> None:
    payload = json.dumps(
        {**json.loads(operations.open_auction("t", starting_price=1, closes_at_us=2)), "title": "\u00e9" * characters}
    ).encode()
    if characters <= 200:
        assert isinstance(decode(payload), Open)
    else:
        with pytest.raises(MalformedOperation):
            decode(payload)


def test_description_has_at_most_4000_characters() -> None:
    operations.open_auction("t", starting_price=1, closes_at_us=2, description="\U0001f600" * 4_000)
    with pytest.raises(MalformedOperation):
        operations.open_auction("t", starting_price=1, closes_at_us=2, description="a" * 4_001)


def test_absent_optional_fields_are_unset() -> None:
    bid = decode(operations.bid(ID, 5))
    assert isinstance(bid, Bid)
    assert bid.max_amount is UNSET
    register = decode(operations.register("ana", "Ana"))
    assert isinstance(register, Register)
    assert register.public_key is UNSET
    assert isinstance(decode(operations.fence()), Fence)


def test_extreme_integers_are_well_formed() -> None:
    for amount in (-(2**53) + 1, -1, 0, 2**53 - 1):
        bid = decode((BID % (ID, amount)).encode())
        assert isinstance(bid, Bid)
        assert bid.amount == amount


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200) | st.text(max_size=100).map(str.encode))
def test_arbitrary_bytes_never_raise_anything_else(payload: bytes) -> None:
    with pytest.raises(MalformedOperation):
        decode(payload)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(WELL_FORMED), st.data())
def test_one_changed_byte_is_refused_or_another_operation(payload: bytes, data: st.DataObject) -> None:
    position = data.draw(st.integers(0, len(payload) - 1))
    changed = payload[:position] + bytes([data.draw(st.integers(0, 255))]) + payload[position + 1 :]
    try:
        operation = decode(changed)
    except MalformedOperation:
        return
    assert json.loads(operations.canonical(operation)) == json.loads(changed)


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=20))
def test_accepted_text_is_stable_under_normalisation(text: str) -> None:
    if is_acceptable(text, 20):
        assert unicodedata.normalize("NFC", text) == text
        fastpath.encode_row(1, (text,))
        assert json.loads(canonical.encode([text])) == [text]


def test_assigned_characters_are_those_of_unicode_14() -> None:
    assert all(first < second for first, second in pairwise(BOUNDARIES))
    if unicodedata.unidata_version == "14.0.0":
        again = []
        assigned = False
        for point in range(sys.maxunicode + 1):
            if (unicodedata.category(chr(point)) != "Cn") != assigned:
                assigned = not assigned
                again.append(point)
        assert tuple(again) == BOUNDARIES
    for first, end in zip(BOUNDARIES[::2], BOUNDARIES[1::2], strict=True):
        assert unicodedata.category(chr(first)) != "Cn"
        assert unicodedata.category(chr(end - 1)) != "Cn"
