"""Serving inside a running loop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from llama._resources import enter
from llama._server import Peer, Server
from llama._shutdown import Shutdown
from llama._stack import check_service, name_of
from llama._stream import Handler
from llama.tcp import server as tcp_server


class Serving:
    """Servers at work: where they listen, and the shutdown that owns what they do."""

    def __init__(self, shutdown: Shutdown, addresses: tuple[str, ...]) -> None:
        self.shutdown = shutdown
        self.addresses = addresses

    @property
    def address(self) -> str:
        """The first of the bound addresses."""
        return self.addresses[0]

    @property
    def port(self) -> int:
        """The port of the first bound address; 0 for a path."""
        return int(self.address.rpartition(":")[2]) if not self.address.startswith("unix:") else 0


def as_servers(parts: Sequence[Server | Handler], listen: object = None) -> tuple[Server, ...]:
    """Servers as they are, and a handler with its address as a TCP server; raises TypeError otherwise."""
    if listen is not None:
        if len(parts) != 1 or isinstance(parts[0], Server):
            raise TypeError("listen= goes with one service; servers have their own addresses")
        return (tcp_server(listen, parts[0]),)  # type: ignore[arg-type]  # tcp.server checks it
    for each in parts:
        if not isinstance(each, Server):
            check_service(each)
            raise TypeError(f"{name_of(each)} has no address: give listen=, or wrap it in tcp.server()")
    if not parts:
        raise TypeError("there is nothing to serve")
    return tuple(each for each in parts if isinstance(each, Server))


def bound_address(sock: socket.socket) -> str:
    """A listening socket's own address, as a server takes it."""
    address = sock.getsockname()
    return str(Peer(*address[:2])) if isinstance(address, tuple) else f"unix:{address}"


@asynccontextmanager
async def serve(
    *parts: Server | Handler,
    listen: str | int | tuple[str, int] | socket.socket | None = None,
    grace: float | None = None,
) -> AsyncGenerator[Serving]:
    """Serve while the block runs: `async with serve(echo, listen="127.0.0.1:0") as server:`.

    Takes any number of servers, or one handler and where to `listen`. Leaving the block stops accepting and
    waits for what is in flight; `grace` bounds that wait, in seconds. A block that raises cancels it.
    Raises OSError when an address cannot be bound, TypeError for a stack that cannot work.
    """
    servers = as_servers(parts, listen)
    async with AsyncExitStack() as exits:
        bound: list[tuple[Server, list[socket.socket]]] = []
        for each in servers:
            sockets = each.bind()
            bound.append((each, sockets))
            for sock in sockets:
                exits.callback(close_listener, sock)
        await enter(exits, *(each.service for each in servers))
        addresses = tuple(bound_address(sock) for _, sockets in bound for sock in sockets)
        async with Shutdown() as shutdown:
            for each, sockets in bound:
                shutdown.spawn(each.serve(sockets, shutdown), name=repr(each))
            await asyncio.sleep(0)
            yield Serving(shutdown, addresses)
            await shutdown.drain(grace)


def close_listener(sock: socket.socket) -> None:
    """Close a listening socket, and remove its path."""
    path = (
        sock.getsockname() if sock.fileno() >= 0 and sock.family == getattr(socket, "AF_UNIX", None) else ""
    )
    sock.close()
    if isinstance(path, str) and path:
        with contextlib.suppress(OSError):
            os.unlink(path)
