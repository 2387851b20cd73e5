"""Creation of the stream type that the running loop supports."""

from __future__ import annotations

import asyncio
import socket

from llama.tcp._io.proactor_stream import ProactorStream
from llama.tcp._io.reactor import LoopReactor
from llama.tcp._io.readiness import Port
from llama.tcp._io.stream import SocketStream


def has_readiness(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether a loop has readiness callbacks (add_reader); the proactor loop of Windows does not."""
    return type(loop).add_reader is not asyncio.AbstractEventLoop.add_reader


def open_stream(
    sock: socket.socket, peer: object = "", *, port: Port | None = None, reactor: LoopReactor | None = None
) -> SocketStream | ProactorStream:
    """Return a stream over a connected, non-blocking socket, which the stream then owns.

    `port` is the socket's readiness, if there is one already; `reactor` is the poller for a new one.
    """
    if port is None and not has_readiness(asyncio.get_running_loop()):
        return ProactorStream(sock, peer)
    return SocketStream(sock, peer, port or Port(sock.fileno(), by=reactor))
