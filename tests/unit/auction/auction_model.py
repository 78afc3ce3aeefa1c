"""The auction house once more, as plainly as possible: dicts and the text of the rules, nothing shared.

Takes the JSON of well-formed operations by keys of registered accounts. Written from interface.md, as a
check on `auction`: its shape is deliberately different (it recomputes, keeps no revision, journal or rows).
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

YEAR = 365 * 24 * 3600 * 10**6
WEEK = 7 * 24 * 3600 * 10**6


def identity(public_key: bytes) -> str:
    return hashlib.sha256(b"ACCOUNT\0" + public_key).hexdigest()[:32]


class Model:
    """`execute` and `advance` in the order of the log; look at `accounts`, `auctions` and `minted` for the state."""

    def __init__(self, genesis: dict[str, Any]) -> None:
        self.limit = genesis["supply_limit"]
        self.threshold = genesis["admin_threshold"]
        self.open_house = genesis["registration"] == "open"
        self.minted = 0
        self.accounts: dict[str, dict[str, Any]] = {}
        self.owner_of_key: dict[bytes, str] = {}
        self.auctions: dict[str, dict[str, Any]] = {}
        self.proposals: dict[str, list[dict[str, Any]]] = {}
        for founder in genesis["accounts"]:
            self._add(bytes.fromhex(founder["public_key"]), founder["handle"], founder["roles"])

    def _add(self, public_key: bytes, handle: str, roles: list[str]) -> None:
        name = identity(public_key)
        self.accounts[name] = {"handle": handle, "roles": set(roles), "frozen": False, "free": 0, "held": 0}
        self.owner_of_key[public_key] = name

    # Time

    def advance(self, now: int) -> None:
        """The block time is now `now`: close what is due."""
        due = [(auction["closes"], name) for name, auction in self.auctions.items() if auction["state"] == "open"]
        for closes, name in sorted(due):
            if closes <= now:
                self._close(self.auctions[name], "deadline")

    # Operations

    def execute(self, public_key: bytes, payload: bytes, digest: bytes, now: int) -> str:
        """The code of an operation's outcome."""
        operation = json.loads(payload)
        me = self.owner_of_key.get(public_key)
        if me is None:
            return self._newcomer(public_key, operation)
        if self.accounts[me]["frozen"]:
            return "account_frozen"
        handler = getattr(self, "_do_" + operation["type"].replace(".", "_"))
        return handler(me, operation, digest, now) or "ok"

    def _newcomer(self, public_key: bytes, operation: dict[str, Any]) -> str:
        if not self.open_house or operation["type"] != "account.register":
            return "unauthorized"
        if "public_key" in operation or "roles" in operation:
            return "unauthorized"
        if any(account["handle"] == operation["handle"] for account in self.accounts.values()):
            return "handle_taken"
        self._add(public_key, operation["handle"], ["bidder"])
        return "ok"

    def _is(self, me: str, role: str) -> bool:
        return role in self.accounts[me]["roles"]

    def _do_session_fence(self, me: str, operation: dict[str, Any], digest: bytes, now: int) -> None:
        return None

    def _do_account_register(self, me: str, operation: dict[str, Any], digest: bytes, now: int) -> str | None:
        if "public_key" not in operation:
            return "already_registered" if self.open_house or self._is(me, "admin") else "unauthorized"
        if not self._is(me, "admin"):
            return "unauthorized"
        public_key = bytes.fromhex(operation["public_key"])
        if public_key in self.owner_of_key:
            return "already_registered"
        if any(account["handle"] == operation["handle"] for account in self.accounts.values()):
            return "handle_taken"
        if self._agreed(me, operation, now):
            self._add(public_key, operation["handle"], operation.get("roles", ["bidder"]))
        return None

    def _do_account_grant(self, me: str, operation: dict[str, Any], digest: bytes, now: int) -> str | None:
        return self._change(me, operation, now, lambda account: account["roles"].add(operation["role"]))

    def _do_account_revoke(self, me: str, operation: dict[str, Any], digest: bytes, now: int) -> str | None:
        return self._change(me, operation, now, lambda account: account["roles"].discard(operation["role"]))

    def _do_account_freeze(self, me: str, operation: dict[str, Any], digest: bytes, now: int) -> str | None:
        return self._change(me, operation, now, lambda account: account.update(frozen=True))

    def _do_account_unfreeze(self, me: str, operation: dict[str, Any], digest: bytes, now: int) -> str | None:
        return self._change(me, operation, now, lambda account: account.update(frozen=False))

    def _change(self, me: str, operation: dict[str, Any], now: int, change: Any) -> str | None:
        if not self._is(me, "admin"):
            return "unauthorized"
        account = self.accounts.get(operation["account"])
        if account is None:
            return "unknown_account"
        before = self._admins()
        trial = {**account, "roles": set(account["roles"])}
        change(trial)
        self.accounts[operation["account"]] = trial
        after = self._admins()
        self.accounts[operation["account"]] = account
        if len(after) < len(before) and len(after) < self.threshold:
            return "last_admin"
        if self._agreed(me, operation, now):
            change(account)
        return None

    def _admins(self) -> list[str]:
        return [
            name for name, account in self.accounts.items() if "admin" in account["roles"] and not account["frozen"]
        ]

    def _agreed(self, me: str, operation: dict[str, Any], now: int) -> bool:
        """k of m: has this been submitted by enough admins now? At most 16 proposals back are remembered."""
        if self.threshold == 1:
            return True
        subject = json.dumps(operation, sort_keys=True)
        for proposals in self.proposals.values():
            for proposal in proposals[-16:]:
                if proposal["subject"] == subject and proposal["pending"] and now < proposal["until"]:
                    admins = self._admins()
                    proposal["by"] = [name for name in proposal["by"] if name in admins]
                    if me not in proposal["by"]:
                        proposal["by"].append(me)
                    if len(proposal["by"]) >= self.threshold:
                        proposal["pending"] = False
                    return not proposal["pending"]
        self.proposals.setdefault(me, []).append({"subject": subject, "by": [me], "pending": True, "until": now + WEEK})
        return False

    def _do_money_mint(self, me: str, operation: dict[str, Any], digest: bytes, now: int) -> str | None:
        if not self._is(me, "issuer"):
            return "unauthorized"
        if operation["to"] not in self.accounts:
            return "unknown_account"
        if operation["amount"] < 1:
            return "invalid_amount"
        if self.minted + operation["amount"] > self.limit:
            return "supply_limit"
        self.minted += operation["amount"]
        self.accounts[operation["to"]]["free"] += operation["amount"]
        return None

    def _do_money_transfer(self, me: str, operation: dict[str, Any], digest: bytes, now: int) -> str | None:
        amount, to = operation["amount"], operation["to"]
        if not self._is(me, "bidder"):
            return "unauthorized"
        if amount < 1 or amount > self.limit:
            return "invalid_amount"
        if to == me:
            return "self_transfer"
        if to not in self.accounts:
            return "unknown_account"
        if self.accounts[me]["free"] < amount:
            return "insufficient_funds"
        self.accounts[me]["free"] -= amount
        self.accounts[to]["free"] += amount
        return None

    def _do_auction_open(self, me: str, operation: dict[str, Any], digest: bytes, now: int) -> str | None:
        if not self._is(me, "bidder"):
            return "unauthorized"
        start, reserve, buy = operation["starting_price"], operation.get("reserve_price"), operation.get("buy_now")
        money = [start, operation["min_increment"], *(price for price in (reserve, buy) if price is not None)]
        if any(price < 1 or price > self.limit for price in money):
            return "invalid_amount"
        if buy is not None and buy < max(price for price in (start, reserve) if price is not None):
            return "invalid_amount"
        soft = operation["soft_close_seconds"]
        opens = max(now, operation.get("opens_at_us", now))
        closes = operation["closes_at_us"]
        latest = operation.get("closes_at_max_us", closes + 10 * soft * 10**6)
        explicit = operation.get("closes_at_max_us", closes)
        bad = soft < 0 or soft > 86_400 or operation.get("opens_at_us", 0) < 0
        if bad or closes <= opens or closes > now + YEAR or latest < closes or explicit > now + YEAR:
            return "invalid_schedule"
        mine = [auction for auction in self.auctions.values() if auction["owner"] == me and auction["state"] == "open"]
        if len(mine) >= 100:
            return "too_many_open"
        self.auctions[digest.hex()[:32]] = {
            "owner": me,
            "start": start,
            "step": operation["min_increment"],
            "reserve": reserve,
            "buy": buy,
            "opens": opens,
            "closes": closes,
            "latest": latest,
            "soft": soft * 10**6,
            "state": "open",
            "price": None,
            "bids": 0,
            "leader": None,
            "max": None,
            "reason": None,
            "outcome": None,
        }
        return None

    def _do_auction_bid(self, me: str, operation: dict[str, Any], digest: bytes, now: int) -> str | None:
        if not self._is(me, "bidder"):
            return "unauthorized"
        auction = self.auctions.get(operation["auction"])
        if auction is None:
            return "unknown_auction"
        if auction["state"] == "cancelled":
            return "auction_cancelled"
        if auction["state"] == "closed" or now >= auction["closes"]:
            return "auction_closed"
        if now < auction["opens"]:
            return "auction_not_open"
        if me == auction["owner"]:
            return "own_auction"
        amount = operation["amount"]
        most = operation.get("max_amount", amount)
        leader, leader_max, price = auction["leader"], auction["max"], auction["price"]
        buying = auction["buy"] is not None and (price is None or price < auction["buy"]) and amount >= auction["buy"]
        if not buying and amount < (auction["start"] if price is None else price + auction["step"]):
            return "bid_too_low"
        if not buying and leader == me and most <= leader_max:
            return "bid_too_low"
        mine = self.accounts[me]
        if most > mine["free"] + (leader_max if leader == me else 0):
            return "insufficient_funds"
        if buying:
            auction["bids"] += 1
            self._release(auction)
            self._hold(auction, me, auction["buy"])
            auction["price"] = auction["buy"]
            self._close(auction, "buy_now")
            return None
        if leader == me:
            self._release(auction)
            self._hold(auction, me, most)
            self._reserve(auction)
            return None
        auction["bids"] += 1
        if leader is None:
            self._hold(auction, me, most)
            auction["price"] = amount
        elif most > leader_max:
            self._release(auction)
            self._hold(auction, me, most)
            auction["price"] = max(min(most, leader_max + auction["step"]), amount)
        else:
            auction["price"] = min(leader_max, most + auction["step"])
        self._reserve(auction)
        if auction["closes"] - now < auction["soft"]:
            auction["closes"] = max(auction["closes"], min(now + auction["soft"], auction["latest"]))
        return None

    def _reserve(self, auction: dict[str, Any]) -> None:
        if auction["reserve"] is not None and auction["max"] >= auction["reserve"] > auction["price"]:
            auction["price"] = auction["reserve"]

    def _hold(self, auction: dict[str, Any], who: str, amount: int) -> None:
        self.accounts[who]["free"] -= amount
        self.accounts[who]["held"] += amount
        auction["leader"], auction["max"] = who, amount

    def _release(self, auction: dict[str, Any]) -> None:
        if auction["leader"] is not None:
            self.accounts[auction["leader"]]["held"] -= auction["max"]
            self.accounts[auction["leader"]]["free"] += auction["max"]

    def _close(self, auction: dict[str, Any], reason: str) -> None:
        auction["state"], auction["reason"] = "closed", reason
        self._release(auction)
        if auction["leader"] is None:
            auction["outcome"] = "no_bids"
        elif auction["reserve"] is not None and auction["max"] < auction["reserve"]:
            auction["outcome"] = "reserve_not_met"
        else:
            auction["outcome"] = "sold"
            self.accounts[auction["leader"]]["free"] -= auction["price"]
            self.accounts[auction["owner"]]["free"] += auction["price"]

    def _do_auction_close(self, me: str, operation: dict[str, Any], digest: bytes, now: int) -> str | None:
        auction = self.auctions.get(operation["auction"])
        if auction is None:
            return "unknown_auction"
        if auction["owner"] != me:
            return "not_owner"
        if auction["state"] == "cancelled":
            return "auction_cancelled"
        if auction["state"] == "closed" or now >= auction["closes"]:
            return "auction_closed"
        if now < auction["opens"]:
            return "auction_not_open"
        self._close(auction, "closed_by_owner")
        return None

    def _do_auction_cancel(self, me: str, operation: dict[str, Any], digest: bytes, now: int) -> str | None:
        auction = self.auctions.get(operation["auction"])
        if auction is None:
            return "unknown_auction"
        mine, admin = auction["owner"] == me, self._is(me, "admin")
        if not mine and not admin:
            return "not_owner"
        if auction["state"] != "open" or now >= auction["closes"]:
            return "auction_closed"
        if not admin and auction["bids"] > 0:
            return "has_bids"
        if (mine and auction["bids"] == 0) or self._agreed(me, operation, now):
            self._release(auction)
            auction["state"], auction["reason"], auction["outcome"] = "cancelled", "cancelled", "cancelled"
        return None
