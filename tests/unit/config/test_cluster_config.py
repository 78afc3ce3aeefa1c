"""The genesis: its hash is its name, and every mistake in it is named."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import fastpath
from nodes import canonical
from nodes.config import ClusterConfig, ConfigError, Member, Parameters
from nodes.vectors import cluster


def test_genesis_comes_back_equal(tmp_path: Path) -> None:
    config = cluster()
    path = tmp_path / "genesis.json"
    path.write_bytes(config.to_bytes())
    loaded = ClusterConfig.load(path)
    assert loaded == config
    assert loaded.to_bytes() == config.to_bytes()
    assert loaded.config_hash == config.config_hash


def test_cluster_id_is_the_digest_of_the_genesis_with_the_id_zeroed() -> None:
    config = cluster()
    document = json.loads(config.to_bytes())
    assert fastpath.tagged_hash(b"CFG", canonical.encode(document)) == config.config_hash
    document["cluster_id"] = "00" * 16
    assert fastpath.tagged_hash(b"CFG", canonical.encode(document))[:16] == config.cluster_id


def test_genesis_with_any_byte_changed_is_refused() -> None:
    data = cluster().to_bytes()
    for position in range(len(data)):
        altered = data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]
        with pytest.raises(ConfigError):
            ClusterConfig.from_bytes(altered)
    with pytest.raises(ConfigError):
        ClusterConfig.from_bytes(data + b"\n")


@pytest.mark.parametrize(
    ("n", "f", "q", "w"),
    [(1, 0, 1, 1), (4, 1, 3, 2), (5, 1, 4, 2), (6, 1, 4, 2), (7, 2, 5, 3), (9, 2, 6, 3), (13, 4, 9, 5)],
)
def test_thresholds_follow_from_the_number_of_members(n: int, f: int, q: int, w: int) -> None:
    config = cluster(n)
    assert (config.n, config.f, config.quorum, config.weak) == (n, f, q, w)
    assert config.member(n - 1) is config.members[-1]
    assert config.member(n) is None
    assert config.member(-1) is None


def remade(**changes: Any) -> ClusterConfig:
    config = cluster()
    content = {
        "members": config.members,
        "genesis_time_us": config.genesis_time_us,
        "application": config.application,
        "application_genesis": config.application_genesis,
    }
    return ClusterConfig.new(**{**content, **changes})


def with_member(index: int, **changes: Any) -> tuple[Member, ...]:
    members = list(cluster().members)
    members[index] = replace(members[index], **changes)
    return tuple(members)


FIRST = cluster().members[0]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"members": cluster().members[:3]}, "members"),
        ({"members": cluster(13).members * 2}, "members"),
        ({"members": with_member(1, replica=2)}, "members[1].replica"),
        ({"members": with_member(1, name="Node")}, "members[1].name"),
        ({"members": with_member(1, name=FIRST.name)}, "members[1].name"),
        ({"members": with_member(1, host="a b")}, "members[1].host"),
        ({"members": with_member(1, host="localhost:9")}, "members[1].host"),
        ({"members": with_member(1, host="1.2.3.999")}, "members[1].host"),
        ({"members": with_member(1, host="fe80::1%eth0")}, "members[1].host"),
        ({"members": with_member(1, host="")}, "members[1].host"),
        ({"members": with_member(1, identity_key=b"short")}, "members[1].identity_key"),
        ({"members": with_member(1, identity_key=bytes(32))}, "members[1].identity_key"),
        ({"members": with_member(1, consensus_key=FIRST.consensus_key)}, "members[1].consensus_key"),
        ({"members": with_member(1, consensus_key=FIRST.identity_key)}, "members[1].consensus_key"),
        ({"members": with_member(1, curve_key=FIRST.curve_key)}, "members[1].curve_key"),
        ({"members": with_member(1, peer_port=0)}, "members[1].peer_port"),
        ({"members": with_member(1, https_port=65_536)}, "members[1].https_port"),
        ({"members": with_member(1, https_port=True)}, "members[1].https_port"),
        ({"members": with_member(1, bulk_port=FIRST.client_port)}, "members[1].bulk_port"),
        ({"genesis_time_us": 0}, "genesis_time_us"),
        ({"application": "No Name"}, "application"),
        ({"application_version": 0}, "application_version"),
        ({"application_genesis": []}, "application_genesis"),
        ({"application_genesis": {"a": 1.5}}, "genesis"),
        ({"epoch": -1}, "epoch"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_error_names_the_field_and_the_fix(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        remade(**changes)
    assert caught.value.field == field
    assert caught.value.fix in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"window": 7}, "window"),
        ({"window": 127}, "window"),
        ({"window": 130, "checkpoint_interval": 16}, "window"),
        ({"window": 100, "checkpoint_interval": 8}, "window"),
        ({"checkpoint_interval": 0}, "checkpoint_interval"),
        ({"buckets": "256"}, "buckets"),
        ({"session_window": 128}, "session_window"),
        ({"session_lifetime_us": 60_000_000}, "session_lifetime_us"),
        ({"results_lifetime_us": 60_000_000}, "results_lifetime_us"),
        ({"batch_bytes_max": 2_000_000}, "batch_bytes_max"),
        ({"batch_bytes_max": 65_536}, "batch_bytes_max"),
        ({"operation_bytes_max": 70_000}, "operation_bytes_max"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_parameter_out_of_range_is_refused(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Parameters(**changes)
    assert caught.value.field == f"parameters.{field}"


@pytest.mark.parametrize("host", ["localhost", "node-1.example.org", "10.0.0.1", "::1", "node_1"])
def test_host_may_be_a_name_or_an_address(host: str) -> None:
    assert remade(members=with_member(0, host=host)).members[0].host == host


def document() -> dict[str, Any]:
    value: dict[str, Any] = json.loads(cluster().to_bytes())
    return value


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"version": 2}, "version"),
        ({"unknown": 1}, "genesis.unknown"),
        ({"members": {}}, "members"),
        ({"members": [1]}, "members[0]"),
        ({"parameters": {}}, "parameters.batch_bytes_max"),
        ({"parameters": 3}, "parameters"),
        ({"cluster_id": "00" * 16}, "cluster_id"),
        ({"cluster_id": "zz"}, "cluster_id"),
        ({"signature_rule": 2}, "signature_rule"),
        ({"epoch": 1}, "cluster_id"),
    ],
    ids=str,
)
def test_document_that_is_no_genesis_is_refused(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ClusterConfig.from_bytes(canonical.encode({**document(), **changes}))
    assert caught.value.field == field


def test_genesis_of_the_application_must_have_a_canonical_form() -> None:
    with pytest.raises(ConfigError, match="application_genesis: float"):
        replace(cluster(), application_genesis={"rate": 0.5})


def test_missing_field_is_named() -> None:
    value = document()
    del value["members"]
    with pytest.raises(ConfigError, match=r"genesis.members: missing; add it"):
        ClusterConfig.from_bytes(canonical.encode(value))
    value = document()
    value["members"][2]["curve_key"] = value["members"][2]["curve_key"].upper()
    with pytest.raises(ConfigError, match=r"members\[2\].curve_key"):
        ClusterConfig.from_bytes(canonical.encode(value))
