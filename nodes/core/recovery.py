"""Rebuilding the core from its log (docs/protocol.md section 15).

Always: only Decided records make the prefix, prepared slots are never replayed as decided; what was
accepted is the only proposal this replica may ever vote for in its (view, sequence). A log that
contradicts itself stops the replica: its disk, or we, are wrong. Memory is bounded, however long the
log is: votes of the window, bodies of the newest blocks (`Order.shed`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import assert_never

from nodes.core.checkpoint import Checkpoints
from nodes.core.messages import OrderedBatch
from nodes.core.order import Order
from nodes.core.pool import Pool
from nodes.core.records import Accepted, Adopted, Decided, Prepared, Record, Stable, ViewEntered
from nodes.core.types import SequenceNumber
from nodes.core.window import Window


class BrokenLog(Exception):
    """The records contradict each other."""


def recover(records: Iterable[Record], window: Window, order: Order, checkpoints: Checkpoints, pool: Pool) -> bool:
    """Replay `records` in order into fresh parts. False: there were none."""
    adopted: dict[SequenceNumber, OrderedBatch] = {}
    is_empty = True
    for record in records:
        is_empty = False
        match record:
            case ViewEntered():
                window.view, window.mode = record.view, record.mode
            case Accepted():
                if record.proposal.batch.sequence > window.stable:
                    window.recover_accepted(record.proposal)
                if record.proposal.batch.sequence > max(window.stable, order.last_committed):
                    pool.proposed(record.proposal.batch.sequence, record.proposal.requests)
            case Prepared():
                if record.certificate.batch.sequence > window.stable:
                    window.recover_prepared(record.certificate)
            case Adopted():
                adopted[record.block.batch.sequence] = record.block
            case Decided():
                _decide(record, window, order, pool, adopted)
            case Stable():
                _stabilise(record, window, order, checkpoints)
            case _ as unknown:
                assert_never(unknown)
    return not is_empty


def _decide(
    record: Decided, window: Window, order: Order, pool: Pool, adopted: dict[SequenceNumber, OrderedBatch]
) -> None:
    sequence = record.sequence
    if order.last_committed == 0 and sequence > 1:
        # The log was collected up to somewhere below; its first decided block is the new beginning.
        adopted.pop(sequence, None)
        order.rebase(sequence, record.order_hash)
        return
    if sequence != order.last_committed + 1:
        raise BrokenLog(f"decided {sequence} after {order.last_committed}")
    slot = window.get(sequence)
    block = adopted.pop(sequence, None) or (slot.block_of(record.digest) if slot is not None else None)
    if block is None or block.batch.digest != record.digest:
        raise BrokenLog(f"no body for decided {sequence}")
    if order.append(block).order_hash != record.order_hash:
        raise BrokenLog(f"order hash of {sequence}")
    order.shed(window.stable)
    if window.admits(sequence):
        window.recover_decided(block)
    pool.ordered(sequence, block.requests)


def _stabilise(record: Stable, window: Window, order: Order, checkpoints: Checkpoints) -> None:
    certificate = record.certificate
    if checkpoints.recover_refuted(certificate) or certificate.sequence <= window.stable:
        return
    if order.last_committed == 0:
        order.rebase(certificate.sequence, certificate.order_hash)
    if certificate.sequence > order.last_committed:
        raise BrokenLog(f"stable {certificate.sequence} above decided {order.last_committed}")
    checkpoints.recover_stable(certificate)
    window.advance_stable(certificate.sequence)
