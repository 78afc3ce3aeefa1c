"""How many replicas make a quorum (docs/protocol.md section 1).

`q` is a vote quorum: two of them meet in a correct replica. `w` is a weak quorum: it holds at
least one correct replica. Both come from n alone; `2f + 1` equals q only where n = 3f + 1, and is
unsafe elsewhere, so nothing in this library writes it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from nodes.core.types import ReplicaId, View

MEMBERS_MAX = 13
"""All-to-all votes stay cheap up to here; the protocol is designed for no more."""


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Thresholds of a cluster of `n` members: 1 (no replication, a baseline) or 4 to 13."""

    n: int
    f: int = field(init=False)
    """Byzantine members that are tolerated."""
    q: int = field(init=False)
    """ceil((n + f + 1) / 2)."""
    w: int = field(init=False)
    """f + 1."""

    def __post_init__(self) -> None:
        if self.n != 1 and not 4 <= self.n <= MEMBERS_MAX:
            raise ValueError(f"a cluster has 1 or 4 to {MEMBERS_MAX} members, not {self.n}")
        f = (self.n - 1) // 3
        object.__setattr__(self, "f", f)
        object.__setattr__(self, "q", (self.n + f + 2) // 2)
        object.__setattr__(self, "w", f + 1)

    def primary(self, view: View) -> ReplicaId:
        return ReplicaId(view % self.n)
