"""A script of random operations from a seed: same seed, same lines. Many of them the rules must refuse.

The script knows no outcome: `try` takes both, each with a verifying receipt. It ends when every auction has
ended, so that the receipts in hand explain all money; the system tests replay them through the plain model.
"""

from __future__ import annotations

import random

from auction.cli.sample import BIDDERS

PEOPLE = (*BIDDERS, "seller")
NODES = 4
OPEN_AUCTIONS_MAX = 4
CLOSES_IN_S = (4, 25)
ALL_CLOSED_WITHIN_S = 120


def generate(seed: int, operations: int) -> list[str]:
    """Lines of the script language; about `operations` of them are operations."""
    generator = random.Random(seed)  # noqa: S311  # a reproducible script, not a secret
    lines = [f"try mint {name} {generator.randint(1_000, 100_000)} --as issuer" for name in PEOPLE]
    auctions = 0
    open_auctions: list[int] = []
    while len(lines) < operations:
        choice = generator.random()
        if not open_auctions or choice < 0.08:
            del open_auctions[: max(0, len(open_auctions) - OPEN_AUCTIONS_MAX + 1)]
            auctions += 1
            open_auctions.append(auctions)
            lines.append(_open(generator, auctions))
        elif choice < 0.14:
            lines.append(_transfer(generator))
        elif choice < 0.17:
            lines.append(f"try mint {generator.choice(PEOPLE)} {generator.randint(0, 5_000)} --as issuer")
        elif choice < 0.19:
            lines.append(f"try mint {generator.choice(PEOPLE)} 10 --as {generator.choice(PEOPLE)}")
        elif choice < 0.22 and len(open_auctions) > 1:
            lines.append(_end(generator, open_auctions.pop(generator.randrange(len(open_auctions)))))
        else:
            lines.append(_bid(generator, generator.choice(open_auctions)))
    lines += [f"wait closed $A{number} within {ALL_CLOSED_WITHIN_S}s" for number in range(1, auctions + 1)]
    return [*lines, "assert same-state", "assert receipts-explain-balances"]


def _way(generator: random.Random) -> str:
    choice = generator.randrange(NODES + 1)
    return "--zmq" if choice == NODES else f"--node {choice}"


def _open(generator: random.Random, number: int) -> str:
    start = generator.randint(1, 500)
    words = [
        f"let A{number} = auction open 'lot {number}' --start {start}",
        f"--increment {generator.randint(1, 50)} --closes-in {generator.randint(*CLOSES_IN_S)}s",
    ]
    if generator.random() < 0.3:
        words.append(f"--reserve {start + generator.randint(0, 2_000)}")
    if generator.random() < 0.2:
        words.append(f"--buy-now {start + 2_000 + generator.randint(0, 3_000)}")
    if generator.random() < 0.4:
        words.append(f"--soft-close {generator.randint(1, 3)}s")
    return " ".join([*words, "--as seller", _way(generator), "| result.auction"])


def _transfer(generator: random.Random) -> str:
    payer, payee = generator.choice(PEOPLE), generator.choice(PEOPLE)
    return f"try transfer {payee} {generator.randint(0, 30_000)} --as {payer} {_way(generator)}"


def _bid(generator: random.Random, number: int) -> str:
    amount = generator.randint(1, 400) if generator.random() < 0.3 else generator.randint(1, 4_000)
    maximum = f" --max {amount + generator.randint(0, 2_000)}" if generator.random() < 0.4 else ""
    bidder = generator.choice(PEOPLE) if generator.random() < 0.1 else generator.choice(BIDDERS)
    return f"try bid $A{number} {amount}{maximum} --as {bidder} {_way(generator)}"


def _end(generator: random.Random, number: int) -> str:
    author = "seller" if generator.random() < 0.8 else generator.choice(BIDDERS)
    return f"try auction {generator.choice(('close', 'cancel'))} $A{number} --as {author} {_way(generator)}"
