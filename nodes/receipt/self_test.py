"""Proof by trial that nothing in a receipt can change unnoticed: every field and every byte is altered."""

from __future__ import annotations

import base64
import copy
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from nodes import canonical
from nodes.config import ClusterConfig
from nodes.receipt.error import ReceiptError
from nodes.receipt.receipt import Receipt, VerifiedReceipt, to_document

POSITIONS_MAX = 8192
"""Bytes altered of one file; of a longer one (large operation or result) evenly spaced ones."""
_BASE64_FIELDS = frozenset({"public_key", "operation", "signature", "result"})
_BIT_FLIPS = (0x01, 0x20)
"""Another digit or letter; the other case."""

Path = tuple[str | int, ...]
Verifier = Callable[[bytes, ClusterConfig], object]
"""Judges the bytes of a receipt file; raises ReceiptError to refuse them."""


class SelfTestFailedError(Exception):
    """An altered receipt was accepted, or one was refused that is genuine."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """One row of the self-test's table."""

    field: str
    change: str
    code: str
    """Why the altered receipt was refused."""


@dataclass(frozen=True, slots=True)
class _Trial:
    cluster: ClusterConfig
    verifier: Verifier

    def refusal(self, what: str, altered: bytes) -> str:
        try:
            self.verifier(altered, self.cluster)
        except ReceiptError as error:
            return error.code.value
        raise SelfTestFailedError(f"a receipt was accepted after a change of {what}")


def verify_file(data: bytes, cluster: ClusterConfig) -> VerifiedReceipt:
    """What the receipt in these bytes proves; ReceiptError when it proves nothing."""
    return Receipt.from_json(data).verify(cluster)


def self_test(receipt: Receipt, cluster: ClusterConfig, verifier: Verifier = verify_file) -> list[Refusal]:
    """Alter everything, one thing at a time, and report the refusals of `verifier`.

    SelfTestFailedError when an altered receipt passes, ReceiptError when the receipt itself does not.
    """
    verifier(receipt.to_json(), cluster)
    trial = _Trial(cluster, verifier)
    rows = []
    for field, change, altered in _altered_documents(to_document(receipt), cluster):
        rows.append(Refusal(field, change, trial.refusal(f"{field}, {change}", canonical.encode(altered))))
    return rows + _altered_bytes(receipt.to_json(), trial)


def _altered_bytes(data: bytes, trial: _Trial) -> list[Refusal]:
    step = -(-len(data) // POSITIONS_MAX)
    rows = []
    for flip in _BIT_FLIPS:
        codes: Counter[str] = Counter()
        for position in range(0, len(data), step):
            altered = data[:position] + bytes([data[position] ^ flip]) + data[position + 1 :]
            codes[trial.refusal(f"byte {position} with {flip:#04x}", altered)] += 1
        for code, count in sorted(codes.items()):
            rows.append(Refusal("file", f"{count} bytes, one at a time, with bit {flip:#04x} flipped", code))
    rows.append(Refusal("file", "last byte removed", trial.refusal("last byte", data[:-1])))
    rows.append(Refusal("file", "line feed added", trial.refusal("line feed", data + b"\n")))
    return rows


def _altered_documents(document: dict[str, Any], cluster: ClusterConfig) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path in _paths(document):
        field = ".".join(map(str, path)) or "receipt"
        value = _at(document, path)
        if isinstance(value, dict):
            yield field, "unknown field added", _with(document, path, {**value, "unknown": 0})
            for name in value:
                rest = {key: item for key, item in value.items() if key != name}
                yield f"{field}.{name}", "removed", _with(document, path, rest)
        elif isinstance(value, list):
            if path != ("attestations",):
                yield field, "item added", _with(document, path, [*value, "00" * 32])
                if value:
                    yield field, "last item removed", _with(document, path, value[:-1])
        elif isinstance(value, int):
            yield field, "one more", _with(document, path, value + 1 if value < canonical.INTEGER_MAX else value - 1)
            yield field, "as text", _with(document, path, str(value))
        elif path[-1] in _BASE64_FIELDS:
            yield field, "one bit flipped", _with(document, path, _flipped(value))
        else:
            yield field, "one digit changed", _with(document, path, ("1" if value[:1] == "0" else "0") + value[1:])
    yield from _altered_attestations(document, cluster)


def _altered_attestations(
    document: dict[str, Any], cluster: ClusterConfig
) -> Iterator[tuple[str, str, dict[str, Any]]]:
    path: Path = ("attestations",)
    attestations = document["attestations"]
    few = attestations[: cluster.quorum - 1]
    yield "attestations", "fewer than a quorum", _with(document, path, few)
    yield "attestations", "one signer twice", _with(document, path, [attestations[0], *attestations])
    stranger = {**attestations[-1], "replica": cluster.n}
    yield "attestations", "a stranger's added", _with(document, path, [*attestations, stranger])
    if len(attestations) > 1:
        yield "attestations", "order reversed", _with(document, path, attestations[::-1])


def _paths(value: Any, path: Path = ()) -> Iterator[Path]:
    yield path
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _paths(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _paths(item, (*path, index))


def _at(document: Any, path: Path) -> Any:
    for step in path:
        document = document[step]
    return document


def _with(document: dict[str, Any], path: Path, value: Any) -> Any:
    if not path:
        return value
    altered = copy.deepcopy(document)
    _at(altered, path[:-1])[path[-1]] = value
    return altered


def _flipped(text: str) -> str:
    data = base64.b64decode(text)
    return base64.b64encode(bytes([data[0] ^ 1]) + data[1:] if data else b"\x00").decode("ascii")
