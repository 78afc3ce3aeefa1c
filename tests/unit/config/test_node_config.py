"""node.toml: read strictly, written so that it is read back equal."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from nodes.config import Admission, ConfigError, HttpsFiles, KeyFiles, Listen, NodeConfig, Timeouts
from nodes.core.types import ReplicaId

MINIMAL = """
replica = 2
genesis = "genesis.json"
data_dir = "data"
database_url = "sqlite:///data/node.sqlite"
application = "auction.machine:AuctionMachine"
[keys]
consensus = "consensus.key"
curve = "/etc/arremate/curve.key"
"""


def load(directory: Path, text: str) -> NodeConfig:
    path = directory / "node.toml"
    path.write_text(text, encoding="utf-8")
    return NodeConfig.load(path)


def test_relative_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    config = load(tmp_path, MINIMAL)
    assert config.genesis == tmp_path / "genesis.json"
    assert config.keys == KeyFiles(tmp_path / "consensus.key", Path("/etc/arremate/curve.key"))
    assert config.database_url == f"sqlite:///{tmp_path}/data/node.sqlite"
    assert config.executor_endpoint == f"ipc://{tmp_path}/data/executor.ipc"
    assert config.admin_endpoint == f"ipc://{tmp_path}/data/admin.ipc"
    assert config.wal_dir == tmp_path / "data" / "wal"


def test_defaults_are_the_protocols(tmp_path: Path) -> None:
    config = load(tmp_path, MINIMAL)
    assert (config.replica, config.pipeline, config.executor, config.https, config.gateways) == (
        2,
        2,
        "process",
        None,
        (),
    )
    assert (config.admission, config.timeouts, config.listen) == (Admission(), Timeouts(), Listen())


def test_written_file_is_read_back_equal(tmp_path: Path) -> None:
    config = NodeConfig(
        replica=ReplicaId(3),
        genesis=tmp_path / "genesis.json",
        keys=KeyFiles(tmp_path / "consensus.key", tmp_path / "curve.key", tmp_path / "identity.key"),
        https=HttpsFiles(tmp_path / "tls.pem", tmp_path / "tls.key", Path("/ca.pem")),
        data_dir=tmp_path / 'da"ta\\ \x1f\u00e9',
        database_url=f"sqlite:///{tmp_path}/data/node.sqlite",
        application="a.b:C",
        executor="inline",
        pipeline=8,
        sync_prepare=True,
        log_level="debug",
        listen=Listen(peer_host="0.0.0.0", metrics_port=9100),
        admission=Admission(rate_per_s=7),
        timeouts=Timeouts(request_ms=4000),
        gateways=(bytes(range(32)), bytes(32)),
    )
    text = config.to_toml(tmp_path)
    assert 'consensus = "consensus.key"' in text
    assert 'database_url = "sqlite:///data/node.sqlite"' in text
    assert load(tmp_path, text) == config
    assert config.to_toml(tmp_path) == text
    assert config.with_database("sqlite://").database_url == "sqlite://"


@pytest.mark.parametrize(
    "url", ["sqlite://", "sqlite:///:memory:", "sqlite:////var/node.sqlite", "mysql+pymysql://user@host/base"]
)
def test_database_url_that_is_not_relative_stays(tmp_path: Path, url: str) -> None:
    assert load(tmp_path, MINIMAL.replace("sqlite:///data/node.sqlite", url)).database_url == url


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ("replica = 2\n", "", "replica"),
        ("replica = 2", "replica = 13", "replica"),
        ("replica = 2", "replica = true", "replica"),
        ("replica = 2", "replica = 2\npipeline = 9", "pipeline"),
        ("replica = 2", "replica = 2\nsync_prepare = 1", "sync_prepare"),
        ("replica = 2", "replica = 2\npasword = 1", "pasword"),
        ("replica = 2", 'replica = 2\nexecutor = "thread"', "executor"),
        ("replica = 2", 'replica = 2\nlog_level = "loud"', "log_level"),
        ("replica = 2", 'replica = 2\ngateways = "x"', "gateways"),
        ("replica = 2", 'replica = 2\ngateways = ["x"]', "gateways[0]"),
        ("replica = 2", f'replica = 2\ngateways = ["{"00" * 32}", "{"00" * 32}"]', "gateways"),
        ('genesis = "genesis.json"', "genesis = 3", "genesis"),
        ('data_dir = "data"', 'data_dir = ""', "data_dir"),
        ("sqlite:///data/node.sqlite", "postgresql://host", "database_url"),
        ("auction.machine:AuctionMachine", "auction.machine", "application"),
        ('consensus = "consensus.key"\n', "", "keys.consensus"),
        ('consensus = "consensus.key"\n', 'consensus = "c"\nbackup = "b"\n', "keys.backup"),
        ("[keys]", "listen = 3\n[keys]", "listen"),
        ("[keys]", '[listen]\npeer_host = "a:b"\n[keys]', "listen.peer_host"),
        ("[keys]", "[listen]\nmetrics_port = -1\n[keys]", "listen.metrics_port"),
        ("[keys]", "[admission]\nrate_per_s = 0\n[keys]", "admission.rate_per_s"),
        ("[keys]", "[timeouts]\nrequest_ms = 0.5\n[keys]", "timeouts.request_ms"),
        ("[keys]", "[timeouts]\nforward_ms = 2000\n[keys]", "timeouts.forward_ms"),
    ],
    ids=lambda value: repr(value)[:24],
)
def test_error_names_the_field(tmp_path: Path, old: str, new: str, field: str) -> None:
    assert old in MINIMAL
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, MINIMAL.replace(old, new))
    assert caught.value.field == field


def test_vote_before_the_disk_is_refused_while_nothing_makes_it_safe(tmp_path: Path) -> None:
    text = MINIMAL.replace("replica = 2", "replica = 2\nsync_prepare = {}")
    assert load(tmp_path, text.format("true")).sync_prepare
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text.format("false"))
    assert caught.value.field == "sync_prepare"
    assert "fence" in caught.value.problem
    assert "true" in caught.value.fix
    with pytest.raises(ConfigError, match="sync_prepare"):
        replace(load(tmp_path, MINIMAL), sync_prepare=False)


def test_file_that_is_not_toml_or_too_large_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not TOML"):
        load(tmp_path, "replica = ")
    with pytest.raises(ConfigError, match="over"):
        load(tmp_path, "#" * (1024 * 1024 + 1))
    (tmp_path / "bytes.toml").write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="not TOML"):
        NodeConfig.load(tmp_path / "bytes.toml")


def test_gateway_keys_are_checked_in_code_too(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="gateways"):
        replace(load(tmp_path, MINIMAL), gateways=(b"short",))
