"""What must hold of the pinned Ed25519 before a replica may use it; run at import of `fastpath`.

Replicas that judge one signature differently disagree on a whole batch, so a library that was
upgraded, patched or built otherwise must stop the process at once and not at the first odd signature.
"""

from __future__ import annotations

from typing import Protocol

_L = 2**252 + 27742317777372353535851937790883648493

# RFC 8032, section 7.1, test 2.
SEED = bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")
PUBLIC_KEY = bytes.fromhex("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c")
MESSAGE = b"\x72"
SIGNATURE = bytes.fromhex(
    "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
    "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
)

IDENTITY = (1).to_bytes(32, "little")
ORDER_EIGHT = bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05")
NON_CANONICAL = (2**255 - 19 + 3).to_bytes(32, "little")


class Ed25519(Protocol):
    """The part of a build that is tested here."""

    def public_key(self, seed: bytes) -> bytes: ...
    def sign(self, secret_key: bytes, message: bytes) -> bytes: ...
    def verify(self, public_key: bytes, message: bytes, signature: bytes) -> bool: ...


def self_test(build: Ed25519) -> None:
    """RuntimeError that names the first rule which does not hold."""
    s_plus_l = (int.from_bytes(SIGNATURE[32:], "little") + _L).to_bytes(32, "little")
    rules = {
        "the public key of RFC 8032": build.public_key(SEED) == PUBLIC_KEY,
        "the signature of RFC 8032": build.sign(SEED, MESSAGE) == SIGNATURE,
        "a good signature verifies": build.verify(PUBLIC_KEY, MESSAGE, SIGNATURE),
        "another message does not": not build.verify(PUBLIC_KEY, b"\x73", SIGNATURE),
        "S >= L is refused": not build.verify(PUBLIC_KEY, MESSAGE, SIGNATURE[:32] + s_plus_l),
        # With A the identity, R = [S]B satisfies the equation for every message: only the pre-check stops it.
        "A of small order is refused": not build.verify(IDENTITY, MESSAGE, PUBLIC_KEY + _scalar_of(SEED)),
        "R of small order is refused": not build.verify(PUBLIC_KEY, MESSAGE, ORDER_EIGHT + SIGNATURE[32:]),
        "a non-canonical A is refused": not build.verify(NON_CANONICAL, MESSAGE, SIGNATURE),
        "a non-canonical R is refused": not build.verify(PUBLIC_KEY, MESSAGE, NON_CANONICAL + SIGNATURE[32:]),
    }
    broken = [rule for rule, holds in rules.items() if not holds]
    if broken:
        raise RuntimeError(f"Ed25519 self-test failed: {broken[0]}; is PyNaCl the pinned version?")


def _scalar_of(seed: bytes) -> bytes:
    """The clamped secret scalar of a seed, reduced mod L (RFC 8032, section 5.1.5)."""
    import hashlib

    h = bytearray(hashlib.sha512(seed).digest()[:32])
    h[0] &= 248
    h[31] = h[31] & 127 | 64
    return (int.from_bytes(h, "little") % _L).to_bytes(32, "little")
