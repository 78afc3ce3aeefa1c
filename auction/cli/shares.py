"""The JSON of a read share, as a gateway passes it on, back to the value whose signature can be checked."""

from __future__ import annotations

from typing import Any

from nodes.wire import ReadShare


def share_from_json(item: dict[str, Any], nonce: bytes) -> tuple[int, ReadShare]:
    """(replica, share over our nonce). KeyError, TypeError or ValueError for anything else."""
    share = ReadShare(
        nonce=nonce,
        read_digest=bytes.fromhex(item["query_digest"]),
        result_hash=bytes.fromhex(item["result_digest"]),
        executed=int(item["sequence"]),
        block_hash=bytes.fromhex(item["block_hash"]),
        time_us=int(item["block_time_us"]),
        leaf_index=int(item["leaf_index"]),
        leaf_count=int(item["leaf_count"]),
        path=b"".join(bytes.fromhex(part) for part in item["path"]),
        signature=bytes.fromhex(item["signature"]),
        result=None,
    )
    return int(item["replica"]), share
