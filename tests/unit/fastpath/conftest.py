"""Both builds of the fast path, and the means to compare them."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

import fastpath

BUILDS = fastpath.implementations()


@pytest.fixture(params=sorted(BUILDS), scope="session")
def build(request: pytest.FixtureRequest) -> ModuleType:
    """Each test that asks for it runs once on every build."""
    return BUILDS[request.param]


@pytest.fixture(scope="session")
def same() -> Callable[[Callable[[ModuleType], Any]], Any]:
    """same(call): runs `call(build)` on both builds, asserts one outcome, and returns it.

    An outcome is the value, or the type of the ValueError, TypeError or BufferError raised.
    """

    def outcome(call: Callable[[ModuleType], Any], build: ModuleType) -> Any:
        try:
            return call(build)
        except (ValueError, TypeError, BufferError) as error:
            return ValueError if isinstance(error, ValueError) else type(error)

    def compare(call: Callable[[ModuleType], Any]) -> Any:
        expected = outcome(call, BUILDS["python"])
        found = outcome(call, BUILDS["compiled"])
        assert found == expected
        return expected

    return compare


def pack_request(**changes: Any) -> bytes:
    """A request record, signed by the seed unless `signature` is given; any field can be changed."""
    fields: dict[str, Any] = {
        "version": 1,
        "kind": 0,
        "flags": 0,
        "cluster_id": bytes(range(16)),
        "seed": bytes(range(32)),
        "session": 7,
        "sequence": 3,
        "floor": 1,
        "valid_until_us": 1_700_000_000_000_000,
        "operation": b'{"operation":"bid"}',
        **changes,
    }
    python = BUILDS["python"]
    client = fields.get("client", python.public_key(fields["seed"]))
    operation = fields["operation"]
    signed = (
        fields["version"].to_bytes(1, "little")
        + fields["kind"].to_bytes(1, "little")
        + fields["flags"].to_bytes(2, "little")
        + fields["cluster_id"]
        + client
        + fields["session"].to_bytes(8, "little")
        + fields["sequence"].to_bytes(8, "little")
        + fields["floor"].to_bytes(8, "little")
        + fields["valid_until_us"].to_bytes(8, "little")
        + fields.get("operation_length", len(operation)).to_bytes(4, "little")
        + operation
    )
    signature = fields.get("signature", python.sign(fields["seed"], fields.get("prefix", PREFIX) + signed))
    return signed + signature


CLUSTER = bytes(range(16))
PREFIX = b"OAPBFT1\0" + b"\1" + bytes(7) + CLUSTER + bytes(8)


@pytest.fixture(scope="session")
def make_request() -> Callable[..., bytes]:
    return pack_request


@pytest.fixture(scope="session")
def cluster() -> bytes:
    return CLUSTER


@pytest.fixture(scope="session")
def prefix() -> bytes:
    return PREFIX
