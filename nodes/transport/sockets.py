"""Socket options, limits and endpoints that every TCP socket here shares."""

from __future__ import annotations

import zmq

from nodes.keys import CurveKeys

CONTROL_BYTES_MAX = 256 * 1024
BULK_BYTES_MAX = 8 * 1024 * 1024
CLIENT_BYTES_MAX = 96 * 1024
"""Largest inbound frame of each socket; libzmq drops the connection that sends a larger one."""
BULK_FROM_BYTES = 64 * 1024
"""A message longer than this goes on the bulk socket, so that votes never queue behind a body."""
BUNDLE_BYTES_MAX = CONTROL_BYTES_MAX - BULK_FROM_BYTES
"""A bundle is sent when the next message would take it past this."""

CURVE_OVERHEAD_BYTES = 33
"""Command name, flags, nonce and authenticator, which libzmq counts as part of a frame's size."""
HANDSHAKE_MS = 5000
HEARTBEAT_MS = 1000
HEARTBEAT_TTL_MS = 3000
RECONNECT_MS = 100
RECONNECT_MAX_MS = 2000
BACKLOG = 256

Context = zmq.Context[zmq.Socket[bytes]]
Socket = zmq.Socket[bytes]


def tcp_endpoint(host: str, port: int) -> str:
    """`port` 0 with a bind means any free one."""
    place = f"[{host}]" if ":" in host else host
    return f"tcp://{place}:{port or '*'}"


def new_socket(context: Context, kind: int, keys: CurveKeys, *, frame_bytes_max: int, high_water_mark: int) -> Socket:
    """A socket with our keys and the options that both ends need. High-water marks count messages."""
    socket: Socket = context.socket(kind)
    socket.linger = 0
    socket.ipv6 = True
    socket.sndhwm = high_water_mark
    socket.rcvhwm = high_water_mark
    socket.maxmsgsize = frame_bytes_max + CURVE_OVERHEAD_BYTES
    socket.handshake_ivl = HANDSHAKE_MS
    socket.heartbeat_ivl = HEARTBEAT_MS
    socket.heartbeat_ttl = HEARTBEAT_TTL_MS
    socket.curve_publickey = keys.public_z85
    socket.curve_secretkey = keys.secret_z85
    return socket


def bind_server(socket: Socket, domain: str, endpoint: str) -> str:
    """Bind as a CURVE server of a ZAP domain; the endpoint with the port that was taken.

    The context's `Authenticator` must be running already.
    """
    socket.curve_server = True
    socket.zap_domain = domain.encode()
    socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
    socket.backlog = BACKLOG
    socket.bind(endpoint)
    return bytes(socket.getsockopt(zmq.LAST_ENDPOINT)).decode().rstrip("\x00")


def connect_client(socket: Socket, server_key: bytes, endpoint: str) -> None:
    """Connect to the CURVE server that holds the secret of `server_key` (Z85)."""
    socket.immediate = True
    socket.reconnect_ivl = RECONNECT_MS
    socket.reconnect_ivl_max = RECONNECT_MAX_MS
    socket.curve_serverkey = server_key
    socket.connect(endpoint)
