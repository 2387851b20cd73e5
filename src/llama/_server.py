"""What `run` and `serve` start: something that binds sockets and serves them."""

from __future__ import annotations

import socket
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

from llama._errors import LlamaError, Truncated
from llama._shutdown import Shutdown


class Peer(NamedTuple):
    """The other side's address as the socket, or a trusted PROXY header, tells it; a path has port 0."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Local(NamedTuple):
    """The address that the client connected to; a path has port 0."""

    host: str
    port: int

    def __str__(self) -> str:
        return str(Peer(*self))


class User(str):
    """The name that a client proved to have, in the extensions of its stream or of its request."""

    __slots__ = ()


class Server(ABC):
    """Accepts on one address and serves what comes with one service.

    Binding is apart from serving: `run` binds before it forks, and hands sockets on when it reloads.
    """

    __slots__ = ()

    @property
    @abstractmethod
    def address(self) -> str:
        """The address as it was given; servers of one type and address can take each other's sockets."""

    @property
    @abstractmethod
    def service(self) -> object:
        """The outermost service, for what looks through the stack."""

    @abstractmethod
    def bind(self, *, shared: bool = False, like: Sequence[socket.socket] = ()) -> list[socket.socket]:
        """Bound and listening sockets; raises OSError with the address in it.

        `shared` lets others bind the same address too (SO_REUSEPORT), `like` gives the ports to take where
        the address leaves them open.
        """

    @abstractmethod
    async def serve(self, sockets: Sequence[socket.socket], shutdown: Shutdown) -> None:
        """Serve these sockets until the shutdown begins to stop; connections may outlive this call.

        Stopping takes what the kernel has queued, in its callback: the caller, whose the sockets are, may
        close those of streams right after. Cancelling takes nothing more and leaves the queue as it is.
        """


def is_orderly(error: Exception) -> bool:
    """Whether a handler that raised this leaves its connection whole, so that it is closed and not aborted."""
    if isinstance(error, TimeoutError):
        return error.errno is None  # with a number it is the system's: a connection that died
    return isinstance(error, LlamaError) and not isinstance(error, Truncated)
