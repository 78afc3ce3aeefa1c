"""`NodeConfig`: what is local to one node, from node.toml. Nothing in it changes what replicas agree on.

Relative paths, and a relative SQLite file, are relative to the directory of node.toml. The file holds
names of key files, never keys. Ports are the genesis', hosts to listen on are here.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from nodes.config.checks import ConfigError, check_host, check_integer, parse_hex
from nodes.core.types import ReplicaId

FILE_BYTES_MAX = 1024 * 1024
Executor = Literal["process", "inline"]
LogLevel = Literal["debug", "info", "warning", "error"]

_APPLICATION = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
_SQLITE = "sqlite:///"
_DATABASES = ("sqlite:", "mysql+pymysql:", "mariadb+pymysql:")
Section = TypeVar("Section")


@dataclass(frozen=True, slots=True)
class KeyFiles:
    """Key files of this node (nodes.keys)."""

    consensus: Path
    curve: Path
    identity: Path | None = None
    """Cold: only needed for administration, so a running node may do without."""
    gateway: Path | None = None
    """CURVE key by which replicas know this node's gateway (their `gateways`); without it, a new one at each start."""


@dataclass(frozen=True, slots=True)
class HttpsFiles:
    """PEM files of the gateway."""

    certificate: Path
    key: Path
    authority: Path
    """The cluster's CA certificate, handed out to clients."""


@dataclass(frozen=True, slots=True)
class Listen:
    """Addresses to bind; the ports are the member's in the genesis, except those named here."""

    peer_host: str = "127.0.0.1"
    client_host: str = "127.0.0.1"
    https_host: str = "127.0.0.1"
    metrics_host: str = "127.0.0.1"
    metrics_port: int = 0
    """0: no metrics server."""


@dataclass(frozen=True, slots=True)
class Admission:
    """Token buckets in front of signature verification, requests per second and burst."""

    rate_per_s: int = 1000
    burst: int = 2000
    unknown_rate_per_s: int = 200
    """One bucket shared by all keys that were not seen before."""
    unknown_burst: int = 400
    gateway_rate_per_s: int = 20_000
    gateway_burst: int = 40_000


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Local timers (protocol.md 22). Unequal values cost speed, never agreement."""

    request_ms: int = 2000
    forward_ms: int = 800
    new_view_ms: int = 2000
    status_ms: int = 250
    tick_ms: int = 500
    future_ms: int = 250
    past_ms: int = 1000
    divergence_ms: int = 10_000
    response_ms: int = 5000
    """How long the gateway waits for an outcome unless the caller says otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeConfig:
    """One node. Construct with `load`; `to_toml` writes what `load` reads."""

    replica: ReplicaId
    genesis: Path
    keys: KeyFiles
    https: HttpsFiles | None = None
    data_dir: Path
    database_url: str
    application: str
    """module:Class of the StateMachine."""
    executor: Executor = "process"
    pipeline: int = 2
    """W: blocks in flight while this node is primary."""
    sync_prepare: bool = True
    """Make a vote durable before it is sent. False is refused: the fence rule that a restart would need
    instead (protocol.md 15) is not built."""
    log_level: LogLevel = "info"
    listen: Listen = field(default_factory=Listen)
    admission: Admission = field(default_factory=Admission)
    timeouts: Timeouts = field(default_factory=Timeouts)
    gateways: tuple[bytes, ...] = ()
    """CURVE public keys, 32 bytes each, that get the gateway's larger bounds."""

    def __post_init__(self) -> None:
        check_integer("replica", self.replica, 0, 12)
        check_integer("pipeline", self.pipeline, 1, 8)
        if type(self.sync_prepare) is not bool:
            raise ConfigError("sync_prepare", f"{self.sync_prepare!r} is not a boolean", "give true, or leave it out")
        if not self.sync_prepare:
            problem = "false needs the fence rule, which is not built: a restarted replica could vote twice"
            raise ConfigError("sync_prepare", problem, "give true, or leave it out")
        _choice("executor", self.executor, get_args(Executor))
        _choice("log_level", self.log_level, get_args(LogLevel))
        if not isinstance(self.application, str) or not _APPLICATION.fullmatch(self.application):
            raise ConfigError(
                "application", f"{self.application!r}", 'give module:Class, as "auction.machine:AuctionMachine"'
            )
        if not isinstance(self.database_url, str) or not self.database_url.startswith(_DATABASES):
            raise ConfigError(
                "database_url", "not a supported database", f"begin it with one of {', '.join(_DATABASES)}"
            )
        for name in ("peer_host", "client_host", "https_host", "metrics_host"):
            check_host(f"listen.{name}", getattr(self.listen, name))
        check_integer("listen.metrics_port", self.listen.metrics_port, 0, 65_535)
        for limit in fields(self.admission):
            check_integer(f"admission.{limit.name}", getattr(self.admission, limit.name), 1, 10_000_000)
        for timer in fields(self.timeouts):
            check_integer(f"timeouts.{timer.name}", getattr(self.timeouts, timer.name), 1, 3_600_000)
        if self.timeouts.forward_ms >= self.timeouts.request_ms:
            raise ConfigError("timeouts.forward_ms", "not under request_ms", "0.4 of request_ms is a good value")
        for index, key in enumerate(self.gateways):
            if not isinstance(key, bytes) or len(key) != 32:
                raise ConfigError(f"gateways[{index}]", "not a CURVE public key", "give its 64 hex digits")
        if len(set(self.gateways)) != len(self.gateways):
            raise ConfigError("gateways", "a key is given twice", "remove one")

    @staticmethod
    def load(path: Path | str) -> NodeConfig:
        """Read node.toml. OSError when it cannot be read, ConfigError naming the field when it is wrong."""
        path = Path(path)
        with path.open("rb") as file:
            data = file.read(FILE_BYTES_MAX + 1)
        if len(data) > FILE_BYTES_MAX:
            raise ConfigError(str(path), f"over {FILE_BYTES_MAX} bytes", "this is not a node.toml")
        try:
            document = tomllib.loads(data.decode("utf-8"))
        except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise ConfigError(str(path), f"not TOML: {error}", "correct the syntax there") from error
        return NodeConfig.from_mapping(document, path.resolve().parent)

    @staticmethod
    def from_mapping(document: Mapping[str, Any], directory: Path) -> NodeConfig:
        """From parsed TOML; `directory` is what relative paths are relative to."""
        values = dict(document)
        for name, section in _SECTIONS.items():
            if name in values:
                values[name] = _section(name, section, values[name], directory)
        gateways = values.get("gateways", [])
        if not isinstance(gateways, list):
            raise ConfigError("gateways", "not a list", "give a list of hex texts")
        values["gateways"] = tuple(parse_hex(f"gateways[{index}]", key, 32) for index, key in enumerate(gateways))
        for name in ("genesis", "data_dir"):
            if name in values:
                values[name] = _path(name, values[name], directory)
        url = values.get("database_url")
        if isinstance(url, str):
            values["database_url"] = _absolute_url(url, directory)
        _require("", NodeConfig, values)
        return NodeConfig(**values)

    def to_toml(self, directory: Path) -> str:
        """The text of node.toml for that directory; paths below it are written relative."""
        lines = []
        for item in fields(self):
            if item.name not in _SECTIONS and item.name != "gateways":
                lines.append(_line(item.name, getattr(self, item.name), directory))
        lines.append(f"gateways = [{', '.join(_text(key.hex()) for key in self.gateways)}]\n")
        for name in _SECTIONS:
            section = getattr(self, name)
            if section is not None:
                lines.append(f"\n[{name}]\n")
                values = ((item.name, getattr(section, item.name)) for item in fields(section))
                lines += [_line(key, value, directory) for key, value in values if value is not None]
        return "".join(lines)

    @property
    def executor_endpoint(self) -> str:
        """ZeroMQ endpoint between replica and executor."""
        return f"ipc://{self.data_dir / 'executor.ipc'}"

    @property
    def admin_endpoint(self) -> str:
        """ZeroMQ endpoint of the local administration socket."""
        return f"ipc://{self.data_dir / 'admin.ipc'}"

    @property
    def wal_dir(self) -> Path:
        return self.data_dir / "wal"

    def with_database(self, url: str) -> NodeConfig:
        """The same node on another database."""
        return replace(self, database_url=url)


