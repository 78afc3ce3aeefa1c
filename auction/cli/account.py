"""`arremate account`: who takes part, with which key and which roles."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from auction import operations
from auction.cli.auction_commands import LimitOption
from auction.cli.command import Call, cluster_command
from auction.cli.failure import usage
from auction.cli.money import format_time
from auction.cli.output import Answer, listing, record
from auction.cli.signing import load_key
from auction.cli.submission import account_reference, ask, build_operation, submit_and_show

AccountArgument = Annotated[str, typer.Argument(metavar="ACCOUNT", help="Id or handle.")]
RoleArgument = Annotated[str, typer.Argument(help="admin, issuer, auditor, bidder or gateway.")]


def register(app: typer.Typer) -> None:
    accounts = typer.Typer(help="Accounts, keys and roles.", no_args_is_help=True)
    app.add_typer(accounts, name="account")
    _register_reading(accounts)
    _register_keys(accounts)
    _register_administration(accounts)


def _register_reading(accounts: typer.Typer) -> None:
    @cluster_command(accounts, "show", example="arremate account show alice --as alice")
    def show(
        call: Call, account: Annotated[str | None, typer.Argument(metavar="ACCOUNT", help="Id or handle.")] = None
    ) -> Answer:
        """Show an account; with your own key (or an auditor's) its balance too."""
        if account is None:
            balance = ask(call, {"query": "balance"}, signed=True)
            public = ask(call, {"query": "account", "account": balance["account"]})
        else:
            public = ask(call, {"query": "account", "account": account})
            balance = _balance_if_open(call, public["id"])
        value = {**public, **balance}
        shown: dict[str, object] = {**value, "roles": ", ".join(value.get("roles", ()))}
        for name in ("available", "held"):
            if name in value:
                shown[name] = call.currency.format(value[name])
        return Answer(value, record(f"account {public.get('handle', account)}", shown))

    @cluster_command(accounts, "bids", example="arremate account bids alice")
    def bids(call: Call, account: AccountArgument, limit: LimitOption = 50) -> Answer:
        """List an account's bids, the newest first."""
        value = ask(call, {"query": "account_bids", "account": account, "limit": limit})
        rows = [
            (
                bid["auction"],
                bid["number"],
                call.currency.format(bid["amount"]),
                bid["outcome"],
                format_time(bid["time_us"]),
            )
            for bid in value["bids"]
        ]
        return Answer(value, listing(f"bids of {account}", ("auction", "number", "amount", "outcome", "time"), rows))

    @cluster_command(accounts, "ledger", example="arremate account ledger --as alice")
    def ledger(
        call: Call,
        account: Annotated[str | None, typer.Argument(metavar="ACCOUNT", help="Yours by default.")] = None,
        limit: LimitOption = 50,
    ) -> Answer:
        """List the movements of your money (an auditor: of anybody's), the newest first."""
        query = {"query": "ledger", "limit": limit} | ({} if account is None else {"account": account})
        value = ask(call, query, signed=True)
        money = call.currency.format
        rows = [
            (
                item["number"],
                item["kind"],
                money(item["amount"]),
                money(item["available"]),
                money(item["held"]),
                item["memo"],
            )
            for item in value["entries"]
        ]
        columns = ("number", "kind", "amount", "available after", "held after", "memo")
        return Answer(value, listing(f"ledger of {value['account']}", columns, rows))


def _balance_if_open(call: Call, account: str) -> dict[str, Any]:
    """The account's balance if the caller's key may see it, else nothing."""
    if call.key_path is None:
        return {}
    answer = call.connection.query({"query": "balance", "account": account}, call.signer, call.timeout_s)
    return {} if "error" in answer else answer


def _register_keys(accounts: typer.Typer) -> None:
    @cluster_command(accounts, "register", example="arremate account register alice --name 'Alice' --as alice")
    def register_account(
        call: Call,
        handle: Annotated[str, typer.Argument(help="3 to 32 of a-z, 0-9, dot, dash, underscore.")],
        name: Annotated[str, typer.Option(help="Display name; the handle by default.")] = "",
        public_key: Annotated[str | None, typer.Option(help="By an admin: the other's public key (hex).")] = None,
        role: Annotated[list[str] | None, typer.Option(help="By an admin: a role; may be repeated.")] = None,
    ) -> Answer:
        """Register your key, or as an admin somebody else's."""
        operation = build_operation(
            operations.register, handle, name or handle, public_key=public_key, roles=role if role else None
        )
        return submit_and_show(call, f"registered {handle}", operation)

    @cluster_command(accounts, "rotate-key", example="arremate account rotate-key --new-key alice-2.key --as alice")
    def rotate_key(
        call: Call, new_key: Annotated[Path, typer.Option(help="Key file of the new key; see: arremate key new.")]
    ) -> Answer:
        """Replace your key; the account's id stays. The old key acts for nobody afterwards."""
        account = ask(call, {"query": "balance"}, signed=True)["account"]
        fresh = load_key(new_key)
        proof = fresh.sign(operations.rotation_bytes(bytes.fromhex(account)))
        operation = build_operation(operations.rotate_key, fresh.public_key.hex(), proof.hex())
        return submit_and_show(call, f"account {account} has the key of {new_key}", operation)


def _register_administration(accounts: typer.Typer) -> None:
    @cluster_command(accounts, "grant", example="arremate account grant alice auditor --as admin")
    def grant(call: Call, account: AccountArgument, role: RoleArgument) -> Answer:
        """Give a role."""
        operation = build_operation(operations.grant, account_reference(call, account), _role(role))
        return submit_and_show(call, f"{account} is now {role}", operation)

    @cluster_command(accounts, "revoke", example="arremate account revoke alice auditor --as admin")
    def revoke(call: Call, account: AccountArgument, role: RoleArgument) -> Answer:
        """Take a role away."""
        operation = build_operation(operations.revoke, account_reference(call, account), _role(role))
        return submit_and_show(call, f"{account} is no longer {role}", operation)

    @cluster_command(accounts, "freeze", example="arremate account freeze mallory --as admin")
    def freeze(call: Call, account: AccountArgument) -> Answer:
        """Let an account author nothing new; its standing bids and auctions settle."""
        operation = build_operation(operations.freeze, account_reference(call, account))
        return submit_and_show(call, f"{account} is frozen", operation)

    @cluster_command(accounts, "unfreeze", example="arremate account unfreeze mallory --as admin")
    def unfreeze(call: Call, account: AccountArgument) -> Answer:
        """Let a frozen account act again."""
        operation = build_operation(operations.unfreeze, account_reference(call, account))
        return submit_and_show(call, f"{account} is not frozen", operation)


def _role(name: str) -> str:
    known = ("admin", "issuer", "auditor", "bidder", "gateway")
    if name not in known:
        raise usage("unknown_role", f"'{name}' is no role", f"roles: {', '.join(known)}")
    return name
