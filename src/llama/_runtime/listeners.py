"""Servers with their sockets: bound at the start, inherited by the next configuration on reload."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Iterable, Sequence

from llama._core.server import PeerAddress, Server

STREAM, PACKETS = socket.SOCK_STREAM, socket.SOCK_DGRAM
REUSEPORT_BALANCES = sys.platform == "linux"  # elsewhere SO_REUSEPORT delivers every connection to one socket


class Listener:
    """One server and its listening sockets, which this object owns.

    `inherited_from` is the earlier listener that shares these sockets, until `adopt_path` transfers them to this one.
    """

    def __init__(
        self,
        server: Server,
        sockets: list[socket.socket],
        inherited_from: Listener | None = None,
        *,
        owns_path: bool = True,
    ) -> None:
        self.server = server
        self.sockets = sockets
        self.inherited_from = inherited_from
        # The process that created an inherited socket removes its path.
        self.owns_path = owns_path and inherited_from is None and server.address.startswith("unix:")

    def addresses(self) -> list[str]:
        """The bound addresses, in the form that servers accept."""
        return [bound_address(each) for each in self.sockets]

    def adopt_path(self) -> None:
        """Take over from the predecessor the removal of a Unix socket's path on close."""
        if self.inherited_from is not None:
            self.owns_path, self.inherited_from.owns_path = self.inherited_from.owns_path, False
            self.inherited_from = None

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
    reuse_port: bool = False,
    siblings: Sequence[Listener] = (),
) -> list[Listener]:
    """Return listeners for these servers, with the sockets of running listeners or newly bound ones.

    A server inherits the sockets of a running one of the same type and address. `reuse_port` allows further sockets
    on the same addresses; `siblings` are the listeners of the same servers in another worker. Raises OSError that
    names the address, and leaves no socket open then.
    """
    free = list(running)
    made: list[Listener] = []
    try:
        for position, server in enumerate(servers):
            match = next((each for each in free if _is_same_address(each.server, server)), None)
            if match is not None:
                free.remove(match)
                made.append(Listener(server, _copies(match), match))
            elif siblings:
                made.append(_listen_siblings(siblings[position]))
            else:
                made.append(Listener(server, server.bind(reuse_port=reuse_port)))
    except BaseException:
        close(made)
        raise
    return made


def _listen_siblings(first: Listener) -> Listener:
    """Return another worker's listener, with its own queue if the kernel spreads connections over several."""
    server = first.server
    sockets = (
        server.bind(reuse_port=True, same_ports_as=first.sockets) if REUSEPORT_BALANCES else _copies(first)
    )
    return Listener(server, sockets, owns_path=False)


def _copies(listener: Listener) -> list[socket.socket]:
    return [each.dup() for each in listener.sockets]


def close(listeners: Iterable[Listener]) -> None:
    """Close all sockets of these listeners."""
    for each in listeners:
        each.close()


def _is_same_address(one: Server, other: Server) -> bool:
    return type(one) is type(other) and one.address == other.address


def bound_address(sock: socket.socket) -> str:
    """Return a listening socket's address, in the form that servers accept."""
    address = sock.getsockname()
    return str(PeerAddress(*address[:2])) if isinstance(address, tuple) else f"unix:{address}"


def is_unix(sock: socket.socket) -> bool:
    """Whether this is a Unix socket."""
    return sock.family == getattr(socket, "AF_UNIX", None)
