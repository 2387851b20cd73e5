"""The body of a response, read from its HTTP/1.1 connection on demand."""

from __future__ import annotations

from typing import Protocol

from llama._core.errors import Closed, LlamaError, ProtocolError
from llama.http._h1.wire.body import Decoder
from llama.http._messages.body import Body
from llama.http._messages.headers import Headers


class Source(Protocol):
    """The connection that a body is read from."""

    async def read_body(self) -> bytes:
        """Return the next bytes; b"" at the end of the connection."""
        ...

    async def body_ended(self, rest: bytes) -> None:
        """Report the end of the body; `rest` is the data after it."""
        ...

    async def drop(self) -> None:
        """Abort the connection, and wait for its upload task: the body is not read to its end."""
        ...

    def discard(self) -> None:
        """Abort the connection without waiting, for use in a finalizer."""
        ...


class ResponseBody(Body):
    """The body of one response on an HTTP/1.1 connection.

    Reading it to the end frees the connection for the next request; closing or dropping it earlier aborts it.
    """

    __slots__ = ("_decoder", "_error", "_part", "_source")

    def __init__(self, source: Source, decoder: Decoder, length: int | None, part: bytes) -> None:
        self.length = length
        self.headers = None
        self.is_decoded = False
        self.ended = False
        self._source: Source | None = source
        self._decoder = decoder
        self._part = part
        self._error: BaseException | None = None

    def __del__(self) -> None:
        if self._source is not None:
            self._source.discard()

    @property
    def trailers(self) -> Headers | None:
        return self._decoder.trailers

    def chunk_nowait(self) -> bytes:
        part, self._part = self._part, b""
        return part

    async def chunk(self) -> bytes:
        if self._part:
            return self.chunk_nowait()
        source = self._source
        if source is None:
            if self._error is not None:
                raise self._error
            return b""
        try:
            if (
                self._decoder.done
            ):  # the whole body came with the head; only its trailers prevented a BytesBody
                await self._end(source)
            while not self.ended:
                if part := await self._next(source):
                    return part
        except (LlamaError, OSError) as error:
            self._error = error
            self._source = self.shared_end = None  # the error's traceback references this body
            await source.drop()
            raise
        return b""

    async def _next(self, source: Source) -> bytes:
        data = await source.read_body()
        decoder = self._decoder
        part = b""
        if data:
            part = _fed(decoder, data)
        else:
            decoder.feed_eof()
        if decoder.done:
            await self._end(source)
        return part

    async def _end(self, source: Source) -> None:
        self.ended = True
        self._source = None
        await source.body_ended(self._decoder.rest)

    async def aclose(self) -> None:
        source, self._source, self.shared_end = self._source, None, None
        if source is not None:
            self._error = Closed("cannot read the body of a closed response")
            self._part = b""
            await source.drop()


def _fed(decoder: Decoder, data: bytes) -> bytes:
    try:
        return decoder.feed(data)
    except ProtocolError as error:
        raise ProtocolError(f"in a response: {error}", status=502) from None
