"""The endpoints file: where a cluster is, how to trust it, and which keys a user has.

Written by `arremate testnet` and `arremate demo`, read by every command (`--endpoints FILE` or
ARREMATE_ENDPOINTS). Paths in it are relative to the file. It holds no secret: keys are named by path.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from auction.cli.failure import usage

VERSION = 1


@dataclass(frozen=True, slots=True)
class NodeEndpoint:
    replica: int
    name: str
    https: str
    """Base URL, without a trailing slash."""


@dataclass(frozen=True, slots=True)
class Endpoints:
    path: Path
    genesis: Path
    ca: Path
    nodes: tuple[NodeEndpoint, ...]
    keys: Mapping[str, Path]
    receipts: Path | None
    """Folder where every receipt that a command gets is kept, or None."""

    @classmethod
    def load(cls, path: Path) -> Endpoints:
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            hint = "give --endpoints FILE; `arremate testnet` and `arremate demo` write one"
            raise usage("no_endpoints", f"cannot read {path}: {error.strerror}", hint) from error
        except ValueError as error:
            raise usage("bad_endpoints", f"{path} is not JSON: {error}") from error
        try:
            return cls._from_document(path.resolve(), document)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise usage("bad_endpoints", f"{path} is not an endpoints file ({error!r})") from error

    @classmethod
    def _from_document(cls, path: Path, document: Mapping[str, Any]) -> Endpoints:
        if document["version"] != VERSION:
            raise ValueError(f"version {document['version']}")
        folder = path.parent
        receipts = document.get("receipts")
        return cls(
            path=path,
            genesis=folder / document["genesis"],
            ca=folder / document["ca"],
            nodes=tuple(
                NodeEndpoint(int(node["replica"]), str(node["name"]), str(node["https"]).rstrip("/"))
                for node in document["nodes"]
            ),
            keys={str(name): folder / file for name, file in document["keys"].items()},
            receipts=None if receipts is None else folder / receipts,
        )

    def key_path(self, name: str) -> Path:
        """The key file of a name in this file; usage error when there is none."""
        if name not in self.keys:
            known = ", ".join(sorted(self.keys)) or "none"
            raise usage("unknown_key", f"{self.path} names no key '{name}'", f"known keys: {known}; or give --key FILE")
        return self.keys[name]

    def node(self, replica: int) -> NodeEndpoint:
        for node in self.nodes:
            if node.replica == replica:
                return node
        known = ", ".join(str(node.replica) for node in self.nodes)
        raise usage("unknown_node", f"there is no node {replica}", f"nodes of {self.path.name}: {known}")


def write_endpoints(
    path: Path,
    *,
    genesis: str,
    ca: str,
    nodes: Mapping[int, tuple[str, str]],
    keys: Mapping[str, str],
    receipts: str | None,
) -> None:
    """Write an endpoints file, whole or not at all. `nodes`: replica -> (name, HTTPS base URL).

    Paths are absolute, or relative to the file.
    """
    document: dict[str, Any] = {
        "version": VERSION,
        "genesis": genesis,
        "ca": ca,
        "nodes": [{"replica": replica, "name": name, "https": url} for replica, (name, url) in sorted(nodes.items())],
        "keys": dict(sorted(keys.items())),
    }
    if receipts is not None:
        document["receipts"] = receipts
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(document, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    partial.replace(path)
