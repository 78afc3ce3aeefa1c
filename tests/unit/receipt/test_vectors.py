"""The published vectors are what the code makes, and say what an independent computation says."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
from nacl.exceptions import BadSignatureError

from nodes import vectors
from nodes.config import ClusterConfig
from nodes.receipt import Receipt, ReceiptCode, ReceiptError

PUBLISHED = Path(__file__).parents[3] / "docs" / "vectors"


def published(name: str) -> Any:
    return json.loads((PUBLISHED / name).read_text(encoding="utf-8"))


def test_published_vectors_are_up_to_date(tmp_path: Path) -> None:
    vectors.main(["--out", str(tmp_path / "vectors")])
    made = {path.name: path.read_text(encoding="utf-8") for path in (tmp_path / "vectors").iterdir()}
    assert made.keys() == {path.name for path in PUBLISHED.iterdir()}
    for name, text in made.items():
        assert (PUBLISHED / name).read_text(encoding="utf-8") == text, f"run python -m nodes.vectors ({name})"


def test_published_receipts_verify_and_altered_ones_do_not() -> None:
    document = published("receipts.json")
    config = ClusterConfig.from_bytes(document["genesis"].encode())
    assert config.config_hash.hex() == document["config_hash"]
    for text in document["receipts"]:
        assert Receipt.from_json(text.encode()).verify(config).block_hash.hex() == document["block_hash"]
    for case in document["refused"]:
        with pytest.raises(ReceiptError) as caught:
            Receipt.from_json(case["receipt"].encode()).verify(config)
        assert caught.value.code == case["code"], case["name"]


def test_published_hashes_follow_from_the_documented_bytes() -> None:
    document = published("receipts.json")
    header = bytes.fromhex(document["block_header"])
    assert hashlib.sha256(b"BLOCK\0\0\0" + header).hexdigest() == document["block_hash"]
    assert document["attested_bytes"].endswith(header[65:97].hex() + document["block_hash"])
    for case in published("requests.json")["requests"]:
        record = bytes.fromhex(case["record"])
        assert case["signed_bytes"][80:] == case["record"][:-128]
        digest = hashlib.sha256(b"REQ" + bytes(5) + record[:-64]).digest()
        leaf = hashlib.sha256(b"\0" + digest + record[-64:] + hashlib.sha256(b"").digest())
        assert (digest.hex(), leaf.hexdigest()) == (case["digest"], case["leaf"])


def test_published_trees_have_the_root_of_a_recursive_computation() -> None:
    def root(leaves: list[bytes]) -> bytes:
        if not leaves:
            return hashlib.sha256(b"").digest()
        if len(leaves) == 1:
            return leaves[0]
        split = 1
        while split * 2 < len(leaves):
            split *= 2
        return hashlib.sha256(b"\1" + root(leaves[:split]) + root(leaves[split:])).digest()

    for tree in published("merkle.json")["trees"]:
        assert root([bytes.fromhex(leaf) for leaf in tree["leaves"]]).hex() == tree["root"]


def documented_verifier() -> Any:
    """The function `verify` of the page about receipts, as a reader would copy it."""
    page = (PUBLISHED.parent / "receipts.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    namespace: dict[str, Any] = {}
    exec(compile(program, "docs/receipts.md", "exec"), namespace)  # noqa: S102
    return namespace["verify"]


def test_documented_verifier_agrees_on_every_vector() -> None:
    document = published("receipts.json")
    verify = documented_verifier()
    genesis = document["genesis"].encode()
    config = ClusterConfig.from_bytes(genesis)
    for text in document["receipts"]:
        assert verify(text.encode(), genesis) == Receipt.from_json(text.encode()).verify(config).digest
    for case in document["refused"]:
        with pytest.raises((AssertionError, BadSignatureError)) as caught:
            verify(case["receipt"].encode(), genesis)
        if caught.type is BadSignatureError:
            assert case["code"] in ("bad_author_signature", "bad_attestation")


def test_documented_offsets_are_those_of_the_worked_example() -> None:
    page = (PUBLISHED.parent / "receipts.md").read_text(encoding="utf-8")
    document = published("receipts.json")
    receipt = json.loads(document["receipts"][1])
    for value in (
        document["request_digest"],
        document["leaf"],
        document["block_hash"],
        receipt["block"]["results_root"],
    ):
        assert value in page
    for code in ReceiptCode:
        assert f"`{code}`" in page
