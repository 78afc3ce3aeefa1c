"""CurveZMQ sockets of a replica: who sent a frame, how large it may be, how much may wait.

`mesh` connects replicas, `clients` serves clients and gateways, `zap` decides who gets in. The two
sides live in different ZeroMQ contexts, each with an authenticator of its own, so that a key of
one side means nothing on the other. Frames are opaque bytes here: `nodes.wire` reads them.
"""

from nodes.transport.clients import ClientFrame, ClientSocket
from nodes.transport.mesh import Mesh, PeerAddress, PeerFrame
from nodes.transport.self_check import TransportSelfCheckError, check_user_ids
from nodes.transport.sockets import (
    BULK_BYTES_MAX,
    BULK_FROM_BYTES,
    CLIENT_BYTES_MAX,
    CONTROL_BYTES_MAX,
    tcp_endpoint,
)
from nodes.transport.zap import Authenticator

__all__ = [
    "BULK_BYTES_MAX",
    "BULK_FROM_BYTES",
    "CLIENT_BYTES_MAX",
    "CONTROL_BYTES_MAX",
    "Authenticator",
    "ClientFrame",
    "ClientSocket",
    "Mesh",
    "PeerAddress",
    "PeerFrame",
    "TransportSelfCheckError",
    "check_user_ids",
    "tcp_endpoint",
]
