"""A Stream over one HTTP/2 stream, for CONNECT and upgrades (RFC 9113 section 8.5)."""

from __future__ import annotations

import errno
import os
from typing import Protocol

from llama._core.errors import StreamClosedError
from llama._core.stream import closed_error
from llama.http._h2.body import H2Body
from llama.http._h2.wire import frames
from llama.http._h2.wire.states import CLOSED
from llama.http._h2.wire.stream import Stream as H2Stream
from llama.http._h2.writer import H2Writer
from llama.http._stream_tunnel import StreamTunnel


class TunnelOwner(Protocol):
    """The exchange whose stream a tunnel uses."""

    writer: H2Writer
    stream: H2Stream

    def reset_stream(self, code: int, /) -> None:
        """Reset the stream."""
        ...

    def half_closed(self) -> None:
        """This side has sent END_STREAM."""
        ...


class H2Tunnel(StreamTunnel):
    """A byte stream on one HTTP/2 stream. END_STREAM ends a direction; RST_STREAM aborts both."""

    __slots__ = ("_body", "_name", "_owner")

    def __init__(self, owner: TunnelOwner, body: H2Body, name: str) -> None:
        super().__init__()
        self._owner = owner
        self._body = body
        self._name = name

    def __repr__(self) -> str:
        return f"<{self._name} on {self._owner.stream}>"

    async def _receive(self, limit: int) -> bytes:
        return self._body.read_chunk_nowait() or await self._body.read_chunk()

    @property
    def _is_sending(self) -> bool:
        return self._owner.stream.state < CLOSED

    async def _send(self, piece: memoryview) -> None:
        owner = self._owner
        try:
            await owner.writer.send(owner.stream, bytes(piece), end=False, is_tunnel=True)
        except StreamClosedError:
            if self._closed:
                raise closed_error(self) from None
            raise broken_pipe_error() from None

    def _end(self) -> None:
        owner = self._owner
        if owner.stream.state < CLOSED:
            owner.writer.protocol.send_data(owner.stream, b"", end=True)
            owner.writer.flush()
            owner.half_closed()

    def _finish(self, *, broken: bool) -> None:
        self._free()
        if broken:
            self._owner.reset_stream(frames.CANCEL)
            return
        if not self._eof_sent:
            self._end()
        if not self._body.is_whole:
            self._owner.reset_stream(frames.NO_ERROR)

    def _cut(self) -> None:
        self._free()
        self._owner.reset_stream(frames.CANCEL if self._body.is_whole else frames.CONNECT_ERROR)

    def _free(self) -> None:
        self._body.stop(closed_error(self))
        self._owner.writer.stream_reset(self._owner.stream)


def broken_pipe_error() -> OSError:
    """Return the error of a write to a peer that has reset the stream."""
    return OSError(errno.EPIPE, os.strerror(errno.EPIPE))


def reset_error() -> OSError:
    """Return the error of a read from a peer that has reset the stream."""
    return OSError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
