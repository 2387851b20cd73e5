"""The stream that fits the running loop."""

from __future__ import annotations

import asyncio
import socket

from llama.tcp._loop_stream import LoopSocketStream
from llama.tcp._poller import LoopPoller
from llama.tcp._port import Port
from llama.tcp._stream import SocketStream


def has_readiness(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether a loop tells when descriptors are ready; Windows' proactor does not."""
    return type(loop).add_reader is not asyncio.AbstractEventLoop.add_reader


def open_stream(
    sock: socket.socket, peer: object = "", *, port: Port | None = None, by: LoopPoller | None = None
) -> SocketStream | LoopSocketStream:
    """A stream over a connected, non-blocking socket, which it then owns.

    `port` is the socket's readiness where it is known, `by` who is to watch it.
    """
    if port is None and not has_readiness(asyncio.get_running_loop()):
        return LoopSocketStream(sock, peer)
    return SocketStream(sock, peer, port or Port(sock.fileno(), by=by))