_SECTIONS: Mapping[str, type[Any]] = {
    "keys": KeyFiles,
    "https": HttpsFiles,
    "listen": Listen,
    "admission": Admission,
    "timeouts": Timeouts,
}
_PATH_SECTIONS = (KeyFiles, HttpsFiles)


def _section(name: str, section: type[Section], value: object, directory: Path) -> Section:
    if not isinstance(value, dict):
        raise ConfigError(name, "not a table", f"write it as [{name}]")
    _require(f"{name}.", section, value)
    if section in _PATH_SECTIONS:
        value = {key: _path(f"{name}.{key}", item, directory) for key, item in value.items()}
    return section(**value)


def _require(prefix: str, section: type[Any], values: Mapping[str, Any]) -> None:
    known = {item.name: item for item in fields(section)}
    for name in sorted(values.keys() - known.keys()):
        raise ConfigError(prefix + name, "unknown", "remove it, or check its spelling")
    for name, item in known.items():
        if name not in values and item.default is MISSING and item.default_factory is MISSING:
            raise ConfigError(prefix + name, "missing", "add it")


def _path(name: str, value: object, directory: Path) -> Path:
    if not isinstance(value, str) or not value or "\x00" in value:
        raise ConfigError(name, f"{value!r} is no path", "give the path of a file or directory")
    return directory / value


def _absolute_url(url: str, directory: Path) -> str:
    file = url.removeprefix(_SQLITE)
    if file == url or file in ("", ":memory:") or file.startswith(("/", "?", "file:")):
        return url
    return f"{_SQLITE}{directory / file}"


def _choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigError(name, f"{value!r}", f"give one of {', '.join(choices)}")


def _line(name: str, value: object, directory: Path) -> str:
    match value:
        case bool():
            text = "true" if value else "false"
        case int():
            text = str(value)
        case Path():
            text = _text(str(value.relative_to(directory)) if value.is_relative_to(directory) else str(value))
        case str():
            prefix = f"{_SQLITE}{directory}/"
            text = _text(_SQLITE + value.removeprefix(prefix) if value.startswith(prefix) else value)
        case _:
            raise TypeError(f"{name}: no TOML for {type(value).__name__}")
    return f"{name} = {text}\n"


def _text(value: str) -> str:
    escaped = "".join(
        f"\\u{ord(letter):04X}"
        if ord(letter) < 32 or ord(letter) == 127
        else "\\" + letter
        if letter in '"\\'
        else letter
        for letter in value
    )
    return f'"{escaped}"'
