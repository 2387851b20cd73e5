"""Creation of the stream type that the running loop supports."""

from __future__ import annotations

import asyncio
import socket

from llama.tcp._io.proactor_stream import LoopSocketStream
from llama.tcp._io.reactor import LoopPoller
from llama.tcp._io.readiness import Port
from llama.tcp._io.stream import SocketStream


def has_readiness(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether a loop has readiness callbacks (add_reader); the proactor loop of Windows does not."""
    return type(loop).add_reader is not asyncio.AbstractEventLoop.add_reader


def open_stream(
    sock: socket.socket, peer: object = "", *, port: Port | None = None, by: LoopPoller | None = None
) -> SocketStream | LoopSocketStream:
    """Return a stream over a connected, non-blocking socket, which the stream then owns.

    `port` is the socket's readiness, if there is one already; `by` is the poller for a new one.
    """
    if port is None and not has_readiness(asyncio.get_running_loop()):
        return LoopSocketStream(sock, peer)
    return SocketStream(sock, peer, port or Port(sock.fileno(), by=by))
