"""How a connection was made, for who asks."""

from __future__ import annotations

import itertools
import socket
import time

from llama._stream import Stream

_numbers = itertools.count(1)


class Dialled:
    """Put into a target's extensions, it is told how long a connection took; then it is in those of the stream."""

    __slots__ = ("address", "began", "dns", "ended", "number", "port", "tls", "told", "was_there")

    def __init__(self, *, was_there: bool = False) -> None:
        self.began = time.monotonic()
        self.ended = self.began
        """When the connection was there, without TLS."""
        self.dns: float | None = None
        """Seconds that the resolver took; None where it was not asked."""
        self.tls: float | None = None
        """Seconds that the TLS handshake took."""
        self.address = ""
        """The other side's address."""
        self.port = 0
        """Its port."""
        self.number = next(_numbers)
        """One for each connection of this process."""
        self.was_there = was_there
        """Whether somebody else made it, so that nothing is known of it but TLS."""
        self.told: object = None
        """What was told first that it took this time: the one exchange that it was opened for."""

    def done(self, stream: Stream) -> None:
        """The connection is there."""
        self.ended = time.monotonic()
        self.address, self.port = _address_of(stream)
        stream.extensions.set(self)

    def secured(self) -> None:
        """TLS is there as well."""
        self.tls = time.monotonic() - self.ended

    @property
    def over(self) -> float:
        """When all of it was there."""
        return self.ended + (self.tls or 0.0)


def _address_of(stream: Stream) -> tuple[str, int]:
    sock = getattr(stream, "_sock", None)
    if not isinstance(sock, socket.socket) or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return "", 0
    try:
        host, port = sock.getpeername()[:2]
    except OSError:  # it is gone already
        return "", 0
    return str(host).partition("%")[0], int(port)
