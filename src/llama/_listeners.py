"""Servers with their bound sockets: bound at the start, taken over when a configuration is built anew."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Iterable, Sequence

from llama._server import Peer, Server

STREAM, PACKETS = socket.SOCK_STREAM, socket.SOCK_DGRAM
KERNEL_SPREADS = sys.platform == "linux"  # elsewhere SO_REUSEPORT gives everything to one socket


class Listener:
    """One server and the sockets it listens on, which it owns.

    `took` is the earlier listener whose sockets these are too, until `settle` makes this one their heir.
    """

    def __init__(
        self,
        server: Server,
        sockets: list[socket.socket],
        took: Listener | None = None,
        *,
        owns_path: bool = True,
    ) -> None:
        self.server = server
        self.sockets = sockets
        self.took = took
        # An inherited socket's path is removed by whoever made it.
        self.owns_path = owns_path and took is None and server.address.startswith("unix:")

    def addresses(self) -> list[str]:
        """The bound addresses, as a server takes them."""
        return [bound_address(each) for each in self.sockets]

    def settle(self) -> None:
        """From now on the path of a Unix socket goes when this listener goes, not its predecessor."""
        if self.took is not None:
            self.owns_path, self.took.owns_path = self.took.owns_path, False
            self.took = None

    def close(self, kinds: Sequence[int] = (STREAM, PACKETS)) -> None:
        """Close the sockets of these kinds, and remove the path it owns. Again does nothing."""
        for each in self.sockets:
            if each.fileno() >= 0 and each.type in kinds:
                path = each.getsockname() if self.owns_path and is_unix(each) else None
                if isinstance(path, str) and path and not path.startswith("\0"):
                    with contextlib.suppress(OSError):
                        os.unlink(path)
                each.close()


def listen(
    servers: Sequence[Server],
    running: Sequence[Listener] = (),
    *,
    shared: bool = False,
    beside: Sequence[Listener] = (),
) -> list[Listener]:
    """Listeners for these servers: those that run already hand their sockets on, the others are bound.

    A server takes the sockets of one of the same type and address. `shared` lets more be bound `beside` these
    later, which are the same servers' for another worker. Raises OSError with the address in it; then nothing
    is left open.
    """
    free = list(running)
    made: list[Listener] = []
    try:
        for position, server in enumerate(servers):
            match = next((each for each in free if _same(each.server, server)), None)
            if match is not None:
                free.remove(match)
                made.append(Listener(server, _copies(match), match))
            elif beside:
                made.append(_beside(beside[position]))
            else:
                made.append(Listener(server, server.bind(shared=shared)))
    except BaseException:
        close(made)
        raise
    return made


def _beside(first: Listener) -> Listener:
    """Another worker's listener: with a queue of its own where the kernel spreads connections over queues."""
    server = first.server
    sockets = server.bind(shared=True, like=first.sockets) if KERNEL_SPREADS else _copies(first)
    return Listener(server, sockets, owns_path=False)


def _copies(listener: Listener) -> list[socket.socket]:
    return [each.dup() for each in listener.sockets]


def close(listeners: Iterable[Listener]) -> None:
    """Close all sockets of these listeners."""
    for each in listeners:
        each.close()


def _same(one: Server, other: Server) -> bool:
    return type(one) is type(other) and one.address == other.address


def bound_address(sock: socket.socket) -> str:
    """A listening socket's own address, as a server takes it."""
    address = sock.getsockname()
    return str(Peer(*address[:2])) if isinstance(address, tuple) else f"unix:{address}"


def is_unix(sock: socket.socket) -> bool:
    """Whether a path, not a host and a port, is its address."""
    return sock.family == getattr(socket, "AF_UNIX", None)
