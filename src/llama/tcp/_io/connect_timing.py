"""The timing of a connection attempt."""

from __future__ import annotations

import itertools
import socket
import time

from llama._core.stream import Stream

_numbers = itertools.count(1)


class ConnectTiming:
    """Timing of a connection: the connector fills it in a target's extensions, and sets it in the stream's."""

    __slots__ = ("address", "began", "dns", "ended", "is_reported", "is_reused", "number", "port", "tls")

    def __init__(self, *, is_reused: bool = False) -> None:
        self.began = time.monotonic()
        self.ended = self.began
        """The monotonic time at which the TCP connection was established."""
        self.dns: float | None = None
        """Seconds that the resolver took; None if it was not used."""
        self.tls: float | None = None
        """Seconds that the TLS handshake took."""
        self.address = ""
        """The peer's address."""
        self.port = 0
        """The peer's port."""
        self.number = next(_numbers)
        """A number unique to this connection within the process."""
        self.is_reused = is_reused
        """Whether other code opened the connection, so that only the time of TLS is known."""
        self.is_reported: object = None
        """The exchange for which the connection was opened: only its trace reports this timing."""

    def done(self, stream: Stream) -> None:
        """Record that the connection is established."""
        self.ended = time.monotonic()
        self.address, self.port = _address_of(stream)
        stream.extensions.set(self)

    def secured(self) -> None:
        """Record that the TLS handshake has finished."""
        self.tls = time.monotonic() - self.ended

    @property
    def finished(self) -> float:
        """The monotonic time at which the connection, including TLS, was ready."""
        return self.ended + (self.tls or 0.0)


def _address_of(stream: Stream) -> tuple[str, int]:
    sock = getattr(stream, "_sock", None)
    if not isinstance(sock, socket.socket) or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return "", 0
    try:
        host, port = sock.getpeername()[:2]
    except OSError:  # already closed
        return "", 0
    return str(host).partition("%")[0], int(port)
