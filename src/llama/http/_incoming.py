"""A request's body, read from its connection when it is asked for."""

from __future__ import annotations

import asyncio
from typing import Protocol

from llama._errors import Closed, LlamaError, Truncated
from llama.http._body import Body
from llama.http._headers import Headers
from llama.http.wire._h1_body import Decoder

DRAIN_BYTES = 65536
DRAIN_SECONDS = 1.0


class Source(Protocol):
    """The connection that a body is read from."""

    async def read_body(self) -> bytes:
        """The next bytes; b"" at the end of the connection."""
        ...

    async def read_ahead(self) -> None:
        """Return once the next bytes, or the end of the connection, have come; they can be read then."""
        ...

    def read_body_nowait(self) -> bytes:
        """The next bytes if they are there already, or b""."""
        ...

    async def send_continue(self) -> None:
        """Tell the client to send the body, if nothing was answered yet."""
        ...

    def body_ended(self, rest: bytes) -> None:
        """The body is over; `rest` came after it."""
        ...


class IncomingBody(Body):
    """The body of one request on an HTTP/1.1 connection."""

    __slots__ = ("_decoder", "_error", "_expects", "_source")

    def __init__(
        self, source: Source, decoder: Decoder, length: int | None, *, expects_continue: bool
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
        """Whether the client sends on by itself, and not more than is worth reading."""
        return self._error is None and not self._expects and (self.length or 0) <= DRAIN_BYTES

    def continued(self) -> None:
        """The client was told to send the body by somebody else."""
        self._expects = False

    def detach(self) -> None:
        """The exchange is over: whoever still holds the body cannot read from the connection."""
        if not self.ended and self._error is None:
            self._error = Closed("the exchange that this body belongs to is over")

    def chunk_nowait(self) -> bytes:
        if self.ended or self._expects or self._error is not None:
            return b""
        data = self._source.read_body_nowait()
        try:
            return self._take(data) if data else b""
        except LlamaError as error:  # which the next chunk raises
            self._error = error
            return b""

    async def chunk(self) -> bytes:
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
            self._expects = False  # it did not wait for 100 (Continue)

    def _take(self, data: bytes) -> bytes:
        decoder = self._decoder
        if not data:
            try:
                decoder.feed_eof()
            except Truncated as error:
                error.status = 400
                raise
        part = decoder.feed(data)
        if decoder.done:
            self.ended = True
            self._source.body_ended(decoder.rest)
        return part

    async def drain(self) -> bool:
        """Read what nobody wanted, within bounds; tells whether the connection can go on."""
        size = 0
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                while part := await self.chunk():
                    size += len(part)
                    if size > DRAIN_BYTES:
                        return False
        except (LlamaError, TimeoutError, OSError):
            return False
        return True
