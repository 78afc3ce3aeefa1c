"""The forms of queries: canonical JSON becomes a typed value, or a QueryError.

Every list has a limit and a cursor of fixed shape. Deliberately elsewhere: what is answered (`queries`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal, NoReturn

import msgspec
from msgspec import UNSET, Meta, UnsetType

from auction import codes
from auction.effects import canonical
from auction.operations import INTEGER_MAX, Id

QUERY_BYTES_MAX = 16_384
LIMIT_DEFAULT = 50
LIMIT_MAX = 200


class QueryError(Exception):
    """Ends a query with {"error": code}."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


Order = Literal["ascending", "descending"]
StateName = Literal["open", "closed", "cancelled"]
Limit = Annotated[int, Meta(ge=1, le=LIMIT_MAX)]
Digest = Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]
Part = Annotated[int, Meta(ge=0, le=INTEGER_MAX)]
Reference = Annotated[str, Meta(pattern=r"\A[a-z0-9_.-]{3,32}\Z")]
"""An account's id (32 hexadecimal digits) or its handle; an id goes first."""


class _Form(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="query"):
    """Common form: exactly the declared fields, told apart by "query"."""


class _Page(_Form, frozen=True, kw_only=True):
    after: Annotated[list[Part], Meta(min_length=2, max_length=2)] | UnsetType = UNSET
    limit: Limit = LIMIT_DEFAULT
    order: Order = "descending"


class AuctionQuery(_Form, frozen=True, tag="auction"):
    auction: Id


class AuctionsQuery(_Page, frozen=True, kw_only=True, tag="auctions"):
    state: StateName | UnsetType = UNSET
    owner: Id | UnsetType = UNSET


class BidsQuery(_Form, frozen=True, tag="bids"):
    auction: Id
    after: Annotated[list[Part], Meta(min_length=1, max_length=1)] | UnsetType = UNSET
    limit: Limit = LIMIT_DEFAULT
    order: Order = "descending"


class WinnerQuery(_Form, frozen=True, tag="winner"):
    auction: Id


class AccountQuery(_Form, frozen=True, tag="account"):
    account: Reference


class AccountBidsQuery(_Page, frozen=True, kw_only=True, tag="account_bids"):
    account: Reference


class BalanceQuery(_Form, frozen=True, tag="balance"):
    account: Reference | UnsetType = UNSET


class LedgerQuery(_Form, frozen=True, tag="ledger"):
    account: Reference | UnsetType = UNSET
    after: Annotated[list[Part], Meta(min_length=1, max_length=1)] | UnsetType = UNSET
    limit: Limit = LIMIT_DEFAULT
    order: Order = "descending"


class SupplyQuery(_Form, frozen=True, tag="supply"):
    pass


class EventsQuery(_Form, frozen=True, tag="events"):
    auction: Id | UnsetType = UNSET
    after: Annotated[list[Part], Meta(min_length=3, max_length=3)] | UnsetType = UNSET
    limit: Limit = LIMIT_DEFAULT
    order: Order = "ascending"


class ApprovalsQuery(_Form, frozen=True, tag="approvals"):
    after: Annotated[list[Digest], Meta(min_length=1, max_length=1)] | UnsetType = UNSET
    limit: Limit = LIMIT_DEFAULT


class StateQuery(_Form, frozen=True, tag="state"):
    pass


AnyQuery = (
    AuctionQuery
    | AuctionsQuery
    | BidsQuery
    | WinnerQuery
    | AccountQuery
    | AccountBidsQuery
    | BalanceQuery
    | LedgerQuery
    | SupplyQuery
    | EventsQuery
    | ApprovalsQuery
    | StateQuery
)

_decode: Callable[[bytes], AnyQuery] = msgspec.json.Decoder(AnyQuery).decode


_TAGS = frozenset(
    ("auction", "auctions", "bids", "winner", "account", "account_bids")
    + ("balance", "ledger", "supply", "events", "approvals", "state")
)


def parse(query: bytes) -> AnyQuery:
    """The query in these bytes; QueryError malformed_query or unknown_query."""
    if len(query) > QUERY_BYTES_MAX:
        raise QueryError(codes.MALFORMED_QUERY)
    try:
        fields = json.loads(
            query.decode("utf-8"), object_pairs_hook=_unique, parse_float=_refuse, parse_constant=_refuse
        )
    except (ValueError, RecursionError) as error:
        raise QueryError(codes.MALFORMED_QUERY) from error
    if isinstance(fields, dict) and isinstance(fields.get("query"), str) and fields["query"] not in _TAGS:
        raise QueryError(codes.UNKNOWN_QUERY)
    try:
        return _decode(query)
    except (ValueError, RecursionError) as error:
        raise QueryError(codes.MALFORMED_QUERY) from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise QueryError(codes.MALFORMED_QUERY)
    return fields


def _refuse(number: str) -> NoReturn:
    raise QueryError(codes.MALFORMED_QUERY)


# Encoders for clients: canonical bytes of a query. ValueError for what would be malformed.


def _checked(name: str, /, **fields: Any) -> bytes:
    query = canonical({"query": name, **{field: value for field, value in fields.items() if value is not None}})
    try:
        parse(query)
    except QueryError as error:
        raise ValueError(f"{error.code}: {query.decode()}") from error
    return query


def get_auction(auction: str) -> bytes:
    return _checked("auction", auction=auction)


def list_auctions(
    *,
    state: StateName | None = None,
    owner: str | None = None,
    after: Sequence[int] | None = None,
    limit: int | None = None,
    order: Order | None = None,
) -> bytes:
    """Newest first; `after` is the "next" of the page before."""
    return _checked("auctions", state=state, owner=owner, after=after, limit=limit, order=order)


def list_bids(auction: str, *, after: Sequence[int] | None = None, limit: int | None = None) -> bytes:
    return _checked("bids", auction=auction, after=after, limit=limit)


def get_winner(auction: str) -> bytes:
    """The winning bid of a closed auction, with the digest of what closed it."""
    return _checked("winner", auction=auction)


def get_account(account: str) -> bytes:
    """The public part of an account, by id or handle."""
    return _checked("account", account=account)


def list_account_bids(account: str, *, after: Sequence[int] | None = None, limit: int | None = None) -> bytes:
    return _checked("account_bids", account=account, after=after, limit=limit)


def get_balance(account: str | None = None) -> bytes:
    """One's own balance, or another's for an auditor; to be signed."""
    return _checked("balance", account=account)


def list_ledger(
    account: str | None = None,
    *,
    after: Sequence[int] | None = None,
    limit: int | None = None,
    order: Order | None = None,
) -> bytes:
    """One's own ledger, or another's for an auditor; to be signed."""
    return _checked("ledger", account=account, after=after, limit=limit, order=order)


def get_supply() -> bytes:
    return _checked("supply")


def list_events(auction: str | None = None, *, after: Sequence[int] | None = None, limit: int | None = None) -> bytes:
    """Public events, oldest first; `after` is the (sequence, index, effect) of the last one seen."""
    return _checked("events", auction=auction, after=after, limit=limit)
