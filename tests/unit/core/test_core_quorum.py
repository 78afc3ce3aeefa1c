"""Thresholds and options."""

from __future__ import annotations

import pytest
from core_harness import R

from nodes.core.options import CoreOptions
from nodes.core.quorum import Thresholds
from nodes.core.types import View

TABLE = {
    1: (0, 1, 1),
    4: (1, 3, 2),
    5: (1, 4, 2),
    6: (1, 4, 2),
    7: (2, 5, 3),
    8: (2, 6, 3),
    9: (2, 6, 3),
    10: (3, 7, 4),
    11: (3, 8, 4),
    12: (3, 8, 4),
    13: (4, 9, 5),
}


@pytest.mark.parametrize("n", TABLE)
def test_thresholds_are_those_of_the_table(n: int) -> None:
    """Section 1: q = ceil((n + f + 1) / 2), w = f + 1; n = 5 and 6 need 4 votes, not 2f + 1."""
    thresholds = Thresholds(n)
    assert (thresholds.f, thresholds.q, thresholds.w) == TABLE[n]


@pytest.mark.parametrize("n", TABLE)
def test_quorums_meet_in_a_correct_replica_and_correct_ones_make_a_quorum(n: int) -> None:
    """Section 13, S1: 2q - n >= f + 1; and n - f >= q, so that f silent replicas stop nobody."""
    thresholds = Thresholds(n)
    assert 2 * thresholds.q - n >= thresholds.f + 1
    assert n - thresholds.f >= thresholds.q


@pytest.mark.parametrize("n", [0, 2, 3, 14, -4])
def test_thresholds_refuse_other_sizes(n: int) -> None:
    with pytest.raises(ValueError, match="members"):
        Thresholds(n)


def test_primary_follows_from_the_view() -> None:
    """Section 1: leader(view) = members[view mod n]."""
    assert [Thresholds(4).primary(View(view)) for view in range(6)] == [0, 1, 2, 3, 0, 1]


@pytest.mark.parametrize(
    "wrong",
    [{"me": R(4)}, {"pipeline": 9}, {"pipeline": 0}, {"window": 64}, {"cluster_id": b""}, {"config_hash": b"x"}],
)
def test_options_that_make_no_sense_are_refused(wrong: dict[str, object]) -> None:
    """Section 10: L >= 8 K; section 0: W is 1 to 8."""
    sound: dict[str, object] = {"n": 4, "me": R(0), "cluster_id": bytes(16), "epoch": 0, "config_hash": bytes(32)}
    CoreOptions(**sound)  # type: ignore[arg-type]
    with pytest.raises(ValueError):
        CoreOptions(**{**sound, **wrong})  # type: ignore[arg-type]
