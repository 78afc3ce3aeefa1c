"""Operations: the signed JSON of a bidder becomes a typed value, or is refused; and the way back for clients.

Strict, as interface.md 2 demands: unknown, missing, duplicate or wrongly typed fields, integers beyond
2^53-1, fractions, NaN, nesting, text that is not UTF-8 in NFC, a size over 64 KiB are all malformed.
`decode` depends on the bytes alone. Its message is for people and must never enter a result, which is
hashed: it comes from a library. Ids and keys are lower-case hexadecimal; times are block time in
microseconds. Deliberately elsewhere: whether amounts and times make sense (`rules`), who may (`machine`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal, NoReturn

import msgspec
from msgspec import UNSET, Meta, UnsetType

import fastpath
from auction.text import is_acceptable

INTEGER_MAX = 2**53 - 1
OPERATION_BYTES_MAX = 65_536
DEPTH_MAX = 8
NAME_CHARACTERS_MAX = 64
TITLE_CHARACTERS_MAX = 200
DESCRIPTION_CHARACTERS_MAX = 4_000
MEMO_CHARACTERS_MAX = 200
REASON_CHARACTERS_MAX = 200

Integer = Annotated[int, Meta(ge=-INTEGER_MAX, le=INTEGER_MAX)]
Id = Annotated[str, Meta(pattern=r"\A[0-9a-f]{32}\Z")]
"""An account's or auction's id: 16 bytes."""
PublicKey = Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]
Proof = Annotated[str, Meta(pattern=r"\A[0-9a-f]{128}\Z")]
Handle = Annotated[str, Meta(pattern=r"\A[a-z0-9_.-]{3,32}\Z")]
RoleName = Literal["admin", "issuer", "auditor", "bidder", "gateway"]


class MalformedOperation(ValueError):
    """The bytes are not an operation; the text says why."""


class _Form(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True, tag_field="type"
):
    """Common form: exactly the declared fields, told apart by "type"."""


class Register(_Form, frozen=True, tag="account.register"):
    handle: Handle
    name: str
    public_key: PublicKey | UnsetType = UNSET
    """Given by an admin who registers somebody else."""
    roles: Annotated[list[RoleName], Meta(max_length=5)] | UnsetType = UNSET


class RotateKey(_Form, frozen=True, tag="account.rotate_key"):
    public_key: PublicKey
    proof: Proof
    """The new key's signature over `rotation_bytes` of the account's id."""


class Grant(_Form, frozen=True, tag="account.grant"):
    account: Id
    role: RoleName


class Revoke(_Form, frozen=True, tag="account.revoke"):
    account: Id
    role: RoleName


class Freeze(_Form, frozen=True, tag="account.freeze"):
    account: Id


class Unfreeze(_Form, frozen=True, tag="account.unfreeze"):
    account: Id


class Mint(_Form, frozen=True, tag="money.mint"):
    to: Id
    amount: Integer
    memo: str


class Transfer(_Form, frozen=True, tag="money.transfer"):
    to: Id
    amount: Integer
    memo: str


class Open(_Form, frozen=True, tag="auction.open"):
    title: str
    description: str
    starting_price: Integer
    min_increment: Integer
    closes_at_us: Integer
    soft_close_seconds: Integer
    reserve_price: Integer | UnsetType = UNSET
    buy_now: Integer | UnsetType = UNSET
    opens_at_us: Integer | UnsetType = UNSET
    closes_at_max_us: Integer | UnsetType = UNSET


class Bid(_Form, frozen=True, tag="auction.bid"):
    auction: Id
    amount: Integer
    max_amount: Integer | UnsetType = UNSET


class Close(_Form, frozen=True, tag="auction.close"):
    auction: Id


class Cancel(_Form, frozen=True, tag="auction.cancel"):
    auction: Id
    reason: str


class Fence(_Form, frozen=True, tag="session.fence"):
    """Does nothing itself: the request's floor field does."""


class Activate(_Form, frozen=True, tag="rules.activate"):
    application_version: Integer
    at_sequence: Integer


AnyOperation = (
    Register
    | RotateKey
    | Grant
    | Revoke
    | Freeze
    | Unfreeze
    | Mint
    | Transfer
    | Open
    | Bid
    | Close
    | Cancel
    | Fence
    | Activate
)

_decode: Callable[[bytes], AnyOperation] = msgspec.json.Decoder(AnyOperation).decode
_encode: Callable[[Any], bytes] = msgspec.json.Encoder(order="sorted").encode


def canonical(operation: AnyOperation) -> bytes:
    """Canonical JSON: what the encoders below give, and what names an operation that needs several approvals."""
    return _encode(operation)


def rotation_bytes(account: bytes) -> bytes:
    """What the new key signs in account.rotate_key: "ARREMATE", "ROTATE" padded with NUL to 8, the 16-byte id."""
    return b"ARREMATEROTATE\0\0" + account


def decode(payload: bytes) -> AnyOperation:
    """The operation in these bytes; MalformedOperation when there is none."""
    if len(payload) > OPERATION_BYTES_MAX:
        raise MalformedOperation(f"{len(payload)} bytes, at most {OPERATION_BYTES_MAX} allowed")
    try:
        operation = _decode(payload)
    except (ValueError, RecursionError) as error:
        raise MalformedOperation(str(error)) from error
    # A canonical encoding cannot repeat a field; anything else is read again by a parser that notices.
    if _encode(operation) != payload:
        _check_fields(payload)
    _check_values(operation)
    return operation


