"""Listeners that accept connections to any address, for TPROXY on Linux."""

from __future__ import annotations

import errno
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from llama._core.errors import ConfigError
from llama._core.stream import ConnectionHandler, Stream

_IP_TRANSPARENT, _IPV6_TRANSPARENT = 19, 75


@dataclass(frozen=True, slots=True)
class ListenerPort:
    """The port of the transparent listener that accepted a connection."""

    port: int


def enable_transparent(sockets: Sequence[socket.socket]) -> None:
    """Make listening sockets accept connections to any address; raises ConfigError, OSError without the privilege."""
    if not sys.platform.startswith("linux"):
        raise ConfigError("tcp.server(transparent=True) is supported on Linux only")
    for sock in sockets:
        level, option = (
            (socket.IPPROTO_IPV6, _IPV6_TRANSPARENT)
            if sock.family == socket.AF_INET6
            else (socket.IPPROTO_IP, _IP_TRANSPARENT)
        )
        try:
            sock.setsockopt(level, option, 1)
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.ENOPROTOOPT, errno.EOPNOTSUPP):
                raise
            text = f"{sock.getsockname()} cannot accept connections to any address: {error.strerror}"
            raise OSError(error.errno, f"{text} (it requires the capability NET_ADMIN)") from None


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class TagListenerPort:
    """Records on each connection the port of its listener."""

    inner: ConnectionHandler
    port: int

    __input_type__: ClassVar[type] = Stream

    def __repr__(self) -> str:
        return f"led to {self.port}"

    async def __call__(self, stream: Stream, /) -> None:
        stream.extensions.set(ListenerPort(self.port))
        await self.inner(stream)
