"""The auction's GET routes: each builds one canonical query and answers what q replicas signed.

Nothing is decided here: what is public, what an error is, how pages go on, the replicated state machine
says (`auction.queries`). A cursor is opaque to users: the base64url of the page's "next".
"""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Any, Literal

import msgspec
from fastapi import Path, Query, Request
from starlette.responses import Response

from auction import codes
from auction.query_forms import LIMIT_DEFAULT, LIMIT_MAX
from nodes import canonical
from nodes.gateway.application import ApplicationRouter
from nodes.gateway.openapi import APPLICATION_ANSWER
from nodes.gateway.problem import Problem
from nodes.gateway.queries import answer

ID_PATTERN = r"^[0-9a-f]{32}$"
CURSOR_CHARACTERS_MAX = 256

AuctionId = Annotated[str, Path(pattern=ID_PATTERN, description="32 hex digits", examples=["3f2a" * 8])]
Account = Annotated[str, Path(pattern=r"^[a-z0-9_.-]{3,32}$", description="Id (32 hex digits) or handle")]
State = Annotated[Literal["open", "closed", "cancelled"] | None, Query(description="Only auctions in this state")]
Owner = Annotated[str | None, Query(pattern=ID_PATTERN, description="Only this account's auctions")]
Cursor = Annotated[
    str | None, Query(max_length=CURSOR_CHARACTERS_MAX, description="`cursor` of the page before; good at every node")
]
Limit = Annotated[int, Query(ge=1, le=LIMIT_MAX)]
Order = Annotated[Literal["ascending", "descending"], Query(description="By age")]
Consistency = Annotated[
    Literal["quorum", "certified", "local"],
    Query(description="quorum: linearizable. certified: as of one block. local: this node's word only"),
]


def create_router() -> ApplicationRouter:
    """The routes below /v1 and the meaning of the auction's codes."""
    router = ApplicationRouter(
        code_name=codes.code_name,
        http_status=codes.http_status,
        event_filters={"auction": ID_PATTERN},
        prefix="/v1",
        tags=["auctions"],
        responses=APPLICATION_ANSWER,
    )
    router.add_api_route("/auctions", get_auctions, methods=["GET"])
    router.add_api_route("/auctions/{auction}", get_auction, methods=["GET"])
    router.add_api_route("/auctions/{auction}/bids", get_bids, methods=["GET"])
    router.add_api_route("/auctions/{auction}/winner", get_winner, methods=["GET"])
    router.add_api_route("/accounts/{account}", get_account, methods=["GET"])
    router.add_api_route("/accounts/{account}/bids", get_account_bids, methods=["GET"])
    router.add_api_route("/supply", get_supply, methods=["GET"])
    return router


async def get_auctions(
    request: Request,
    state: State = None,
    owner: Owner = None,
    cursor: Cursor = None,
    limit: Limit = LIMIT_DEFAULT,
    order: Order = "descending",
    consistency: Consistency = "quorum",
) -> Response:
    """Auctions, newest first."""
    query = {"query": "auctions", **_page(cursor, limit, order), **_given(state=state, owner=owner)}
    return await answer(request, query, encode_cursor)


async def get_auction(request: Request, auction: AuctionId, consistency: Consistency = "quorum") -> Response:
    """One auction: price, leader, deadline, revision, and how it ended."""
    return await answer(request, {"query": "auction", "auction": auction})


async def get_bids(
    request: Request,
    auction: AuctionId,
    cursor: Cursor = None,
    limit: Limit = LIMIT_DEFAULT,
    order: Order = "descending",
    consistency: Consistency = "quorum",
) -> Response:
    """Bids of an auction, newest first."""
    return await answer(request, {"query": "bids", "auction": auction, **_page(cursor, limit, order)}, encode_cursor)


async def get_winner(request: Request, auction: AuctionId, consistency: Consistency = "quorum") -> Response:
    """How a closed auction ended; 409 `auction_open` before."""
    return await answer(request, {"query": "winner", "auction": auction})


async def get_account(request: Request, account: Account, consistency: Consistency = "quorum") -> Response:
    """The public part of an account. Balances and ledgers are asked for by POST /v1/queries, signed."""
    return await answer(request, {"query": "account", "account": account})


async def get_account_bids(
    request: Request,
    account: Account,
    cursor: Cursor = None,
    limit: Limit = LIMIT_DEFAULT,
    order: Order = "descending",
    consistency: Consistency = "quorum",
) -> Response:
    """Bids of an account, newest first."""
    return await answer(
        request, {"query": "account_bids", "account": account, **_page(cursor, limit, order)}, encode_cursor
    )


async def get_supply(request: Request, consistency: Consistency = "quorum") -> Response:
    """How much money there is, and may be."""
    return await answer(request, {"query": "supply"})


def encode_cursor(following: list[int]) -> str:
    """The opaque text of a page's "next"."""
    return base64.urlsafe_b64encode(canonical.encode(following)).decode("ascii").rstrip("=")


def _page(cursor: str | None, limit: int, order: str) -> dict[str, Any]:
    page: dict[str, Any] = {"limit": limit, "order": order}
    if cursor is not None:
        page["after"] = _decode_cursor(cursor)
    return page


def _decode_cursor(cursor: str) -> list[int]:
    try:
        data = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        return msgspec.json.decode(data, type=list[int])
    except (binascii.Error, ValueError) as error:
        raise Problem("malformed", "cursor is not one that a page gave; begin without it") from error


def _given(**fields: str | None) -> dict[str, str]:
    return {name: value for name, value in fields.items() if value is not None}
