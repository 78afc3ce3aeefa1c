"""Why a receipt is refused: stable codes, in the order in which verification finds them."""

from __future__ import annotations

from enum import StrEnum


class ReceiptCode(StrEnum):
    MALFORMED_RECEIPT = "malformed_receipt"
    """Not canonical JSON of this format, or a value outside its range."""
    WRONG_CLUSTER = "wrong_cluster"
    """Of another cluster than the genesis in hand."""
    WRONG_EPOCH = "wrong_epoch"
    """Of another epoch than the genesis in hand."""
    BAD_AUTHOR_SIGNATURE = "bad_author_signature"
    """The operation is not signed by the key it names."""
    BAD_LEAF_COUNT = "bad_leaf_count"
    """The number of leaves is not the block header's."""
    BAD_MERKLE_PATH = "bad_merkle_path"
    """Operation or timer, index, status and result are not a leaf under the block's results root."""
    UNKNOWN_MEMBER = "unknown_member"
    """An attestation of a replica that is no member."""
    DUPLICATE_SIGNER = "duplicate_signer"
    """Two attestations of one replica."""
    INSUFFICIENT_ATTESTATIONS = "insufficient_attestations"
    """Fewer than a quorum."""
    BAD_ATTESTATION = "bad_attestation"
    """An attestation that is not that member's signature over this block."""


class ReceiptError(ValueError):
    """A refused receipt: a stable `code`, and a `detail` for people."""

    def __init__(self, code: ReceiptCode, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail
