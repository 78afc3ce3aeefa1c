"""`ClusterConfig`: what is equal at every member, and hashed. What is local is `nodes.config.node`.

`genesis.json` is canonical JSON; its tagged hash is the config hash, and the same with a zeroed cluster
id gives the cluster id, so one changed byte is another cluster. A value of these classes is valid: every
field was checked, and an error names the field and the fix. The application's genesis is an opaque
mapping here. Deliberately elsewhere: secrets (`nodes.keys`), the application's checks of its own genesis.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import fastpath
from nodes import canonical
from nodes.config.checks import ConfigError, check_host, check_integer, check_name, parse_hex, require_fields
from nodes.core.quorum import Thresholds
from nodes.core.types import ReplicaId

GENESIS_BYTES_MAX = 4 * 1024 * 1024
"""A genesis with some ten thousand initial accounts fits."""
SIGNATURE_RULE = 1
"""Ed25519, strict pre-checks, cofactorless equation (protocol.md 1)."""
MEMBER_COUNTS = (1, *range(4, 14))
CLUSTER_ID_BYTES = 16
PUBLIC_KEY_BYTES = 32


@dataclass(frozen=True, slots=True)
class Parameters:
    """Limits that all replicas must share, because validity or execution depends on them."""

    window: int = 256
    """L: sequence numbers above the stable one that may be in flight."""
    checkpoint_interval: int = 16
    """K: attestations are verified, and the window moves, every so many blocks."""
    state_interval: int = 16
    """K_STATE: the state root is renewed every so many blocks."""
    buckets: int = 256
    """NB: buckets of the state hash."""
    validity_max_us: int = 600_000_000
    sessions_max: int = 8
    session_window: int = 256
    session_lifetime_us: int = 86_400_000_000
    results_lifetime_us: int = 3_600_000_000
    batch_bytes_max: int = 1_048_576
    batch_requests_max: int = 1024
    timers_max: int = 256
    """Timers fired in one block."""
    operation_bytes_max: int = 65_536
    result_bytes_max: int = 65_536

    def __post_init__(self) -> None:
        for name, (low, high) in _PARAMETER_RANGES.items():
            check_integer(f"parameters.{name}", getattr(self, name), low, high)
        if self.window < 8 * self.checkpoint_interval:
            raise ConfigError("parameters.window", f"{self.window} is under 8 checkpoint intervals", "raise it")
        if self.window % self.checkpoint_interval:
            raise ConfigError("parameters.window", "not a multiple of checkpoint_interval", "choose a multiple")
        if self.session_lifetime_us <= self.validity_max_us:
            raise ConfigError(
                "parameters.session_lifetime_us",
                "a forgotten session could be replayed inside validity_max_us",
                "make it longer than validity_max_us",
            )
        if self.results_lifetime_us <= self.validity_max_us:
            raise ConfigError(
                "parameters.results_lifetime_us",
                "a request could be ordered again after its result is forgotten",
                "make it longer than validity_max_us",
            )
        if self.batch_bytes_max < self.operation_bytes_max + 1024:
            raise ConfigError("parameters.batch_bytes_max", "no room for one operation", "raise it")


_PARAMETER_RANGES: Mapping[str, tuple[int, int]] = {
    "window": (8, 512),
    "checkpoint_interval": (1, 128),
    "state_interval": (1, 1024),
    "buckets": (1, 65_536),
    "validity_max_us": (1_000_000, 86_400_000_000),
    "sessions_max": (1, 64),
    "session_window": (256, 256),
    "session_lifetime_us": (60_000_000, 31_536_000_000_000),
    "results_lifetime_us": (1_000_000, 31_536_000_000_000),
    "batch_bytes_max": (4096, 1_048_576),
    "batch_requests_max": (1, 1024),
    "timers_max": (1, 4096),
    "operation_bytes_max": (1024, 65_536),
    "result_bytes_max": (1024, 65_536),
}
"""Upper ends keep every frame inside the transport's limits; session_window is the width of a bitmap column."""


@dataclass(frozen=True, slots=True)
class Member:
    """One replica as everybody knows it. Keys are 32 bytes each."""

    replica: ReplicaId
    name: str
    identity_key: bytes
    consensus_key: bytes
    curve_key: bytes
    host: str
    peer_port: int
    bulk_port: int
    client_port: int
    https_port: int