def _check_fields(payload: bytes) -> None:
    try:
        json.loads(payload.decode("utf-8"), object_pairs_hook=_unique, parse_float=_refuse, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise MalformedOperation(str(error)) from error


def _unique(pairs: list[tuple[str, Any]]) -> None:
    if len({name for name, _ in pairs}) != len(pairs):
        raise MalformedOperation("a field is given twice")


def _refuse(number: str) -> NoReturn:
    raise MalformedOperation(f"{number} is not an integer")


def _check_values(operation: AnyOperation) -> None:
    """What the declared types cannot say."""
    match operation:
        case Bid():
            if operation.max_amount is not UNSET and operation.max_amount < operation.amount:
                raise MalformedOperation("max_amount is below amount")
        case Mint() | Transfer():
            _check_text("memo", operation.memo, MEMO_CHARACTERS_MAX)
        case Open():
            _check_text("title", operation.title, TITLE_CHARACTERS_MAX, empty=False)
            _check_text("description", operation.description, DESCRIPTION_CHARACTERS_MAX, lines=True)
        case Cancel():
            _check_text("reason", operation.reason, REASON_CHARACTERS_MAX)
        case Register():
            _check_text("name", operation.name, NAME_CHARACTERS_MAX, empty=False)
            if operation.public_key is not UNSET:
                _check_key(operation.public_key)
            if operation.roles is not UNSET and len(set(operation.roles)) != len(operation.roles):
                raise MalformedOperation("a role is given twice")
        case RotateKey():
            _check_key(operation.public_key)
        case _:
            pass


def _check_text(field: str, text: str, characters_max: int, *, lines: bool = False, empty: bool = True) -> None:
    if not is_acceptable(text, characters_max, lines=lines) or not (text or empty):
        raise MalformedOperation(f"{field} must be printable text in NFC, at most {characters_max} characters")


def _check_key(public_key: str) -> None:
    if not fastpath.public_key_is_valid(bytes.fromhex(public_key)):
        raise MalformedOperation("public_key is not an Ed25519 public key")


# Encoders for clients: canonical bytes, to be signed as they are. ValueError for what would be malformed.


def _checked(form: type[_Form], /, **fields: Any) -> bytes:
    given = {name: value for name, value in fields.items() if value is not None}
    payload = _encode(form(**given))
    decode(payload)
    return payload


def register(handle: str, name: str, *, public_key: str | None = None, roles: Sequence[str] | None = None) -> bytes:
    """Register oneself, or as an admin another `public_key` (64 hex digits) with `roles`."""
    return _checked(Register, handle=handle, name=name, public_key=public_key, roles=roles and list(roles))


def rotate_key(public_key: str, proof: str) -> bytes:
    """Change the author's key; `proof` is 128 hex digits, see `rotation_bytes`."""
    return _checked(RotateKey, public_key=public_key, proof=proof)


def grant(account: str, role: str) -> bytes:
    return _checked(Grant, account=account, role=role)


def revoke(account: str, role: str) -> bytes:
    return _checked(Revoke, account=account, role=role)


def freeze(account: str) -> bytes:
    return _checked(Freeze, account=account)


def unfreeze(account: str) -> bytes:
    return _checked(Unfreeze, account=account)


def mint(to: str, amount: int, memo: str = "") -> bytes:
    return _checked(Mint, to=to, amount=amount, memo=memo)


def transfer(to: str, amount: int, memo: str = "") -> bytes:
    return _checked(Transfer, to=to, amount=amount, memo=memo)


def open_auction(
    title: str,
    *,
    starting_price: int,
    closes_at_us: int,
    description: str = "",
    min_increment: int = 1,
    soft_close_seconds: int = 0,
    reserve_price: int | None = None,
    buy_now: int | None = None,
    opens_at_us: int | None = None,
    closes_at_max_us: int | None = None,
) -> bytes:
    """Open an auction; prices in minor units, times in microseconds of block time."""
    return _checked(
        Open,
        title=title,
        description=description,
        starting_price=starting_price,
        min_increment=min_increment,
        closes_at_us=closes_at_us,
        soft_close_seconds=soft_close_seconds,
        reserve_price=reserve_price,
        buy_now=buy_now,
        opens_at_us=opens_at_us,
        closes_at_max_us=closes_at_max_us,
    )


def bid(auction: str, amount: int, max_amount: int | None = None) -> bytes:
    """Bid `amount` now and up to `max_amount` by proxy."""
    return _checked(Bid, auction=auction, amount=amount, max_amount=max_amount)


def close(auction: str) -> bytes:
    return _checked(Close, auction=auction)


def cancel(auction: str, reason: str = "") -> bytes:
    return _checked(Cancel, auction=auction, reason=reason)


def fence() -> bytes:
    """An operation that does nothing, to carry a raised floor."""
    return _checked(Fence)


def activate(application_version: int, at_sequence: int) -> bytes:
    return _checked(Activate, application_version=application_version, at_sequence=at_sequence)
