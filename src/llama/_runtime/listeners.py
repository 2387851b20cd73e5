"""Servers with their sockets: bound at the start, inherited by the next configuration on reload."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Iterable, Sequence

from llama._core.server import Peer, Server

STREAM, PACKETS = socket.SOCK_STREAM, socket.SOCK_DGRAM
KERNEL_SPREADS = sys.platform == "linux"  # elsewhere SO_REUSEPORT delivers every connection to one socket


class Listener:
    """One server and its listening sockets, which this object owns.

    `took` is the earlier listener that shares these sockets, until `settle` transfers them to this one.
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
        # The process that created an inherited socket removes its path.
        self.owns_path = owns_path and took is None and server.address.startswith("unix:")

    def addresses(self) -> list[str]:
        """The bound addresses, in the form that servers accept."""
        return [bound_address(each) for each in self.sockets]

    def settle(self) -> None:
        """Take over from the predecessor the removal of a Unix socket's path on close."""
        if self.took is not None:
            self.owns_path, self.took.owns_path = self.took.owns_path, False
            self.took = None

    def close(self, kinds: Sequence[int] = (STREAM, PACKETS)) -> None:
        """Close the sockets of these kinds, and remove the path that this listener owns. Idempotent."""
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
    """Return listeners for these servers, with the sockets of running listeners or newly bound ones.

    A server inherits the sockets of a running one of the same type and address. `shared` allows further sockets
    on the same addresses; `beside` are the listeners of the same servers in another worker. Raises OSError that
    names the address, and leaves no socket open then.
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
    """Return another worker's listener, with its own queue if the kernel spreads connections over several."""
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
    """Return a listening socket's address, in the form that servers accept."""
    address = sock.getsockname()
    return str(Peer(*address[:2])) if isinstance(address, tuple) else f"unix:{address}"


def is_unix(sock: socket.socket) -> bool:
    """Whether this is a Unix socket."""
    return sock.family == getattr(socket, "AF_UNIX", None)
