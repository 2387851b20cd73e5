"""The body of a response, read from its HTTP/1.1 connection on demand."""

from __future__ import annotations

from typing import Protocol

from llama._core.errors import LlamaError, ProtocolError, StreamClosedError
from llama.http._h1.wire.body import Decoder
from llama.http._messages.body import Body
from llama.http._messages.headers import Headers


class ResponseBodySource(Protocol):
    """The connection that a body is read from."""

    async def read_body(self) -> bytes:
        """Return the next bytes; b"" at the end of the connection."""
        ...

    async def body_ended(self, rest: bytes) -> None:
        """Report the end of the body; `rest` is the data after it."""
        ...

    async def discard_and_wait(self) -> None:
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

    def __init__(self, source: ResponseBodySource, decoder: Decoder, length: int | None, part: bytes) -> None:
        self.length = length
        self.headers = None
        self.is_decoded = False
        self.ended = False
        self._source: ResponseBodySource | None = source
        self._decoder = decoder
        self._part = part
        self._error: BaseException | None = None

    def __del__(self) -> None:
        if self._source is not None:
            self._source.discard()

    @property
    def trailers(self) -> Headers | None:
        return self._decoder.trailers

    def read_chunk_nowait(self) -> bytes:
        part, self._part = self._part, b""
        return part

    async def read_chunk(self) -> bytes:
        if self._part:
            return self.read_chunk_nowait()
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
            self._source = self.close_callbacks = None  # the error's traceback references this body
            await source.discard_and_wait()
            raise
        return b""

    async def _next(self, source: ResponseBodySource) -> bytes:
        data = await source.read_body()
        decoder = self._decoder
        part = b""
        if data:
            part = _feed_checked(decoder, data)
        else:
            decoder.feed_eof()
        if decoder.done:
            await self._end(source)
        return part

    async def _end(self, source: ResponseBodySource) -> None:
        self.ended = True
        self._source = None
        await source.body_ended(self._decoder.rest)

    async def aclose(self) -> None:
        source, self._source, self.close_callbacks = self._source, None, None
        if source is not None:
            self._error = StreamClosedError("cannot read the body of a closed response")
            self._part = b""
            await source.discard_and_wait()


def _feed_checked(decoder: Decoder, data: bytes) -> bytes:
    try:
        return decoder.feed(data)
    except ProtocolError as error:
        raise ProtocolError(f"in a response: {error}", status=502) from None