_MEMBER_KEYS = ("identity_key", "consensus_key", "curve_key")
_MEMBER_PORTS = ("peer_port", "bulk_port", "client_port", "https_port")


@dataclass(frozen=True)
class ClusterConfig:
    """A genesis: who the members are and what all of them do alike. Construct with `new`, `load` or `from_bytes`."""

    cluster_id: bytes
    epoch: int
    genesis_time_us: int
    members: tuple[Member, ...]
    parameters: Parameters
    application: str
    """Name that receipts and operators see, e.g. "auction"; which Python class it is, is local."""
    application_version: int
    application_genesis: Mapping[str, Any]
    signature_rule: int = SIGNATURE_RULE

    def __post_init__(self) -> None:
        check_integer("epoch", self.epoch, 0, 2**32 - 1)
        check_integer("genesis_time_us", self.genesis_time_us, 1, canonical.INTEGER_MAX)
        check_integer("application_version", self.application_version, 1, 2**31 - 1)
        check_integer("signature_rule", self.signature_rule, SIGNATURE_RULE, SIGNATURE_RULE)
        check_name("application", self.application)
        if not isinstance(self.application_genesis, dict):
            raise ConfigError("application_genesis", "not an object", "give a JSON object")
        check_members(self.members)
        try:
            expected = self._computed_cluster_id()
        except canonical.CanonicalError as error:
            raise ConfigError(
                "application_genesis", str(error), "use text, integers, lists and objects only"
            ) from error
        if self.cluster_id != expected:
            raise ConfigError(
                "cluster_id",
                f"{self.cluster_id.hex()} is not the digest of this genesis ({expected.hex()})",
                "fetch the genesis again, or make a new one: a genesis is never edited",
            )

    @staticmethod
    def new(
        *,
        members: Iterable[Member],
        genesis_time_us: int,
        application: str,
        application_genesis: Mapping[str, Any],
        application_version: int = 1,
        parameters: Parameters | None = None,
        epoch: int = 0,
    ) -> ClusterConfig:
        """A new cluster; its id is computed. ConfigError when a field makes no sense."""
        content: dict[str, Any] = {
            "epoch": epoch,
            "genesis_time_us": genesis_time_us,
            "members": tuple(members),
            "parameters": parameters or Parameters(),
            "application": application,
            "application_version": application_version,
            "application_genesis": application_genesis,
            "signature_rule": SIGNATURE_RULE,
        }
        try:
            cluster_id = _digest(_to_json(bytes(CLUSTER_ID_BYTES), content))[:CLUSTER_ID_BYTES]
        except canonical.CanonicalError as error:
            raise ConfigError("genesis", str(error), "use text, integers, lists and objects only") from error
        return ClusterConfig(cluster_id=cluster_id, **content)

    @staticmethod
    def load(path: Path | str) -> ClusterConfig:
        """Read genesis.json. OSError when it cannot be read, ConfigError when it is not a genesis."""
        with Path(path).open("rb") as file:
            return ClusterConfig.from_bytes(file.read(GENESIS_BYTES_MAX + 1))

    @staticmethod
    def from_bytes(data: bytes) -> ClusterConfig:
        """Parse and check canonical bytes. ConfigError names the first field that is wrong."""
        try:
            document = canonical.decode(data, GENESIS_BYTES_MAX)
        except canonical.CanonicalError as error:
            raise ConfigError("genesis", str(error), "use the file as the cluster's operator published it") from error
        require_fields("genesis", document, _GENESIS_FIELDS)
        check_integer("version", document["version"], 1, 1)
        return ClusterConfig(
            cluster_id=parse_hex("cluster_id", document["cluster_id"], CLUSTER_ID_BYTES),
            epoch=document["epoch"],
            genesis_time_us=document["genesis_time_us"],
            members=_members(document["members"]),
            parameters=_parameters(document["parameters"]),
            application=document["application"],
            application_version=document["application_version"],
            application_genesis=document["application_genesis"],
            signature_rule=document["signature_rule"],
        )

    def to_bytes(self) -> bytes:
        """Canonical JSON, the content of genesis.json."""
        return _to_json(self.cluster_id, self._content())

    @cached_property
    def config_hash(self) -> bytes:
        """32 bytes; also order hash and block hash of sequence 0."""
        return _digest(self.to_bytes())

    @cached_property
    def thresholds(self) -> Thresholds:
        return Thresholds(len(self.members))

    @property
    def n(self) -> int:
        return len(self.members)

    @property
    def f(self) -> int:
        """Byzantine members tolerated."""
        return self.thresholds.f

    @property
    def quorum(self) -> int:
        """q: signatures that prove an outcome."""
        return self.thresholds.q

    @property
    def weak(self) -> int:
        """w = f + 1: answers that contain one of a correct replica."""
        return self.thresholds.w

    def member(self, replica: int) -> Member | None:
        """The member with this id, or None."""
        return self.members[replica] if 0 <= replica < len(self.members) else None

    def _content(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name != "cluster_id"}

    def _computed_cluster_id(self) -> bytes:
        return _digest(_to_json(bytes(CLUSTER_ID_BYTES), self._content()))[:CLUSTER_ID_BYTES]


