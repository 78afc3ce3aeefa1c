"""One sequence number: who proposed what, who voted for it, and how far it has come.

Always: the first vote of a sender in a (view, phase) is the only one that counts; a vote is counted
for its own digest only; a vote whose signature proved bad counts for nothing. Deliberately
elsewhere: which sequences may vote and commit, in what order (`nodes.core.window`).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from fastpath import Tally
from nodes.core.effects import PreparesPurpose
from nodes.core.messages import Commit, OrderedBatch, Prepare, PrepareCertificate, PrePrepare
from nodes.core.types import FaultCode, ReplicaId, SequenceNumber, View

VIEWS_MAX = 4
"""Views a slot keeps commits of: the current one, the next, and two before (old commits still decide)."""
NAMED_MAX = 2
"""Digests remembered in a slot because of one sender; a correct one names one in a view."""
REFUSED_MAX = 4
"""Digests remembered as refused; a correct primary has none."""


class Counted(IntEnum):
    NEW = 0
    REPEATED = 1
    CONFLICT = 2


class Votes:
    """The first vote of each sender in one (view, sequence, phase)."""

    __slots__ = ("_conflicts", "_messages", "_rejected", "_tally", "_verified")

    def __init__(self, senders: int) -> None:
        self._tally = Tally(senders)
        self._messages: list[Prepare | Commit | None] = [None] * senders
        self._verified = bytearray(senders)
        self._rejected = bytearray(senders)
        self._conflicts = bytearray(senders)

    def add(self, sender: ReplicaId, vote: Prepare | Commit) -> Counted:
        """Count `vote`; CONFLICT is reported once for each sender."""
        count = self._tally.add(sender, vote.digest)
        if count > 0:
            self._messages[sender] = vote
            return Counted.NEW
        if count < 0 and not self._conflicts[sender]:
            self._conflicts[sender] = 1
            return Counted.CONFLICT
        return Counted.REPEATED

    def count(self, digest: bytes) -> int:
        return int(self._tally.count(digest))

    def supporters(self, digest: bytes) -> list[ReplicaId]:
        """Senders for `digest` whose signature has not proved bad, ascending."""
        return [ReplicaId(sender) for sender in self._tally.voters(digest) if not self._rejected[sender]]

    def vote_of(self, sender: ReplicaId) -> Prepare | Commit | None:
        return self._messages[sender]

    def is_verified(self, sender: ReplicaId) -> bool:
        return bool(self._verified[sender])

    def mark(self, sender: ReplicaId, *, valid: bool) -> None:
        (self._verified if valid else self._rejected)[sender] = 1


@dataclass(slots=True)
class Candidate:
    """A proposal that is being checked, or waits for its turn or its time."""

    proposal: PrePrepare
    fault: FaultCode | None
    """What its contents violate; held against the primary only if its signature is good."""
    valid: bool = False
    hold_until_us: int = 0
    """Monotonic time at which its timestamp enters the window of the local clock."""


@dataclass(slots=True)
class Slot:
    sequence: SequenceNumber
    members: int
    proposal: PrePrepare | None = None
    """Accepted in this replica's view, and logged."""
    proposal_sent: bool = False
    """As primary: the proposal has been durable at least once, so it may be sent again."""
    own_prepare: Prepare | None = None
    own_commit: Commit | None = None
    certificate: PrepareCertificate | None = None
    certificate_durable: bool = False
    commit_emitted: bool = False
    decided: OrderedBatch | None = None
    wanted_body: bytes | None = None
    """Digest that a commit quorum decided and whose batch is not here."""
    checking_prepares: PreparesPurpose | None = None
    """The open check of PREPARE signatures."""
    touched_us: int = 0
    """Monotonic time of the first message about this slot."""
    age_us: int = 0
    """How old the timestamp of `proposal` was when it was first named, where that withheld the vote."""
    accepted_us: int = 0
    candidates: dict[ReplicaId, Candidate] | None = None
    refused: tuple[bytes, ...] = ()
    conflict_senders: tuple[ReplicaId, ...] = ()
    """Who has brought a second proposal; each may do so once."""
    _prepares: dict[View, Votes] | None = None
    _commits: dict[View, Votes] | None = None
    _named: dict[bytes, tuple[ReplicaId, int]] | None = None
    """By digest: who named it first, and the wall time of that."""

    def name(self, digest: bytes, sender: ReplicaId, wall_us: int) -> int:
        """Wall time at which any message first named `digest` here (section 9.1)."""
        if self._named is None:
            self._named = {}
        known = self._named.get(digest)
        if known is not None:
            return known[1]
        # Each sender has room of its own: no peer can make the digests of others look new for ever.
        if sum(first == sender for first, _ in self._named.values()) < NAMED_MAX:
            self._named[digest] = (sender, wall_us)
        return wall_us

    def prepares(self, view: View) -> Votes:
        if self._prepares is None:
            self._prepares = {}
        votes = self._prepares.get(view)
        if votes is None:
            votes = self._prepares[view] = Votes(self.members)
        return votes

    def commits(self, view: View) -> Votes | None:
        """Votes of `view`, or None where the bound of kept views is reached."""
        if self._commits is None:
            self._commits = {}
        votes = self._commits.get(view)
        if votes is None and len(self._commits) < VIEWS_MAX:
            votes = self._commits[view] = Votes(self.members)
        return votes

    def commit_quorum(self, quorum: int) -> bytes | None:
        """Digest with `quorum` commits in one view, whatever view that is."""
        for votes in (self._commits or {}).values():
            for sender in range(self.members):
                vote = votes.vote_of(ReplicaId(sender))
                if vote is not None and votes.count(vote.digest) >= quorum:
                    return vote.digest
        return None

    def drop(self, candidate: Candidate) -> None:
        self.candidates = {s: other for s, other in (self.candidates or {}).items() if other is not candidate}

    def refuse(self, digest: bytes) -> None:
        self.refused = (self.refused + (digest,))[-REFUSED_MAX:]

    def block_of(self, digest: bytes) -> OrderedBatch | None:
        """The batch with this digest, from the accepted proposal or any candidate."""
        proposals = [self.proposal] if self.proposal is not None else []
        proposals += [candidate.proposal for candidate in (self.candidates or {}).values()]
        for proposal in proposals:
            if proposal.batch.digest == digest:
                return OrderedBatch(proposal.batch, proposal.requests, proposal.body)
        return None

    def has_logged(self, digest: bytes) -> bool:
        return self.proposal is not None and self.proposal.batch.digest == digest
