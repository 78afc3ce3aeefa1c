"""From an operation to a proven outcome: sign, send, verify, keep the receipt, tell accepted from refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from auction.cli.command import Call
from auction.cli.failure import ExitCode, Failure, usage
from auction.cli.output import Answer, record
from auction.cli.receipt_files import receipt_value, save_receipt
from auction.codes import code_name
from nodes.codes import Status
from nodes.receipt import Receipt

_ACCOUNT_ID = re.compile(r"[0-9a-f]{32}")


def build_operation(encode: Callable[..., bytes], *arguments: Any, **fields: Any) -> bytes:
    """The bytes of an operation, from one of `auction.operations`' encoders; usage error when malformed."""
    try:
        return encode(*arguments, **fields)
    except ValueError as error:
        raise usage("malformed_operation", str(error)) from error


def submit(call: Call, operation: bytes) -> tuple[Receipt, Path | None]:
    """The receipt of an accepted operation and where it was kept; `Failure` 3 with the receipt when refused."""
    connection, signer = call.connection, call.signer
    request = signer.sign(connection.cluster.cluster_id, operation)
    receipt = connection.submit(request, call.timeout_s)
    if receipt.status == Status.STALE_SESSION:
        signer.renew_session()
        request = signer.sign(connection.cluster.cluster_id, operation)
        receipt = connection.submit(request, call.timeout_s)
    path = save_receipt(call.endpoints.receipts, receipt)
    if receipt.status != Status.OK:
        code = code_name(receipt.status)
        raise Failure(
            ExitCode.REFUSED,
            code,
            "ordered, and refused by the rules",
            hint="" if path is None else f"arremate receipt verify {path} --genesis {call.endpoints.genesis}",
            value=receipt_value(receipt, path),
        )
    return receipt, path


def submit_and_show(call: Call, title: str, operation: bytes) -> Answer:
    """Submit, and answer with the receipt's essentials and the result."""
    receipt, path = submit(call, operation)
    value = receipt_value(receipt, path)
    result = dict(value["result"])
    effects = result.pop("effects", [])
    shown: dict[str, object] = dict(result)
    for number, effect in enumerate(effects):
        shown[f"effect {number}"] = ", ".join(f"{name} {item}" for name, item in effect.items())
    shown["block"] = f"{value['sequence']} (leaf {value['index']})"
    shown["attested by"] = ", ".join(f"node {replica}" for replica in value["attested_by"])
    shown["receipt"] = value["digest"] if path is None else path
    return Answer(value, record(title, shown))


def ask(call: Call, query: dict[str, Any], *, signed: bool = False) -> dict[str, Any]:
    """A query's answer. `signed`: in the name of the caller's key. `Failure` 3 for an error of the rules."""
    answer = call.connection.query(query, call.signer if signed else None, call.timeout_s)
    if "error" in answer:
        raise Failure(
            ExitCode.REFUSED, str(answer["error"]), "the cluster's answer to this query", value={"query": query}
        )
    return answer


def account_reference(call: Call, name: str) -> str:
    """The id (32 hex digits) of an account given by its id or its handle."""
    if _ACCOUNT_ID.fullmatch(name):
        return name
    return str(ask(call, {"query": "account", "account": name})["id"])
