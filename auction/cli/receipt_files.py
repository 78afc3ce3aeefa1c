"""Receipts as files and as plain values: kept when received, verified from the genesis alone when read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from auction.cli.failure import unverified, usage
from auction.codes import code_name
from nodes.config import ClusterConfig, ConfigError
from nodes.receipt import Receipt, ReceiptError

DIGEST_CHARACTERS = 12
"""Of the digest in a file's name; block and index alone are unique already."""


def save_receipt(folder: Path | None, receipt: Receipt) -> Path | None:
    """Keep a receipt as BLOCK-INDEX-DIGEST.json; its path, or None when there is no folder to keep it in."""
    if folder is None:
        return None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path = (
            folder
            / f"{receipt.header.sequence:08d}-{receipt.index:04d}-{receipt.digest.hex()[:DIGEST_CHARACTERS]}.json"
        )
        path.write_bytes(receipt.to_json())
    except OSError as error:
        raise usage("cannot_write", f"{error.filename}: {error.strerror}") from error
    return path


def read_receipt(path: Path) -> Receipt:
    """The receipt in a file, unverified; `Failure` 5 when it is none."""
    try:
        return Receipt.from_json(path.read_bytes())
    except OSError as error:
        raise usage("no_receipt", f"cannot read {path}: {error.strerror}") from error
    except ReceiptError as error:
        raise unverified(error.code, f"{path}: {error.detail}") from error


def read_genesis(path: Path) -> ClusterConfig:
    try:
        return ClusterConfig.load(path)
    except OSError as error:
        raise usage("no_genesis", f"cannot read {path}: {error.strerror}") from error
    except ConfigError as error:
        raise usage("bad_genesis", f"{path}: {error}") from error


def verify_receipt_file(path: Path, genesis: Path) -> Receipt:
    """Read and verify as a stranger would; `Failure` 5 with the code of the first step that fails."""
    receipt = read_receipt(path)
    try:
        receipt.verify(read_genesis(genesis))
    except ReceiptError as error:
        raise unverified(
            error.code, f"{path}: {error.detail}", "this is no proof of anything: ask another node"
        ) from error
    return receipt


def result_of(receipt: Receipt) -> dict[str, Any]:
    """The result as JSON values; an application whose results are no JSON objects gives its bytes in hex."""
    try:
        value = json.loads(receipt.result)
    except ValueError:
        return {"hex": receipt.result.hex()}
    return value if isinstance(value, dict) else {"value": value}


def receipt_value(receipt: Receipt, path: Path | None) -> dict[str, Any]:
    """What programs want to know of a receipt. The code's name comes from the number, never from the file."""
    return {
        "digest": receipt.digest.hex(),
        "code": code_name(receipt.status),
        "status": receipt.status,
        "sequence": receipt.header.sequence,
        "index": receipt.index,
        "time_us": receipt.header.time_us,
        "result": result_of(receipt),
        "attested_by": [replica for replica, _ in receipt.attestations],
        "receipt": None if path is None else str(path),
    }
