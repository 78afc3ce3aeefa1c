"""`arremate auction` and `arremate bid`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from auction import operations
from auction.cli.command import Call, cluster_command
from auction.cli.failure import usage
from auction.cli.money import format_time, parse_duration_us, parse_time_us
from auction.cli.money_commands import AmountArgument
from auction.cli.output import Answer, listing, record
from auction.cli.submission import account_reference, ask, build_operation, submit_and_show
from auction.query_forms import LIMIT_MAX

AuctionArgument = Annotated[str, typer.Argument(metavar="AUCTION", help="Id, 32 hex digits.")]
LimitOption = Annotated[int, typer.Option(min=1, max=LIMIT_MAX, help="At most so many.")]

AMOUNT_FIELDS = ("starting_price", "min_increment", "reserve_price", "buy_now", "price", "minimum_amount")


def register(app: typer.Typer) -> None:
    auctions = typer.Typer(help="Auctions: open, look at, close.", no_args_is_help=True)
    app.add_typer(auctions, name="auction")
    _register_opening(auctions)
    _register_reading(auctions)
    _register_closing(auctions)
    _register_bid(app)


def _register_opening(auctions: typer.Typer) -> None:
    @cluster_command(
        auctions, "open", example="arremate auction open 'a blue vase' --start 1000 --closes-in 10m --as seller"
    )
    def open_auction(
        call: Call,
        title: Annotated[str, typer.Argument(help="At most 200 characters.")],
        start: Annotated[str, typer.Option(help="First acceptable bid.")],
        description: Annotated[str, typer.Option(help="At most 4,000 characters.")] = "",
        increment: Annotated[str, typer.Option(help="Least step above the price.")] = "1",
        reserve: Annotated[str | None, typer.Option(help="Public reserve price.")] = None,
        buy_now: Annotated[str | None, typer.Option(help="A bid of so much closes at once.")] = None,
        closes_in: Annotated[str | None, typer.Option(help="Deadline from now: 30s, 10m, 2h, 3d.")] = None,
        closes_at: Annotated[str | None, typer.Option(help="Deadline as an ISO 8601 time with zone.")] = None,
        opens_at: Annotated[str | None, typer.Option(help="Start of bidding; at once by default.")] = None,
        closes_at_max: Annotated[
            str | None, typer.Option(help="Soft close never moves the deadline past this.")
        ] = None,
        soft_close: Annotated[str, typer.Option(help="A bid so late moves the deadline by as much.")] = "0s",
    ) -> Answer:
        """Open an auction for something of yours."""
        if (closes_in is None) == (closes_at is None):
            raise usage("bad_option", "an auction has one deadline", "give --closes-in 10m or --closes-at TIME")
        money = call.currency.parse
        operation = build_operation(
            operations.open_auction,
            title,
            description=description,
            starting_price=money(start),
            min_increment=money(increment),
            reserve_price=None if reserve is None else money(reserve),
            buy_now=None if buy_now is None else money(buy_now),
            closes_at_us=parse_time_us(f"+{closes_in}" if closes_at is None else closes_at),
            opens_at_us=None if opens_at is None else parse_time_us(opens_at),
            closes_at_max_us=None if closes_at_max is None else parse_time_us(closes_at_max),
            soft_close_seconds=parse_duration_us(soft_close) // 1_000_000,
        )
        return submit_and_show(call, f"opened '{title}'", operation)


def _register_reading(auctions: typer.Typer) -> None:
    @cluster_command(auctions, "list", example="arremate auction list --state open")
    def list_auctions(
        call: Call,
        state: Annotated[str | None, typer.Option(help="open, closed or cancelled.")] = None,
        owner: Annotated[str | None, typer.Option(help="Account id or handle.")] = None,
        limit: LimitOption = 50,
    ) -> Answer:
        """List auctions, the newest first."""
        query: dict[str, Any] = {"query": "auctions", "limit": limit}
        if state is not None:
            query["state"] = state
        if owner is not None:
            query["owner"] = account_reference(call, owner)
        value = ask(call, query)
        rows = [
            (
                item["id"],
                item.get("title"),
                item.get("state"),
                None if item["price"] is None else call.currency.format(item["price"]),
                item.get("bids"),
                format_time(item.get("closes_at_us")),
            )
            for item in value["auctions"]
        ]
        return Answer(value, listing("auctions", ("id", "title", "state", "price", "bids", "closes"), rows))

    @cluster_command(auctions, "show", example="arremate auction show 3f2a8c0d5b6e7f901122334455667788")
    def show(call: Call, auction: AuctionArgument) -> Answer:
        """Show one auction."""
        value = ask(call, {"query": "auction", "auction": auction})
        return Answer(value, record(f"auction {auction}", _readable(call, value)))

    @cluster_command(auctions, "bids", example="arremate auction bids 3f2a8c0d5b6e7f901122334455667788")
    def bids(call: Call, auction: AuctionArgument, limit: LimitOption = 100) -> Answer:
        """List an auction's bids in the order in which they were executed."""
        value = ask(call, {"query": "bids", "auction": auction, "limit": limit, "order": "ascending"})
        rows = [
            (
                item.get("number"),
                item.get("bidder"),
                call.currency.format(item["amount"]),
                call.currency.format(item["price"]),
                item.get("outcome"),
                format_time(item.get("time_us")),
            )
            for item in value["bids"]
        ]
        columns = ("number", "bidder", "amount", "price after it", "outcome", "block time")
        return Answer(value, listing(f"bids on {auction}", columns, rows))

    @cluster_command(auctions, "winner", example="arremate auction winner 3f2a8c0d5b6e7f901122334455667788")
    def winner(call: Call, auction: AuctionArgument) -> Answer:
        """Show who won a closed auction, at what price, and the digest of the closing's receipt."""
        value = ask(call, {"query": "winner", "auction": auction})
        return Answer(value, record(f"winner of {auction}", _readable(call, value)))


