"""The body of a request, read from its HTTP/1.1 connection on demand."""

from __future__ import annotations

import asyncio
from typing import Protocol

from llama._core.errors import LlamaError, StreamClosedError, TruncatedError
from llama.http._h1.wire.body import Decoder
from llama.http._messages.body import Body
from llama.http._messages.headers import Headers

DRAIN_BYTES = 65536
DRAIN_SECONDS = 1.0


class BodySource(Protocol):
    """The connection that a body is read from."""

    async def read_body(self) -> bytes:
        """Return the next bytes; b"" at the end of the connection."""
        ...

    async def read_ahead(self) -> None:
        """Wait until the next bytes, or the end of the connection, can be read."""
        ...

    def read_body_nowait(self) -> bytes:
        """Return the next bytes if they have arrived, else b""."""
        ...

    async def send_continue(self) -> None:
        """Send 100 (Continue), unless the response has begun."""
        ...

    def body_ended(self, rest: bytes) -> None:
        """Report the end of the body; `rest` is the data after it."""
        ...


class RequestBody(Body):
    """The body of one request on an HTTP/1.1 connection."""

    __slots__ = ("_decoder", "_error", "_expects", "_source")

    def __init__(
        self, source: BodySource, decoder: Decoder, length: int | None, *, expects_continue: bool
    ) -> None:
        self.length = length
        self.headers = None
        self.is_decoded = self.ended = False
        self._source = source
        self._decoder = decoder
        self._expects = expects_continue
        self._error: LlamaError | None = None

    @property
    def trailers(self) -> Headers | None:
        return self._decoder.trailers

    @property
    def may_be_drained(self) -> bool:
        """Whether the client sends the body without 100 (Continue), and its length, if known, is small enough."""
        return self._error is None and not self._expects and (self.length or 0) <= DRAIN_BYTES

    def send_continue_once(self) -> None:
        """Note that 100 (Continue) was sent by other code."""
        self._expects = False

    def detach(self) -> None:
        """Disconnect the body from the connection after the end of its exchange; later reads raise Closed."""
        if not self.ended and self._error is None:
            self._error = StreamClosedError("cannot read a request body after the end of its exchange")

    def read_chunk_nowait(self) -> bytes:
        if self.ended or self._expects or self._error is not None:
            return b""
        data = self._source.read_body_nowait()
        try:
            return self._take(data) if data else b""
        except LlamaError as error:  # the next chunk() raises it
            self._error = error
            return b""

    async def read_chunk(self) -> bytes:
        if self._error is not None:
            raise self._error
        if self._expects:
            self._expects = False
            await self._source.send_continue()
        try:
            while not self.ended:
                if part := self._take(await self._source.read_body()):
                    return part
        except LlamaError as error:
            self._error = error
            raise
        return b""

    async def wait_for_data(self) -> None:
        if not self.ended and self._error is None:
            await self._source.read_ahead()
            self._expects = False  # the client did not wait for 100 (Continue)

    def _take(self, data: bytes) -> bytes:
        decoder = self._decoder
        if not data:
            try:
                decoder.feed_eof()
            except TruncatedError as error:
                error.status = 400
                raise
        part = decoder.feed(data)
        if decoder.done:
            self.ended = True
            self._source.body_ended(decoder.rest)
        return part

    async def drain(self) -> bool:
        """Read and drop the rest, up to DRAIN_BYTES and DRAIN_SECONDS; return whether the end was reached."""
        size = 0
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                while part := await self.read_chunk():
                    size += len(part)
                    if size > DRAIN_BYTES:
                        return False
        except (LlamaError, TimeoutError, OSError):
            return False
        return True
