"""Frames of peer messages: dispatch by type, headers, and the refusal of everything else.

A frame is one or more messages, each a header of 16 bytes and its payload, that fill it exactly. One
that is larger than a control frame holds one message alone. What a receiver has no use for it can have
skipped by its header, before a byte of the payload is looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import assert_never

import fastpath
from nodes.core.messages import (
    Attest,
    AttestCertificate,
    Commit,
    Evidence,
    FetchAttest,
    FetchBlocks,
    FetchBody,
    FetchedBlocks,
    FetchedBody,
    Forward,
    Hello,
    HelloAnswer,
    NewView,
    PeerMessage,
    Prepare,
    PrePrepare,
    Status,
    ViewChange,
    Wish,
)
from nodes.core.types import ReplicaId
from nodes.wire import peer, view_change
from nodes.wire.error import WireCode, WireError
from nodes.wire.format import BULK_FRAME_MAX, CONTROL_FRAME_MAX, HEADER_BYTES, Domain, MessageType
from nodes.wire.parts import Reader, check_epoch

Decoder = Callable[[Domain, Reader], PeerMessage]

_DECODERS: Mapping[int, Decoder] = {
    MessageType.PREPREPARE: peer.decode_preprepare,
    MessageType.PREPARE: peer.decode_prepare,
    MessageType.COMMIT: peer.decode_commit,
    MessageType.ATTEST: peer.decode_attest,
    MessageType.STATUS: peer.decode_status,
    MessageType.FETCH: peer.decode_fetch,
    MessageType.FETCHED: peer.decode_fetched,
    MessageType.FORWARD: peer.decode_forward,
    MessageType.WISH: view_change.decode_wish,
    MessageType.VIEWCHANGE: view_change.decode_view_change,
    MessageType.NEWVIEW: view_change.decode_new_view,
    MessageType.HELLO: view_change.decode_hello,
    MessageType.HELLO_ANSWER: view_change.decode_hello_answer,
    MessageType.EVIDENCE: view_change.decode_evidence,
}

_FETCHED = MessageType.FETCHED.value
_NAMES_SENDER = frozenset({MessageType.HELLO, MessageType.HELLO_ANSWER, MessageType.VIEWCHANGE})


def split_frame(domain: Domain, frame: bytes, frame_max: int) -> list[tuple[int, int, int]]:
    """(type, payload start, payload end) of each message of this epoch. WireError for a bad frame."""
    if len(frame) > frame_max:
        raise WireError(WireCode.BAD_FRAME, f"{len(frame)} bytes, at most {frame_max} allowed")
    try:
        bounds = fastpath.split_messages(frame, frame_max)
    except ValueError as error:
        raise WireError(WireCode.BAD_FRAME, str(error)) from error
    for kind, epoch, _, _ in bounds:
        if epoch != domain.epoch:
            raise WireError(WireCode.WRONG_EPOCH, f"message type {kind:#04x} of epoch {epoch}")
    return [(kind, start, end) for kind, _, start, end in bounds]


def decode_frame(domain: Domain, frame: bytes, sender: ReplicaId, frame_max: int) -> list[PeerMessage]:
    """The messages of a frame that the channel says is from `sender`; one bad message refuses them all."""
    return [
        _decode(domain, kind, frame, start, end, sender) for kind, start, end in split_frame(domain, frame, frame_max)
    ]


def read_frame(
    domain: Domain, frame: bytes, sender: ReplicaId, *, ignored: Collection[int], fetched_max: Callable[[], int]
) -> Iterator[tuple[PeerMessage | None, int]]:
    """The messages of a frame and their sizes one by one, so that a receiver can stop between two.

    None stands for a message that was skipped undecoded: of a type in `ignored`, or a FETCHED with a
    payload over `fetched_max()`. WireError ends the frame; what came before it holds.
    """
    if len(frame) > CONTROL_FRAME_MAX and len(frame) != HEADER_BYTES + int.from_bytes(frame[8:12], "little"):
        raise WireError(WireCode.BAD_FRAME, f"several messages in {len(frame)} bytes")
    for kind, start, end in split_frame(domain, frame, BULK_FRAME_MAX):
        size = end - start
        if kind in ignored or (kind == _FETCHED and size > fetched_max()):
            yield None, size
        else:
            yield _decode(domain, kind, frame, start, end, sender), size


def _decode(domain: Domain, kind: int, frame: bytes, start: int, end: int, sender: ReplicaId) -> PeerMessage:
    decoder = _DECODERS.get(kind)
    if decoder is None:
        raise WireError(WireCode.UNKNOWN_TYPE, f"peer message type {kind:#04x}")
    try:
        reader = Reader(frame, start, end)
        message = decoder(domain, reader)
        reader.finish()
    except WireError:
        raise
    except ValueError as error:
        raise WireError(WireCode.MALFORMED, f"{MessageType(kind).name}: {error}") from error
    if kind in _NAMES_SENDER and isinstance(message, Hello | HelloAnswer | ViewChange) and message.replica != sender:
        raise WireError(WireCode.WRONG_SENDER, f"{MessageType(kind).name} of {message.replica} from {sender}")
    return message


def encode(domain: Domain, message: PeerMessage) -> bytes:
    """One message with its header. ValueError for what no peer would accept: unsigned, oversized, another epoch."""
    if not isinstance(message, Hello | HelloAnswer | Evidence):
        check_epoch(domain, message.epoch)
    kind, payload = _encode_payload(domain, message)
    if len(payload) > BULK_FRAME_MAX - HEADER_BYTES:
        raise ValueError(f"{kind.name} of {len(payload)} bytes does not fit a frame")
    return fastpath.pack_message(kind, domain.epoch, payload)


def _encode_payload(domain: Domain, message: PeerMessage) -> tuple[MessageType, bytes]:
    match message:
        case Prepare():
            return MessageType.PREPARE, peer.encode_vote(message)
        case Commit():
            return MessageType.COMMIT, peer.encode_vote(message)
        case PrePrepare():
            return MessageType.PREPREPARE, peer.encode_preprepare(message, message.signature)
        case Attest():
            return MessageType.ATTEST, peer.encode_attest(message)
        case Status():
            return MessageType.STATUS, peer.encode_status(message)
        case FetchBlocks() | FetchAttest() | FetchBody():
            return MessageType.FETCH, peer.encode_fetch(message)
        case FetchedBlocks() | FetchedBody() | AttestCertificate():
            return MessageType.FETCHED, peer.encode_fetched(message)
        case Forward():
            return MessageType.FORWARD, peer.encode_forward(message)
        case Wish():
            return MessageType.WISH, view_change.encode_wish(message)
        case ViewChange():
            return MessageType.VIEWCHANGE, view_change.encode_view_change(domain, message)
        case NewView():
            return MessageType.NEWVIEW, view_change.encode_new_view(domain, message)
        case Hello():
            return MessageType.HELLO, view_change.encode_hello(message)
        case HelloAnswer():
            return MessageType.HELLO_ANSWER, view_change.encode_hello_answer(domain, message)
        case Evidence():
            return MessageType.EVIDENCE, view_change.encode_evidence(domain, message)
        case _:
            assert_never(message)
