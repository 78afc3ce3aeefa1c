"""Receipts: proofs of an outcome that anyone verifies offline with the cluster's genesis alone."""

from nodes.receipt.error import ReceiptCode, ReceiptError
from nodes.receipt.receipt import RECEIPT_BYTES_MAX, FiredTimer, Receipt, SignedOperation, Subject, VerifiedReceipt
from nodes.receipt.self_test import Refusal, SelfTestFailedError, self_test, verify_file

__all__ = [
    "RECEIPT_BYTES_MAX",
    "FiredTimer",
    "Receipt",
    "ReceiptCode",
    "ReceiptError",
    "Refusal",
    "SelfTestFailedError",
    "SignedOperation",
    "Subject",
    "VerifiedReceipt",
    "self_test",
    "verify_file",
]
