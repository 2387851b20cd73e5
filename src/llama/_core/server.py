"""Servers, which bind sockets and serve them: what `run` and `serve` start."""

from __future__ import annotations

import socket
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

from llama._core.errors import LlamaError, TruncatedError
from llama._core.shutdown import Shutdown


class PeerAddress(NamedTuple):
    """The peer's address, from the socket or from a trusted PROXY header; the port is 0 for a path."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class LocalAddress(NamedTuple):
    """The address that the client connected to; the port is 0 for a path."""

    host: str
    port: int

    def __str__(self) -> str:
        return str(PeerAddress(*self))


class User(str):
    """The name of an authenticated client, in the extensions of its stream or of its request."""

    __slots__ = ()


class Server(ABC):
    """Accepts connections on one address and serves them with one service.

    Binding and serving are separate: `run` binds before it forks, and passes sockets on when it reloads.
    """

    __slots__ = ()

    @property
    @abstractmethod
    def address(self) -> str:
        """The configured address; servers of the same type and address can take over each other's sockets."""

    @property
    @abstractmethod
    def service(self) -> object:
        """The outermost service, for code that inspects the stack."""

    @abstractmethod
    def bind(
        self, *, reuse_port: bool = False, same_ports_as: Sequence[socket.socket] = ()
    ) -> list[socket.socket]:
        """Return bound, listening sockets; raises OSError that names the address.

        `reuse_port` allows other sockets on the same address (SO_REUSEPORT); for port 0 the ports are those of the
        sockets in `same_ports_as`.
        """

    @abstractmethod
    async def serve(self, sockets: Sequence[socket.socket], shutdown: Shutdown) -> None:
        """Serve these sockets until the shutdown begins to stop; connections may outlive this call.

        On stop, a callback accepts the connections in the kernel's queue; the caller, which owns the sockets, may
        close stream sockets right after it. On cancellation no more connections are accepted, and the queue stays.
        """


def should_close_gracefully(error: Exception) -> bool:
    """Whether the connection is still usable after a handler raised this, so that it is closed and not aborted."""
    if isinstance(error, TimeoutError):
        return error.errno is None  # with a number it comes from the system: the connection is dead
    return isinstance(error, LlamaError) and not isinstance(error, TruncatedError)
