"""Ed25519: RFC 8032, and the cases in which implementations are known to differ.

Chalkias, Garillot, Nikolaenko, Taming the many EdDSAs (2020): the cases are made here with a small
implementation of the curve, so that each one says what is odd about it.
"""

from __future__ import annotations

import hashlib
import importlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
SEED = bytes(range(1, 33))


def add(a, b):
    """Affine addition on the twisted Edwards curve."""
    (x1, y1), (x2, y2) = a, b
    product = D * x1 * x2 * y1 * y2 % P
    x = (x1 * y2 + x2 * y1) * pow(1 + product, P - 2, P) % P
    y = (y1 * y2 + x1 * x2) * pow(1 - product, P - 2, P) % P
    return x, y


def multiply(scalar, point):
    result = (0, 1)
    while scalar:
        if scalar & 1:
            result = add(result, point)
        point = add(point, point)
        scalar >>= 1
    return result


def recover_x(y, sign):
    square = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(square, (P + 3) // 8, P)
    if x * x % P != square:
        x = x * pow(2, (P - 1) // 4, P) % P
    assert x * x % P == square
    return P - x if x & 1 != sign else x


def encode(point):
    return (point[1] | (point[0] & 1) << 255).to_bytes(32, "little")


BASE = (recover_x(4 * pow(5, P - 2, P) % P, 0), 4 * pow(5, P - 2, P) % P)
ORDER_EIGHT_Y = 2707385501144840649318225287225658788936804267575313519463743609750303402022
TORSION = [multiply(i, (recover_x(ORDER_EIGHT_Y, 0), ORDER_EIGHT_Y)) for i in range(8)]


def secret_scalar(seed):
    h = bytearray(hashlib.sha512(seed).digest()[:32])
    h[0] &= 248
    h[31] = h[31] & 127 | 64
    return int.from_bytes(h, "little")


def challenge(r, a, message):
    return int.from_bytes(hashlib.sha512(r + a + message).digest(), "little") % L


def sign_with(a_scalar, a_encoded, r_encoded, r_scalar, message):
    k = challenge(r_encoded, a_encoded, message)
    return r_encoded + ((r_scalar + k * a_scalar) % L).to_bytes(32, "little")


RFC_8032 = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155"
        "5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
    (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac"
        "18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
    ),
]


@pytest.mark.parametrize(("seed", "key", "message", "signature"), RFC_8032)
def test_ed25519_vectors_of_rfc_8032_hold(build, seed, key, message, signature):
    seed, key, message, signature = (bytes.fromhex(text) for text in (seed, key, message, signature))
    assert build.public_key(seed) == key
    assert build.sign(seed, message) == signature
    assert build.sign(seed + key, message) == signature
    assert build.verify(key, message, signature)
    assert build.public_key_is_valid(key)


def test_verify_refuses_every_changed_bit(build):
    key, message = build.public_key(SEED), b"message"
    signature = build.sign(SEED, message)
    for position in range(64):
        changed = bytearray(signature)
        changed[position] ^= 1 << position % 8
        assert not build.verify(key, message, changed)
    for position in range(32):
        changed = bytearray(key)
        changed[position] ^= 1 << position % 8
        assert not build.verify(changed, message, signature)
    assert not build.verify(key, b"messagf", signature)
    assert not build.verify(key, b"message\0", signature)


def test_verify_refuses_a_scalar_of_the_group_order_or_more(build):
    key, message = build.public_key(SEED), b"message"
    signature = build.sign(SEED, message)
    scalar = int.from_bytes(signature[32:], "little")
    for multiple in range(1, 16):
        larger = scalar + multiple * L
        if larger < 2**256:
            assert not build.verify(key, message, signature[:32] + larger.to_bytes(32, "little"))


def test_verify_refuses_every_small_order_key_even_where_the_equation_holds(build):
    accepted_by_the_equation = 0
    for i, point in enumerate(TORSION):
        assert multiply(8, point) == (0, 1)
        for attempt in range(20):
            message = bytes([i, attempt])
            r_scalar = 12345 + attempt
            r = encode(multiply(r_scalar, BASE))
            k = challenge(r, encode(point), message)
            accepted_by_the_equation += multiply(k, point) == (0, 1)
            assert not build.verify(encode(point), message, r + r_scalar.to_bytes(32, "little"))
    assert accepted_by_the_equation > 20


def test_verify_refuses_every_small_order_r_even_where_the_equation_holds(build):
    a, key = secret_scalar(SEED), build.public_key(SEED)
    for point in TORSION:
        r = encode(point)
        assert not build.verify(key, b"m", sign_with(a, key, r, 0, b"m"))


def non_canonical_encodings():
    """All encodings with y >= p, and the two points with x = 0 whose sign bit is set."""
    for y in range(P, 2**255):
        yield y.to_bytes(32, "little")
        yield (y | 1 << 255).to_bytes(32, "little")
    yield (1 | 1 << 255).to_bytes(32, "little")
    yield (P - 1 | 1 << 255).to_bytes(32, "little")


def test_verify_refuses_every_non_canonical_point(build):
    key, message = build.public_key(SEED), b"message"
    signature = build.sign(SEED, message)
    encodings = list(non_canonical_encodings())
    assert len(encodings) == 40
    for encoded in encodings:
        assert not build.verify(encoded, message, signature)
        assert not build.verify(key, message, encoded + signature[32:])
        assert not build.public_key_is_valid(encoded)


def test_prechecks_refuse_odd_points_without_the_library():
    for check in (
        importlib.import_module("fastpath._sodium").precheck,
        importlib.import_module("fastpath._py").precheck,
    ):
        for point in TORSION:
            assert not check(encode(point))
        for encoded in non_canonical_encodings():
            assert not check(encoded)
        for scalar in range(1, 20):
            assert check(encode(multiply(scalar, BASE)))
        assert check((P - 2).to_bytes(32, "little"))


def test_verify_refuses_a_non_canonical_r_that_the_equation_would_take(build):
    # R = identity written as y = p + 1: S*B = k*A holds, and only the encoding is wrong.
    a, key = secret_scalar(SEED), build.public_key(SEED)
    r = (P + 1).to_bytes(32, "little")
    assert not build.verify(key, b"m", sign_with(a, key, r, 0, b"m"))


def test_verify_of_a_mixed_order_key_is_cofactorless(build):
    # A = a*B + T with T of order 8: the cofactored equation always holds, ours only where 8 divides k.
    a = secret_scalar(SEED)
    mixed = encode(add(multiply(a, BASE), TORSION[1]))
    r_scalar = 987654321
    r = encode(multiply(r_scalar, BASE))
    seen = set()
    for attempt in range(64):
        message = bytes([attempt])
        holds = challenge(r, mixed, message) % 8 == 0
        assert build.verify(mixed, message, sign_with(a, mixed, r, r_scalar, message)) == holds
        seen.add(holds)
    assert seen == {True, False}
    assert not build.public_key_is_valid(mixed)


def test_verify_of_a_mixed_order_r_is_cofactorless(build):
    a, key = secret_scalar(SEED), build.public_key(SEED)
    r_scalar = 55555
    for point in TORSION[1:]:
        r = encode(add(multiply(r_scalar, BASE), point))
        assert not build.verify(key, b"m", sign_with(a, key, r, r_scalar, b"m"))
    r = encode(multiply(r_scalar, BASE))
    assert build.verify(key, b"m", sign_with(a, key, r, r_scalar, b"m"))


def test_verify_refuses_what_is_not_on_the_curve(build):
    signature = build.sign(SEED, b"m")
    refused = 0
    for y in range(2, 60):
        encoded = y.to_bytes(32, "little")
        square = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
        if pow(square, (P - 1) // 2, P) != 1:
            assert not build.verify(encoded, b"m", signature)
            assert not build.public_key_is_valid(encoded)
            refused += 1
    assert refused > 20


def test_public_key_is_valid_refuses_small_order_and_other_lengths(build):
    for point in TORSION:
        assert not build.public_key_is_valid(encode(point))
    for wrong in (b"", bytes(31), bytes(33)):
        assert not build.public_key_is_valid(wrong)


def test_ed25519_refuses_other_lengths(build):
    key, signature = build.public_key(SEED), build.sign(SEED, b"m")
    for call in (
        lambda: build.verify(key[:-1], b"m", signature),
        lambda: build.verify(key, b"m", signature[:-1]),
        lambda: build.verify(key, b"m", signature + b"\0"),
        lambda: build.verify_many([(key, b"m", signature), (key, b"m", b"")]),
        lambda: build.sign(SEED[:-1], b"m"),
        lambda: build.sign(SEED + b"\0", b"m"),
        lambda: build.public_key(SEED[:-1]),
    ):
        with pytest.raises(ValueError):
            call()


def test_verify_many_flags_each_item(build):
    key = build.public_key(SEED)
    items = []
    for i in range(20):
        message = bytes([i]) * i * 100
        signature = build.sign(SEED, message)
        items.append((key, message if i % 3 else message + b"x", signature))
    assert build.verify_many(items) == bytes([bool(i % 3) for i in range(20)])
    assert build.verify_many([]) == b""


@settings(max_examples=60, deadline=None)
@given(
    seed=st.binary(min_size=32, max_size=32),
    message=st.binary(max_size=300),
    flip=st.integers(0, 64 * 8 - 1),
    signature=st.binary(min_size=62, max_size=66),
)
def test_ed25519_parity_holds(same, seed, message, flip, signature):
    key = same(lambda build: build.public_key(seed))
    good = same(lambda build: build.sign(seed, message))
    changed = bytearray(good)
    changed[flip // 8] ^= 1 << flip % 8
    assert same(lambda build: build.verify(key, message, good)) is True
    assert same(lambda build: build.verify(key, message, changed)) is False
    same(lambda build: build.verify(key, message, signature))
    same(lambda build: build.verify(signature[:32], message, good))
    same(lambda build: build.public_key_is_valid(signature[:32]))
    same(lambda build: build.verify_many([(key, message, good), (key, message, changed)]))
