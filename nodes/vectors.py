"""Test vectors for verifiers in other languages: `python -m nodes.vectors --out docs/vectors`.

Everything is derived from fixed keys and counters, so the files are the same on every machine; a test
compares them with what this module makes.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import fastpath
from nodes.block import BlockHeader, block_hash, next_order_hash, result_leaf, timer_digest, timer_record
from nodes.canonical import encode
from nodes.config import ClusterConfig, Member
from nodes.core.types import ReplicaId
from nodes.keys import SigningKey
from nodes.receipt import Receipt, ReceiptError
from nodes.wire import build_request, parse_record, signed

GENESIS_TIME_US = 1_760_000_000_000_000
_OPERATIONS = (
    b'{"account":"","type":"account.example"}',
    b"",
    '{"memo":"caf\u00e9","type":"money.transfer"}'.encode(),
    bytes(range(256)),
)
_NOTE = "Binary values are lower-case hex unless a field says base64. Integers are exact."


def signing_key(name: str) -> SigningKey:
    """The key whose seed is the SHA-256 of "arremate vector " and a name: public knowledge, for vectors only."""
    return SigningKey(fastpath.sha256(b"arremate vector " + name.encode("utf-8")))


def cluster(n: int = 4) -> ClusterConfig:
    """The cluster of all vectors, or one of another size."""
    members = [
        Member(
            replica=ReplicaId(replica),
            name=f"node{replica}",
            identity_key=signing_key(f"identity {replica}").public_key,
            consensus_key=signing_key(f"consensus {replica}").public_key,
            curve_key=fastpath.sha256(b"curve %d" % replica),
            host="127.0.0.1",
            peer_port=9000 + 10 * replica,
            bulk_port=9001 + 10 * replica,
            client_port=9002 + 10 * replica,
            https_port=9003 + 10 * replica,
        )
        for replica in range(n)
    ]
    return ClusterConfig.new(
        members=members, genesis_time_us=GENESIS_TIME_US, application="example", application_genesis={"note": "vectors"}
    )


def request_vectors() -> dict[str, Any]:
    """Requests: fields, the bytes that are signed, signature, record, digest and batch leaf."""
    cluster_id = cluster().cluster_id
    author = signing_key("author")
    cases = []
    for index, operation in enumerate(_OPERATIONS):
        fields = {"session": 1_760_000_000_000 + index, "sequence": index + 1, "floor": 1}
        fields["valid_until_us"] = GENESIS_TIME_US + 60_000_000
        record = build_request(author, cluster_id, **fields, operation=operation)
        request = parse_record(record, cluster_id)
        cases.append(
            {
                **fields,
                "operation": operation.hex(),
                "signed_bytes": (signed.request_prefix(cluster_id) + record[:-64]).hex(),
                "signature": record[-64:].hex(),
                "record": record.hex(),
                "digest": request.digest.hex(),
                "leaf": request.leaf.hex(),
            }
        )
    head = {"note": _NOTE, "cluster_id": cluster_id.hex(), "seed": author.seed.hex()}
    return {**head, "public_key": author.public_key.hex(), "requests": cases}


def merkle_vectors() -> dict[str, Any]:
    """Trees of 0 to 9 leaves (leaf i hashes the one byte i), each with the audit path of every leaf."""
    trees = []
    for count in range(10):
        leaves = [fastpath.leaf_hash(bytes([index])) for index in range(count)]
        paths = fastpath.merkle_paths(leaves, range(count))
        trees.append(
            {
                "leaves": [leaf.hex() for leaf in leaves],
                "root": fastpath.merkle_root(leaves).hex(),
                "paths": [_hashes(path) for path in paths],
            }
        )
    return {"note": _NOTE + " Leaves are leaf hashes.", "trees": trees}


def receipt_vectors() -> dict[str, Any]:
    """Receipts of one block that verify, and altered ones with the code of their refusal."""
    config = cluster()
    receipts = example_receipts(config)
    good = [receipt.to_json().decode("ascii") for receipt in receipts]
    bad = []
    for name, text in _altered(json.loads(good[1])):
        bad.append({"name": name, "code": _code(text, config), "receipt": text})
    header = receipts[0].header
    first = receipts[1]
    worked = {
        "genesis": config.to_bytes().decode("utf-8"),
        "config_hash": config.config_hash.hex(),
        "block_header": header.pack().hex(),
        "block_hash": header.hash.hex(),
        "attested_bytes": _statement(config, header).hex(),
        "request_digest": first.digest.hex(),
        "leaf": result_leaf(header.sequence, first.index, first.digest, first.status, first.result).hex(),
        "timer_digest": receipts[0].digest.hex(),
    }
    return {"note": _NOTE, **worked, "receipts": good, "refused": bad}


def example_receipts(config: ClusterConfig) -> list[Receipt]:
    """Receipts of every leaf of one block: a fired timer, then the requests of the request vectors."""
    author = signing_key("author")
    timer = (b"close:example", GENESIS_TIME_US + 1_000_000)
    records = [timer_record(*timer)]
    for index, operation in enumerate(_OPERATIONS):
        records.append(
            build_request(
                author,
                config.cluster_id,
                session=1_760_000_000_000 + index,
                sequence=index + 1,
                floor=1,
                valid_until_us=GENESIS_TIME_US + 60_000_000,
                operation=operation,
            )
        )
    digests = [timer_digest(*timer), *(parse_record(record, config.cluster_id).digest for record in records[1:])]
    results = [encode({"effects": [], "index": index}) for index in range(len(records))]
    statuses = [0, 0, 7, 0, 100]
    sequence = 7
    leaves = [
        result_leaf(sequence, index, digest, statuses[index], results[index]) for index, digest in enumerate(digests)
    ]
    batch_digest = fastpath.sha256(b"batch of the vectors")
    header = BlockHeader(
        cluster_id=config.cluster_id,
        epoch=config.epoch,
        sequence=sequence,
        previous_block_hash=fastpath.sha256(b"previous block"),
        order_hash=next_order_hash(fastpath.sha256(b"previous order"), sequence, batch_digest),
        digest=batch_digest,
        time_us=GENESIS_TIME_US + 1_500_000,
        result_count=len(leaves),
        results_root=fastpath.merkle_root(leaves),
        write_set_hash=fastpath.sha256(b"write set"),
        state_sequence=0,
        state_root=fastpath.sha256(b"state"),
        config_hash=config.config_hash,
    )
    statement = _statement(config, header)
    attestations = [(replica, signing_key(f"consensus {replica}").sign(statement)) for replica in range(config.quorum)]
    paths = fastpath.merkle_paths(leaves, range(len(leaves)))
    return [
        Receipt.build(
            header=header,
            index=index,
            status=statuses[index],
            result=results[index],
            path=paths[index],
            record=record,
            attestations=attestations,
        )
        for index, record in enumerate(records)
    ]


def _statement(config: ClusterConfig, header: BlockHeader) -> bytes:
    return signed.attest_bytes(
        config.cluster_id, config.epoch, header.sequence, header.order_hash, block_hash(header.pack())
    )


def _altered(document: Mapping[str, Any]) -> list[tuple[str, str]]:
    attestations: Sequence[Mapping[str, Any]] = document["attestations"]
    operation = document["operation"]
    block = document["block"]
    changes: dict[str, Mapping[str, Any]] = {
        "another cluster": {"cluster": "00" * 16},
        "another epoch": {"epoch": 1},
        "another sequence of the author": {"operation": {**operation, "sequence": operation["sequence"] + 1}},
        "another status": {"status": document["status"] + 1},
        "another leaf of the block": {"index": document["index"] + 1},
        "another number of leaves": {"leaf_count": document["leaf_count"] + 1},
        "a path that is too long": {"path": [*document["path"], "00" * 32]},
        "another block time": {"block": {**block, "time_us": block["time_us"] + 1}},
        "one attestation too few": {"attestations": attestations[:-1]},
        "one replica twice": {"attestations": [attestations[0], *attestations]},
        "a stranger": {"attestations": [*attestations, {**attestations[0], "replica": 4}]},
        "a signature under another name": {"attestations": [*attestations[:-1], {**attestations[-1], "replica": 3}]},
        "an unknown field": {"extra": 0},
        "upper-case hex": {"cluster": document["cluster"].upper()},
    }
    texts = [(name, encode({**document, **change}).decode("ascii")) for name, change in changes.items()]
    return [*texts, ("white space", json.dumps(document, sort_keys=True))]


def _code(text: str, config: ClusterConfig) -> str:
    try:
        Receipt.from_json(text.encode("ascii")).verify(config)
    except ReceiptError as error:
        return error.code.value
    raise AssertionError("an altered receipt was accepted")


def _hashes(path: bytes) -> list[str]:
    return [path[start : start + 32].hex() for start in range(0, len(path), 32)]


def files() -> dict[str, str]:
    """Name and text of every vector file."""
    vectors = {"requests.json": request_vectors(), "merkle.json": merkle_vectors(), "receipts.json": receipt_vectors()}
    return {name: json.dumps(value, indent=1, sort_keys=True) + "\n" for name, value in vectors.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the vector files into a directory."""
    parser = argparse.ArgumentParser(prog="python -m nodes.vectors", description="Write test vectors for verifiers.")
    parser.add_argument("--out", type=Path, required=True, help="directory, for example docs/vectors")
    directory: Path = parser.parse_args(arguments).out
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in files().items():
        (directory / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
