"""A bidding program: outbids others up to a limit, over ZeroMQ, and believes nothing without a proof.

python examples/bidder.py ENDPOINTS_FILE KEY_NAME AUCTION LIMIT

With a running demo (it prints where its endpoints file is):
python examples/bidder.py /tmp/arremate-.../demo/endpoints.json bob AUCTION 30000
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from auction import operations
from auction.accounts import account_id
from auction.cli.endpoints import Endpoints
from auction.codes import code_name
from nodes.client.aio import Client
from nodes.client.errors import Refused
from nodes.config import ClusterConfig
from nodes.keys import SigningKey


async def bid_up_to(endpoints: Endpoints, name: str, auction: str, limit: int) -> None:
    """Bid the least that leads, again and again, until the auction ends or the limit is passed."""
    key = SigningKey.load(endpoints.key_path(name))
    me = account_id(key.public_key).hex()
    cluster = ClusterConfig.load(endpoints.genesis)
    async with Client.connect(cluster, key, code_name=code_name) as client:
        async for event in client.events(auction=auction):
            sys.stdout.write(f"{event['kind']} in block {event['sequence']}\n")
            state = json.loads((await client.query({"query": "auction", "auction": auction})).result)
            if state["state"] != "open":
                won = (state["closing"] or {}).get("winner") == me
                sys.stdout.write("won\n" if won else "lost\n")
                return
            if state["leader"] == me:
                continue
            amount = state["minimum_amount"]
            if amount > limit:
                sys.stdout.write(f"{amount} is too much for me\n")
                return
            try:
                receipt = await client.submit(operations.bid(auction, amount))
                sys.stdout.write(f"bid {amount}, proven by block {receipt.header.sequence}\n")
            except Refused as refusal:
                sys.stdout.write(f"bid {amount} was refused: {refusal.code}\n")


if __name__ == "__main__":
    if len(sys.argv) != 5:
        sys.exit(__doc__)
    _, file, key_name, auction_id, most = sys.argv
    asyncio.run(bid_up_to(Endpoints.load(Path(file)), key_name, auction_id, int(most)))
