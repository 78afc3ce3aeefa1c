"""A test of the libraries at start: do two peers get two different user ids?

An old pyzmq gave every CURVE peer the same user id (pyzmq pull request 958), and then any member
could speak for any other. A replica refuses to start with such a library.
"""

from __future__ import annotations

import zmq

from nodes.keys import CurveKeys
from nodes.transport.sockets import Context, bind_server, connect_client, new_socket, tcp_endpoint
from nodes.transport.zap import Authenticator

_DOMAIN = "self-check"
_PATIENCE_MS = 5000


class TransportSelfCheckError(RuntimeError):
    """The installed libzmq or pyzmq does not tell peers apart."""


def check_user_ids() -> None:
    """Connect two keys over loopback TCP. Raises TransportSelfCheckError; takes some 20 ms."""
    context: Context = zmq.Context()
    server_keys = CurveKeys.generate()
    peers = [CurveKeys.generate() for _ in range(2)]
    names = {keys.public: f"peer-{number}" for number, keys in enumerate(peers)}
    Authenticator(context, _DOMAIN, names.get)
    sockets = []
    seen: dict[bytes, str] = {}
    try:
        router = new_socket(context, zmq.ROUTER, server_keys, frame_bytes_max=1024, high_water_mark=8)
        sockets.append(router)
        endpoint = bind_server(router, _DOMAIN, tcp_endpoint("127.0.0.1", 0))
        for keys in peers:
            dealer = new_socket(context, zmq.DEALER, keys, frame_bytes_max=1024, high_water_mark=8)
            sockets.append(dealer)
            connect_client(dealer, server_keys.public_z85, endpoint)
            dealer.sndtimeo = _PATIENCE_MS
            dealer.send(keys.public)
        for _ in peers:
            if not router.poll(_PATIENCE_MS):
                raise TransportSelfCheckError("CURVE over loopback TCP does not work here")
            router.recv()
            part = router.recv(copy=False)
            seen[part.bytes] = str(part.get("User-Id"))
    except zmq.Again as error:
        raise TransportSelfCheckError("CURVE over loopback TCP does not work here") from error
    finally:
        for socket in sockets:
            socket.close()
        context.term()
    if seen != names:
        raise TransportSelfCheckError(f"frames carry the user ids {sorted(seen.values())}")
