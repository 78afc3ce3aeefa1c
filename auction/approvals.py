"""k of m: an admin operation takes effect when k distinct admins have submitted the same one.

The same means the same canonical JSON. Pending approvals are rows, at most `SLOTS` for each admin who
proposes: one that is still pending when its proposer makes the SLOTS-th proposal after it is dropped, so
nobody can fill the house's memory or block others. Only who is still an active admin counts. A pending
approval lapses after `LIFETIME_US`.
"""

from __future__ import annotations

from dataclasses import dataclass

import fastpath
from auction import tables
from auction.call import Call
from auction.operations import AnyOperation, canonical
from auction.roles import Role
from auction.state import Account, Approval, ApprovalSlot, Proposer
from auction.tables import ID_BYTES

SLOTS = 16
LIFETIME_US = 7 * 86_400 * 1_000_000
"""A week of block time: admins are people."""


@dataclass(frozen=True, slots=True)
class Approved:
    approvals: int
    needed: int

    @property
    def complete(self) -> bool:
        return self.approvals >= self.needed


def approve(call: Call, operation: AnyOperation) -> Approved:
    """Count the author's approval of an operation that would be accepted now; writes the pending row."""
    needed = call.house.admin_threshold
    if needed == 1:
        return Approved(1, 1)
    payload = canonical(operation)
    digest = fastpath.sha256(payload)
    pending: Approval | None = call.rows.get(tables.approvals, digest)
    if pending is not None and pending.expires_us <= call.context.time_us:
        _drop(call, pending)
        pending = None
    approvers = [] if pending is None else _active_admins(call, pending.approvers)
    if call.author.id not in approvers:
        approvers.append(call.author.id)
    approved = Approved(len(approvers), needed)
    if approved.complete:
        if pending is not None:
            _drop(call, pending)
        return approved
    if pending is None:
        pending = _propose(call, digest, payload)
    call.rows.put(tables.approvals, pending._replace(approvers=b"".join(approvers)))
    call.journal.effect("approved", operation=digest.hex(), approvals=approved.approvals, needed=needed)
    return approved


def _active_admins(call: Call, approvers: bytes) -> list[bytes]:
    found = []
    for start in range(0, len(approvers), ID_BYTES):
        account: Account = call.journal.existing(approvers[start : start + ID_BYTES])
        if account.roles & Role.ADMIN and not account.frozen:
            found.append(account.id)
    return found


def _propose(call: Call, digest: bytes, payload: bytes) -> Approval:
    """A new pending approval in the proposer's next slot, whose former content is dropped."""
    author = call.author.id
    proposer: Proposer = call.rows.get(tables.proposers, author) or Proposer(author, 0)
    slot = proposer.next_slot
    used: ApprovalSlot | None = call.rows.get(tables.approval_slots, author, slot)
    if used is not None and used.digest is not None:
        call.rows.delete(tables.approvals, used.digest)
    call.rows.put(tables.approval_slots, ApprovalSlot(author, slot, digest))
    call.rows.put(tables.proposers, Proposer(author, (slot + 1) % SLOTS))
    return Approval(digest, payload, author, slot, b"", call.context.time_us + LIFETIME_US)


def _drop(call: Call, pending: Approval) -> None:
    call.rows.delete(tables.approvals, pending.digest)
    call.rows.put(tables.approval_slots, ApprovalSlot(pending.proposer, pending.slot, None))
