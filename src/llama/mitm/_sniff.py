"""Detects the protocol of a client's first bytes: TLS, HTTP or another."""

from __future__ import annotations

import asyncio
from enum import Enum, auto

from llama._core.errors import ProtocolError, TooLargeError
from llama._core.stream import Stream
from llama.tls._client_hello.client_hello import ClientHello, HelloReader

_READ = 16384
_LONGEST_METHOD = 20
_HANDSHAKE = 0x16


class Sniffed(Enum):
    """The protocol of a connection's first bytes."""

    TLS = auto()
    HTTP = auto()
    OTHER = auto()
    SILENT = auto()
    """The client waits for the server to speak first."""
    ENDED = auto()


def is_http(data: bytes, *, h2: bool = False) -> bool | None:
    """Whether bytes begin an HTTP request; None if more are needed (at most 25)."""
    end = data.find(b" ", 0, _LONGEST_METHOD + 1)
    method = data[: end if end >= 0 else _LONGEST_METHOD + 1]
    if not method.replace(b"-", b"").isalpha() or not method.isupper():
        return False
    if end < 0:
        return None if len(data) <= _LONGEST_METHOD else False
    line_end = data.find(b"\n")
    line = data[: line_end if line_end >= 0 else len(data)]
    if line_end >= 0 and b" HTTP/" not in line:
        return False
    if method == b"CONNECT":
        return True
    if method == b"PRI":
        return h2
    target = data[end + 1 : end + 5].lower()
    if target[:1] in (b"/", b"*"):
        return True
    if b"http".startswith(target):
        return True if len(target) == 4 else None
    return False


async def sniff(
    stream: Stream, patience: float | None, *, h2: bool = False
) -> tuple[Sniffed, ClientHello | None, bytes]:
    """Read until the protocol is known; return it, the ClientHello if it is TLS, and the bytes read.

    The caller puts the bytes back with `unread`. `patience` limits the wait for each read, in seconds.
    """
    data = await _more(stream, patience)
    if data is None:
        return Sniffed.SILENT, None, b""
    if not data:
        return Sniffed.ENDED, None, b""
    if data[0] == _HANDSHAKE:
        return await _hello(stream, data, patience)
    while (found := is_http(data, h2=h2)) is None:
        more = await _more(stream, patience)
        if not more:
            return Sniffed.OTHER, None, data
        data += more
    return Sniffed.HTTP if found else Sniffed.OTHER, None, data


async def _more(stream: Stream, patience: float | None) -> bytes | None:
    """Read the next bytes; None if none arrive in time."""
    if patience is None:
        return await stream.read(_READ)
    clock = asyncio.timeout(patience)
    try:
        async with clock:
            return await stream.read(_READ)
    except TimeoutError:
        if not clock.expired():
            raise
        return None


async def _hello(
    stream: Stream, data: bytes, patience: float | None
) -> tuple[Sniffed, ClientHello | None, bytes]:
    reader = HelloReader()
    piece, pieces = data, [data]
    while True:
        try:
            hello = reader.feed(piece)
            if hello is not None:
                hello.validate()
        except (ProtocolError, TooLargeError):
            return Sniffed.OTHER, None, b"".join(pieces)
        if hello is not None:
            return Sniffed.TLS, hello, b"".join(pieces) if len(pieces) > 1 else data
        more = await _more(stream, patience)
        if not more:
            return Sniffed.OTHER, None, b"".join(pieces)
        piece = more
        pieces.append(more)
