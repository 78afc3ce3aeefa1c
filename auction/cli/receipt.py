"""`arremate receipt`: verify offline, from the genesis alone; fetch one again from the cluster."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType

from auction.cli.command import Call, cluster_command, local_command
from auction.cli.failure import unverified, usage
from auction.cli.money import format_time
from auction.cli.output import Answer, listing, record
from auction.cli.receipt_files import read_genesis, receipt_value, save_receipt, verify_receipt_file
from auction.cli.session import Session
from nodes.receipt import FiredTimer, Receipt, Refusal, SelfTestFailedError, self_test


def register(app: typer.Typer) -> None:
    receipts = typer.Typer(help="Proofs of what happened.", no_args_is_help=True)
    app.add_typer(receipts, name="receipt")

    @local_command(receipts, "verify", example="arremate receipt verify receipt.json --genesis genesis.json")
    def verify(
        session: Session,
        files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Receipt files.")],
        genesis: Annotated[Path, typer.Option(help="The cluster's genesis.json: all the trust there is.")],
        try_changes: Annotated[
            bool, typer.Option("--self-test", help="Also change every field and byte: each must be refused.")
        ] = False,
    ) -> Answer:
        """Verify receipts offline. Exit code 5 and the step's code when one does not hold."""
        values = []
        parts: list[RenderableType] = []
        for path in files:
            receipt = verify_receipt_file(path, genesis)
            value = {"verified": True, **receipt_value(receipt, path)}
            if len(files) == 1:
                parts.append(record(f"{path} is genuine", _readable(receipt, value)))
            if try_changes:
                refusals = _run_self_test(receipt, genesis)
                value["self_test"] = [asdict(refusal) for refusal in refusals]
                rows = [(refusal.field, refusal.change, refusal.code) for refusal in refusals]
                parts.append(listing(f"{path} with one change", ("field", "change", "refused with"), rows))
            values.append(value)
        if len(files) == 1:
            return Answer(values[0], Group(*parts))
        parts.append(f"{len(files)} receipts are genuine")
        return Answer({"verified": len(files), "receipts": values}, Group(*parts))

    @cluster_command(receipts, "fetch", example="arremate receipt fetch DIGEST --save closing.json")
    def fetch(
        call: Call,
        digest: Annotated[str, typer.Argument(help="Digest of the operation or deadline, 64 hex digits.")],
        save: Annotated[Path | None, typer.Option(help="Write it to this file.")] = None,
    ) -> Answer:
        """Get the receipt of something that happened, also of a deadline (see: arremate auction winner)."""
        if re.fullmatch(r"[0-9a-f]{64}", digest) is None:
            raise usage("bad_digest", f"'{digest}' is not 64 lower-case hex digits")
        receipt = call.connection.receipt(bytes.fromhex(digest), call.timeout_s)
        path = save_receipt(call.endpoints.receipts, receipt)
        if save is not None:
            try:
                save.write_bytes(receipt.to_json())
            except OSError as error:
                raise usage("cannot_write", f"{save}: {error.strerror}") from error
            path = save
        value = receipt_value(receipt, path)
        return Answer(value, record(f"receipt {digest}", _readable(receipt, value)))


def _run_self_test(receipt: Receipt, genesis: Path) -> list[Refusal]:
    try:
        return self_test(receipt, read_genesis(genesis))
    except SelfTestFailedError as error:
        raise unverified("self_test_failed", str(error)) from error


def _readable(receipt: Receipt, value: dict[str, Any]) -> dict[str, object]:
    shown: dict[str, object] = {
        "outcome": f"{value['code']} ({value['status']})",
        "block": f"{value['sequence']} (leaf {value['index']} of {receipt.leaf_count})",
        "block time": format_time(value["time_us"]),
        "digest": value["digest"],
    }
    match receipt.subject:
        case FiredTimer():
            shown["what"] = f"a deadline, due {format_time(receipt.subject.due_us)}"
        case operation:
            shown["author's key"] = operation.public_key.hex()
            shown["operation"] = operation.operation.decode("utf-8", errors="backslashreplace")
    shown["result"] = receipt.result.decode("utf-8", errors="backslashreplace")
    shown["attested by"] = ", ".join(f"node {replica}" for replica in value["attested_by"])
    if value["receipt"] is not None:
        shown["file"] = value["receipt"]
    return shown
