"""The folders of a new cluster: whole or absent, private, and nobody's holds another node's secrets."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from auction.cli import sample
from auction.cli.endpoints import Endpoints
from auction.cli.failure import ExitCode, Failure
from auction.cli.main import run
from auction.cli.output import Output
from auction.cli.session import Session
from nodes.config import ClusterConfig, NodeConfig
from nodes.keys import CurveKeys, SigningKey
from nodes.testnet import consecutive_ports, https_url

SECRET_FILES = ("consensus.key", "identity.key", "curve.key", "tls.key")


def make(out: Path, *words: str) -> dict[str, Any]:
    with Session(Output(silent=True)) as session:
        value: dict[str, Any] = run(["testnet", "--out", str(out), *words], session)
    return value


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("cluster") / "net"
    make(out)
    return out


def secrets_of(node: Path) -> set[str]:
    """Every secret of a node, as text that would be found in a file."""
    found = {json.loads((node / name).read_text())["secret"] for name in SECRET_FILES if name != "tls.key"}
    return found | {line for line in (node / "tls.key").read_text().splitlines() if not line.startswith("-----")}


def test_no_folder_holds_another_nodes_secrets(folder: Path) -> None:
    nodes = [folder / f"node{index}" for index in range(4)]
    for node in nodes:
        own = b"".join(path.read_bytes() for path in node.rglob("*") if path.is_file())
        for other in nodes:
            held = [secret for secret in secrets_of(other) if secret.encode() in own]
            assert bool(held) == (other == node), (node.name, other.name)


def test_no_folder_holds_a_users_or_the_authoritys_secret(folder: Path) -> None:
    secrets = [json.loads(path.read_text())["secret"] for path in (folder / "clients").glob("*.key")]
    secrets += [line for line in (folder / "ca.key").read_text().splitlines() if not line.startswith("-----")]
    assert len(secrets) > len(sample.PEOPLE)
    for index in range(4):
        held = b"".join(path.read_bytes() for path in (folder / f"node{index}").rglob("*") if path.is_file())
        assert not [secret for secret in secrets if secret.encode() in held]


def test_secrets_are_for_their_owner_only(folder: Path) -> None:
    secret = [path for path in folder.rglob("*") if path.suffix == ".key" or path.name == "node.toml"]
    assert len(secret) == 4 * 6 + len(sample.PEOPLE) + 1
    assert {stat.S_IMODE(path.stat().st_mode) for path in secret} == {0o600}
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.glob("node*")} == {0o700}


def test_every_node_loads_with_the_common_genesis_and_its_own_keys(folder: Path) -> None:
    cluster = ClusterConfig.load(folder / "genesis.json")
    for member in cluster.members:
        node = folder / f"node{member.replica}"
        config = NodeConfig.load(node / "node.toml")
        assert config.replica == member.replica
        assert ClusterConfig.load(config.genesis).config_hash == cluster.config_hash
        assert SigningKey.load(config.keys.consensus).public_key == member.consensus_key
        assert config.keys.identity is not None
        assert SigningKey.load(config.keys.identity).public_key == member.identity_key
        assert CurveKeys.load(config.keys.curve).public == member.curve_key
        assert config.data_dir.parent == node
        assert str(node) in config.database_url


def test_certificates_are_issued_by_the_clusters_authority_for_the_members_host(folder: Path) -> None:
    authority = x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())
    for index in range(4):
        certificate = x509.load_pem_x509_certificate((folder / f"node{index}" / "tls.pem").read_bytes())
        certificate.verify_directly_issued_by(authority)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert "127.0.0.1" in [str(address) for address in names.get_values_for_type(x509.IPAddress)]


def test_endpoints_file_names_what_is_there(folder: Path) -> None:
    endpoints = Endpoints.load(folder / "endpoints.json")
    assert endpoints.genesis.exists()
    assert endpoints.ca.exists()
    assert set(endpoints.keys) == set(sample.PEOPLE)
    assert all(path.exists() for path in endpoints.keys.values())
    assert [node.https for node in endpoints.nodes] == [f"https://127.0.0.1:{7403 + 10 * index}" for index in range(4)]


def test_sample_people_are_in_the_genesis_with_their_roles(folder: Path) -> None:
    genesis = ClusterConfig.load(folder / "genesis.json").application_genesis
    accounts = {account["handle"]: account for account in genesis["accounts"]}
    for name, (_, roles) in sample.PEOPLE.items():
        key = SigningKey.load(folder / "clients" / f"{name}.key")
        assert accounts[name]["public_key"] == key.public_key.hex()
        assert tuple(accounts[name]["roles"]) == roles


def test_existing_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    with pytest.raises(Failure) as caught:
        make(tmp_path)
    assert (caught.value.exit_code, caught.value.code) == (ExitCode.USAGE, "folder_exists")
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]


@pytest.mark.parametrize(
    "words",
    [
        ("--nodes", "3"),
        ("--nodes", "2"),
        ("--host", "a.example", "--host", "b.example"),
        ("--host", "not a host"),
        ("--database", "sqlite:///x.sqlite"),
        ("--base-port", "65000", "--nodes", "13", "--host", "127.0.0.1", "--host", "127.0.0.2"),
    ],
    ids=" ".join,
)
def test_testnet_that_makes_no_sense_leaves_nothing(tmp_path: Path, words: tuple[str, ...]) -> None:
    with pytest.raises(Failure) as caught:
        make(tmp_path / "net", *words)
    assert caught.value.exit_code is ExitCode.USAGE
    assert list(tmp_path.iterdir()) == []


def test_each_node_can_have_a_host_and_a_database(tmp_path: Path) -> None:
    hosts = [word for index in range(4) for word in ("--host", f"node{index}.example")]
    urls = [word for index in range(4) for word in ("--database", f"mysql+pymysql://u:p@db{index}/arremate")]
    make(tmp_path / "net", *hosts, *urls, "--listen", "0.0.0.0")
    for index in range(4):
        config = NodeConfig.load(tmp_path / "net" / f"node{index}" / "node.toml")
        assert config.database_url == f"mysql+pymysql://u:p@db{index}/arremate"
        assert config.listen.peer_host == "0.0.0.0"
        assert config.listen.metrics_host == "127.0.0.1"
    members = ClusterConfig.load(tmp_path / "net" / "genesis.json").members
    assert [member.host for member in members] == [f"node{index}.example" for index in range(4)]


def test_too_long_folder_for_a_socket_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="shorter folder"):
        make(tmp_path / ("x" * 100))
    assert list(tmp_path.iterdir()) == []


def test_ports_do_not_overlap() -> None:
    ports = [port for node in consecutive_ports(7400, 13) for port in (node.peer, node.bulk, node.client, node.https)]
    assert len(set(ports)) == 13 * 4
    with pytest.raises(ValueError, match="65535"):
        consecutive_ports(65_530, 4)


def test_ipv6_host_is_bracketed_in_a_url() -> None:
    assert https_url("::1", 8443) == "https://[::1]:8443"