_GENESIS_FIELDS = frozenset({field.name for field in fields(ClusterConfig)} | {"version"})


def check_members(members: Sequence[Member]) -> None:
    """ConfigError unless the members are 1 or 4 to 13, in order, with sound and distinct keys and addresses."""
    if len(members) not in MEMBER_COUNTS:
        raise ConfigError("members", f"{len(members)} of them", "give 1 (a trial without tolerance) or 4 to 13")
    seen: dict[object, str] = {}
    for index, member in enumerate(members):
        where = f"members[{index}]"
        if type(member.replica) is not int or member.replica != index:
            raise ConfigError(f"{where}.replica", f"{member.replica!r}", f"number them in order: {index}")
        check_name(f"{where}.name", member.name)
        check_host(f"{where}.host", member.host)
        distinct: list[tuple[str, object]] = [("name", ("name", member.name))]
        for name in _MEMBER_KEYS:
            key = getattr(member, name)
            if not isinstance(key, bytes) or len(key) != PUBLIC_KEY_BYTES:
                raise ConfigError(f"{where}.{name}", "not 32 bytes", "copy the public key of the key file")
            if name != "curve_key" and not fastpath.public_key_is_valid(key):
                raise ConfigError(f"{where}.{name}", "not a usable Ed25519 public key", "generate a new key")
            distinct.append((name, key))
        for name in _MEMBER_PORTS:
            port = getattr(member, name)
            check_integer(f"{where}.{name}", port, 1, 65_535)
            distinct.append((name, (member.host.lower(), port)))
        for name, value in distinct:
            if value in seen:
                raise ConfigError(f"{where}.{name}", f"the same as {seen[value]}", "every key and address has one use")
            seen[value] = f"{where}.{name}"


def _members(value: object) -> tuple[Member, ...]:
    if not isinstance(value, list):
        raise ConfigError("members", "not a list", "give a list of objects")
    members = []
    for index, item in enumerate(value):
        where = f"members[{index}]"
        require_fields(where, item, frozenset(field.name for field in fields(Member)))
        keys = {name: parse_hex(f"{where}.{name}", item[name], PUBLIC_KEY_BYTES) for name in _MEMBER_KEYS}
        members.append(Member(**{**item, **keys}))
    return tuple(members)


def _parameters(value: object) -> Parameters:
    return Parameters(**require_fields("parameters", value, frozenset(_PARAMETER_RANGES)))


def _to_json(cluster_id: bytes, content: Mapping[str, Any]) -> bytes:
    document = {"version": 1, "cluster_id": cluster_id.hex(), **content}
    document["members"] = [_fields_to_json(member, bytes.hex) for member in content["members"]]
    document["parameters"] = _fields_to_json(content["parameters"], bytes.hex)
    return canonical.encode(document)


def _fields_to_json(value: Any, text: Callable[[bytes], str]) -> dict[str, Any]:
    items = ((field.name, getattr(value, field.name)) for field in fields(value))
    return {name: text(item) if isinstance(item, bytes) else item for name, item in items}


def _digest(document: bytes) -> bytes:
    return fastpath.tagged_hash(b"CFG", document)
