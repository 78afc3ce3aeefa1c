"""One backup of four is killed with -9: nothing stops, and it comes back with what it missed."""

from __future__ import annotations

import pytest

from tests.system.cluster import Cluster, wait_until

pytestmark = pytest.mark.system


def test_killed_backup_replays_its_log_fetches_what_it_missed_and_votes_again(cluster: Cluster) -> None:
    cluster.arremate("transfer", "carla", "1", "--as", "bob")
    cluster.prompt("\\kill 3")
    wait_until(lambda: cluster.status(3) is None, seconds=30, what="node 3 is down")
    receipts = [cluster.arremate("transfer", "carla", "1", "--as", "bob", "--node", str(n % 3)) for n in range(12)]
    assert len(receipts) == 12
    cluster.prompt("\\restart 3")

    def caught_up() -> bool:
        zero, three = cluster.status(0), cluster.status(3)
        return bool(
            zero and three and zero["sequence"] == three["sequence"] and zero["block_hash"] == three["block_hash"]
        )

    wait_until(caught_up, seconds=60, what="node 3 has the blocks it missed")
    cluster.prompt("\\kill 2")
    wait_until(lambda: cluster.status(2) is None, seconds=30, what="node 2 is down")
    # Quorum is three: these need the vote of the node that came back.
    cluster.arremate("transfer", "carla", "1", "--as", "bob", "--node", "3")
    cluster.prompt("\\restart 2")
    wait_until(lambda: cluster.status(2), seconds=60, what="node 2 is back")