def _register_closing(auctions: typer.Typer) -> None:
    @cluster_command(auctions, "close", example="arremate auction close 3f2a8c0d5b6e7f901122334455667788 --as seller")
    def close(call: Call, auction: AuctionArgument) -> Answer:
        """Close your auction now; the leading bid wins if it reaches the reserve."""
        return submit_and_show(call, f"closed {auction}", build_operation(operations.close, auction))

    @cluster_command(auctions, "cancel", example="arremate auction cancel 3f2a8c0d5b6e7f901122334455667788 --as seller")
    def cancel(
        call: Call, auction: AuctionArgument, reason: Annotated[str, typer.Option(help="At most 200 characters.")] = ""
    ) -> Answer:
        """Cancel your auction before its first bid, or any as an admin; holds are released."""
        return submit_and_show(call, f"cancelled {auction}", build_operation(operations.cancel, auction, reason))


def _register_bid(app: typer.Typer) -> None:
    @cluster_command(app, "bid", example="arremate bid 3f2a8c0d5b6e7f901122334455667788 1250 --max 2000 --as alice")
    def bid(
        call: Call,
        auction: AuctionArgument,
        amount: AmountArgument,
        maximum: Annotated[str | None, typer.Option("--max", help="Bid for you up to this.")] = None,
    ) -> Answer:
        """Bid; with --max the cluster outbids others for you, up to it."""
        units = call.currency.parse(amount)
        limit = None if maximum is None else call.currency.parse(maximum)
        operation = build_operation(operations.bid, auction, units, limit)
        return submit_and_show(call, f"bid {call.currency.format(units)} on {auction}", operation)


def _readable(call: Call, value: dict[str, Any]) -> dict[str, object]:
    """The fields of an answer as people read them: money with its currency, times as dates."""
    shown: dict[str, object] = {}
    for name, item in value.items():
        if isinstance(item, dict):
            shown.update({f"{name} {part}": text for part, text in _readable(call, item).items()})
            continue
        if name in AMOUNT_FIELDS and isinstance(item, int):
            shown[name] = call.currency.format(item)
        elif name.endswith("_us") and isinstance(item, int):
            shown[name.removesuffix("_us")] = format_time(item)
        else:
            shown[name] = item
    return shown
