"""What can come of an operation or a query other than success.

A caller must be able to tell four things apart: refused for certain (with proof), not known, come back
later, and somebody lied. Nothing here ever means "failed" without a proof.
"""

from __future__ import annotations

from nodes.receipt import Receipt


class ClientError(Exception):
    """Base of everything that this package raises about the service. `code` is stable."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


class Refused(ClientError):
    """The operation will have no effect.

    With a `receipt` it was ordered and refused by the rules: final and provable. Without one, q replicas
    refused to take it before any ordering (its validity has passed, for example).
    """

    def __init__(self, code: str, status: int, receipt: Receipt | None, detail: str) -> None:
        super().__init__(code, detail)
        self.status = status
        self.receipt = receipt


class OutcomeUnknown(ClientError):
    """No proof in time. The operation may have been executed, or may yet be: retry the same bytes."""

    def __init__(self, digest: bytes, record: bytes, detail: str) -> None:
        super().__init__("outcome_unknown", detail)
        self.digest = digest
        self.record = record
        """The signed bytes to retry with `submit_signed`; empty when only a receipt was asked for."""


class Overloaded(ClientError):
    """Nothing was ordered as far as q replicas know: come back after `retry_after` seconds with the same bytes.

    `code` is `rate_limited` (this key sends too much), `overloaded` (the service has too much to do) or
    `catching_up`.
    """

    def __init__(self, code: str, retry_after: float, detail: str, record: bytes = b"") -> None:
        super().__init__(code, detail)
        self.retry_after = retry_after
        self.record = record


class VerificationFailed(ClientError):
    """More replicas gave answers that do not verify than may be faulty: this is not the cluster of our genesis."""

    def __init__(self, code: str, replica: int, detail: str) -> None:
        super().__init__(code, detail)
        self.replica = replica


class NoQuorum(ClientError):
    """Too few replicas answered, or too few gave the same answer, in time. Nothing was changed by asking."""

    def __init__(self, detail: str) -> None:
        super().__init__("no_quorum", detail)


class NotFound(ClientError):
    """q replicas say that they know no such thing."""

    def __init__(self, detail: str) -> None:
        super().__init__("not_found", detail)


class InvalidRequest(ClientError, ValueError):
    """Refused here, before anything was sent: `malformed`, `bad_signature`, `too_large`, `nonce_in_use`, `no_key`."""
