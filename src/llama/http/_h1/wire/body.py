"""Decoders for the bodies of HTTP/1.1 messages (RFC 9112 sections 6 and 7)."""

import re
from collections.abc import Callable
from typing import Protocol

from llama._core.errors import TruncatedError
from llama.http._h1.wire.fields import bad_message, parse_fields
from llama.http._h1.wire.framing import CHUNKED, UNTIL_CLOSE
from llama.http._limits import DEFAULT_LIMITS, Limits
from llama.http._messages.headers import Headers

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_QUOTED = rb'"(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t \x21-\x7e\x80-\xff])*"'
_CHUNK_LINE = re.compile(
    rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[ \t]*%b(?:[ \t]*=[ \t]*(?:%b|%b))?)*\r\n" % (_TOKEN, _TOKEN, _QUOTED)
)
_HEX = frozenset(b"0123456789abcdefABCDEF")
_NEVER_TRAILERS = frozenset(
    {"connection", "content-length", "host", "trailer", "transfer-encoding", "upgrade"}
)
_FOR_HEADS = """
authorization authentication-info cache-control content-encoding content-range content-type cookie expect forwarded
if-match if-modified-since if-none-match if-range if-unmodified-since keep-alive location max-forwards pragma
proxy-authenticate proxy-authentication-info proxy-authorization proxy-connection range set-cookie te via
www-authenticate x-forwarded-for x-forwarded-host x-forwarded-port x-forwarded-prefix x-forwarded-proto
x-forwarded-server x-real-ip
"""
_NOT_IN_TRAILERS = frozenset(_FOR_HEADS.split())
"""Fields that a peer would trust if it merged trailers into the head (RFC 9110 section 6.5.1)."""


class Decoder(Protocol):
    """Extracts one body from the bytes of a connection."""

    done: bool
    """Whether the body has ended."""
    rest: bytes
    """The data that was fed after the end of the body."""
    trailers: Headers | None

    def feed(self, data: bytes) -> bytes:
        """Return the part of the body in `data`; it may be empty before the end, if `data` is only framing."""
        ...

    def feed_eof(self) -> None:
        """Handle the end of the connection; raise TruncatedError if the body is incomplete."""
        ...


class LengthDecoder:
    """Decodes a body of a known length."""

    __slots__ = ("_left", "done", "rest", "trailers")

    def __init__(self, length: int) -> None:
        self._left = length
        self.done = length == 0
        self.rest = b""
        self.trailers: Headers | None = None

    def feed(self, data: bytes) -> bytes:
        if len(data) < self._left:
            self._left -= len(data)
            return data
        body, self.rest = (data[: self._left], data[self._left :]) if len(data) > self._left else (data, b"")
        self._left = 0
        self.done = True
        return body

    def feed_eof(self) -> None:
        if not self.done:
            raise TruncatedError(f"the connection ended {self._left} bytes before the end of the body")


class UntilCloseDecoder:
    """Decodes a body that ends with its connection."""

    __slots__ = ("done", "rest", "trailers")

    def __init__(self) -> None:
        self.done = False
        self.rest = b""
        self.trailers: Headers | None = None

    def feed(self, data: bytes) -> bytes:
        return data

    def feed_eof(self) -> None:
        self.done = True


class ChunkedDecoder:
    """Decodes a chunked body and its trailers; validates and drops chunk extensions, and drops head-only trailers."""

    __slots__ = ("_held", "_left", "_limits", "_step", "done", "rest", "trailers")

    def __init__(self, limits: Limits = DEFAULT_LIMITS) -> None:
        self._limits = limits
        self._held = b""
        self._left = 0
        self._step: Callable[[bytes, int, list[bytes]], int] = self._size
        self.done = False
        self.rest = b""
        self.trailers: Headers | None = None

    def feed(self, data: bytes) -> bytes:
        if self._held:
            data = self._held + data
        parts: list[bytes] = []
        position = 0
        while not self.done and position < len(data):
            taken = self._step(data, position, parts)
            if taken == position:
                break
            position = taken
        if self.done:
            self._held, self.rest = b"", data[position:]
        else:
            self._held = data[position:]
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def feed_eof(self) -> None:
        if not self.done:
            raise TruncatedError("the connection ended within a chunked body")

    # Each step consumes data from `at` on and returns the position after it: `at` itself if it needs more data.

    def _size(self, data: bytes, at: int, parts: list[bytes]) -> int:
        limit = self._limits.max_chunk_line
        line = _CHUNK_LINE.match(data, at)
        if line is None:
            if data[at] not in _HEX or data.find(b"\n", at, at + limit) >= 0:
                raise bad_message(f"a malformed chunk size line {data[at : at + 40]!r}")
            if len(data) - at > limit:
                raise bad_message(f"a chunk size line longer than {limit} bytes")
            return at
        if line.end() - at > limit:
            raise bad_message(f"a chunk size line longer than {limit} bytes")
        self._left = int(line[1], 16)
        self._step = self._data if self._left else self._trailers
        return line.end()

    def _data(self, data: bytes, at: int, parts: list[bytes]) -> int:
        part = data[at : at + self._left]
        parts.append(part)
        self._left -= len(part)
        if not self._left:
            self._step = self._data_end
        return at + len(part)

    def _data_end(self, data: bytes, at: int, parts: list[bytes]) -> int:
        end = data[at : at + 2]
        if end == b"\r\n":
            self._step = self._size
            return at + 2
        if end == b"\r":
            return at
        raise bad_message("a chunk is longer than its size line says")

    def _trailers(self, data: bytes, at: int, parts: list[bytes]) -> int:
        if data.startswith(b"\r\n", at):
            self.done = True
            return at + 2
        end = data.find(b"\r\n\r\n", at, at + self._limits.max_trailers + 4)
        if end < 0:
            self._check_partial_trailers(data, at)
            return at
        raw = data[at : end + 2]
        self.trailers = _checked(parse_fields(raw, raw.decode("latin-1"), 0, self._limits))
        self.done = True
        return end + 4

    def _check_partial_trailers(self, data: bytes, at: int) -> None:
        if len(data) - at > self._limits.max_trailers + 3:
            raise bad_message(f"trailers larger than {self._limits.max_trailers} bytes", 431)
        if data.count(b"\n", at) != data.count(b"\r\n", at):
            raise bad_message("a bare LF in the trailers")


def _checked(trailers: Headers) -> Headers:
    """Remove the fields that are valid only in a head; raise ProtocolError for fields about framing and routing."""
    for key in tuple(trailers.names):
        plain = key.replace("_", "-")  # many applications treat "_" and "-" as equal
        if plain in _NEVER_TRAILERS:
            raise bad_message(f"{key} among the trailers")
        if plain in _NOT_IN_TRAILERS:
            trailers.discard(key)
    return trailers


def decoder(length: int, limits: Limits = DEFAULT_LIMITS) -> Decoder:
    """Return a decoder for a body of `length` bytes, CHUNKED or UNTIL_CLOSE."""
    if length == CHUNKED:
        return ChunkedDecoder(limits)
    if length == UNTIL_CLOSE:
        return UntilCloseDecoder()
    return LengthDecoder(length)
