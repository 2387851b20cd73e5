"""Message bodies, in memory or as a stream of chunks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable
from typing import TypeAlias, cast

from llama._core.errors import TooLarge
from llama.http._codings.transform import Map, Replace, Transform, decoders
from llama.http._messages.headers import Headers

READ_LIMIT = 1 << 20


class Body:
    """The body of a message: read it whole with `read`, or chunk by chunk with `async for`.

    A body can be read once, a body made from bytes any number of times. The holder of the message owns its body:
    it reads to the end or awaits `aclose`, which is idempotent. `map`, `replace` and `decoded` return a new body
    that owns this one. Subclasses implement `chunk`.
    """

    __slots__ = ("ended", "headers", "is_decoded", "length", "shared_end")

    shared_end: object
    """A reference that this body holds: its finalizer runs the callbacks for the end of the exchange."""

    def __init__(self, length: int | None = None) -> None:
        self.length = length
        """The number of bytes, or None if unknown."""
        self.headers: Headers | None = None
        """The headers of the message with this body."""
        self.is_decoded = False
        """Whether its content codings were removed."""
        self.ended = False
        """Whether the end of the body is known to be reached."""

    @property
    def data(self) -> bytes | None:
        """The whole body if it is in memory, and so can be read again; else None."""
        return None

    @property
    def trailers(self) -> Headers | None:
        """The trailer fields, available once the body has ended; None if there were none."""
        return None

    async def chunk(self) -> bytes:
        """Return the next bytes as they arrive; b"" at the end and after it. Truncated if the body ends too early."""
        raise TypeError(f"{type(self).__name__} has no chunk()")

    def chunk_nowait(self) -> bytes:
        """Return the next bytes if they have arrived, else b"", also before the end: only `chunk` reports the end."""
        return b""

    async def wait_for_data(self) -> None:
        """Wait until a chunk or the end has arrived from the peer, without sending it 100 (Continue).

        For a body that does not come from a peer it never returns. Cancelling it loses no data.
        """
        await asyncio.get_running_loop().create_future()

    async def aclose(self) -> None:
        """Release the body's resources without reading the rest. Idempotent."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        return _Chunks(self)

    async def read(self, limit: int = READ_LIMIT, /) -> bytes:
        """Return the whole body. Raises TooLarge (413) if it has more than `limit` bytes."""
        if self.length is not None and self.length > limit:
            raise TooLarge(f"expected a body of at most {limit} bytes, got {self.length}")
        parts: list[bytes] = []
        size = 0
        while part := await self.chunk():
            size += len(part)
            if size > limit:
                raise TooLarge(f"expected a body of at most {limit} bytes, got more")
            parts.append(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def map(self, function: Callable[[bytes], bytes], /) -> Body:
        """Return a body with `function` applied to each decoded chunk; chunks that become empty are skipped."""
        return TransformedBody(self.decoded(), Map(function))

    def replace(self, old: bytes, new: bytes, /) -> Body:
        """Return a decoded body with every `old` replaced by `new`, also across chunks, as by `bytes.replace`.

        It holds back at most `len(old) - 1` bytes, so a stream is not delayed. Raises ValueError if `old` is empty.
        """
        if not old:
            raise ValueError("expected at least one byte to replace, got b''")
        return TransformedBody(self.decoded(), Replace(old, new))

    def decoded(self) -> Body:
        """Return this body with its Content-Encoding decoded; the body itself if it has none.

        Supports gzip and deflate, br with the extra `brotli`, and zstd with the extra `zstd` or on Python 3.14 and
        later. Raises ProtocolError for another coding: remove those from Accept-Encoding, as `http.map_body` does.
        """
        codings = self.headers.tokens("content-encoding") if self.headers is not None else []
        if self.is_decoded or self.length == 0 or not codings:
            return self
        body: Body = self
        for transform in decoders(codings):
            body = TransformedBody(body, transform)
        body.is_decoded = True
        return body


class BytesBody(Body):
    """A body in memory; it can be read any number of times."""

    __slots__ = ("_data", "_given")

    def __init__(self, data: bytes) -> None:
        self.length = len(data)
        self.headers = None
        self.is_decoded = self.ended = False
        self._data = data
        self._given = False

    @property
    def data(self) -> bytes:
        return self._data

    def __aiter__(self) -> AsyncIterator[bytes]:
        self._given = False  # an earlier loop may have stopped before the end
        return _Chunks(self)

    async def chunk(self) -> bytes:
        self._given = not self._given
        return self._data if self._given else b""

    async def read(self, limit: int = READ_LIMIT, /) -> bytes:
        if len(self._data) > limit:
            raise TooLarge(f"expected a body of at most {limit} bytes, got {len(self._data)}")
        return self._data


class IteratedBody(Body):
    """A body from a sync or async iterable of bytes; `aclose` closes the iterator if it has a close method."""

    __slots__ = ("_source",)

    def __init__(self, source: AsyncIterable[bytes] | Iterable[bytes], length: int | None = None) -> None:
        super().__init__(length)
        self._source: AsyncIterator[bytes] = (
            source.__aiter__() if isinstance(source, AsyncIterable) else _Async(iter(source))
        )

    async def chunk(self) -> bytes:
        if self.ended:
            return b""
        async for part in self._source:
            if part:
                return part
        self.ended = True
        return b""

    async def aclose(self) -> None:
        self.ended, self.shared_end = True, None
        closer = getattr(self._source, "aclose", None)
        if closer is not None:
            await closer()


class TransformedBody(Body):
    """A body read through a transform. It owns its source."""

    __slots__ = ("_source", "_transform")

    def __init__(self, source: Body, transform: Transform) -> None:
        super().__init__()
        self.headers = source.headers
        self.is_decoded = source.is_decoded
        self._source = source
        self._transform = transform

    @property
    def trailers(self) -> Headers | None:
        return self._source.trailers

    async def chunk(self) -> bytes:
        if part := self._transform.more():
            return part
        while not self.ended:
            part = await self._source.chunk()
            if part:
                part = self._transform.feed(part)
            else:
                self.ended = True
                part = self._transform.finish()
            if part:
                return part
        return b""

    async def wait_for_data(self) -> None:
        await self._source.wait_for_data()

    async def aclose(self) -> None:
        self.ended, self.shared_end = True, None
        await self._source.aclose()


Content: TypeAlias = Body | bytes | bytearray | memoryview | str | AsyncIterable[bytes] | Iterable[bytes]
"""Types accepted as a body; a `str` is encoded as UTF-8."""

EMPTY = BytesBody(b"")


def body_of(content: Content) -> Body:
    """Convert `content` to a Body; a Body is returned unchanged."""
    if type(content) is bytes:
        return BytesBody(content) if content else EMPTY
    if isinstance(content, Body):
        return content
    if isinstance(content, str):
        content = content.encode()
    if isinstance(content, bytes | bytearray | memoryview):
        return BytesBody(bytes(content)) if content else EMPTY
    return IteratedBody(content)


class _Chunks:
    """An iterator over one body. Leaving the loop early does not close the body: it can be read further or closed."""

    __slots__ = ("_body",)

    def __init__(self, body: Body) -> None:
        self._body = body

    def __aiter__(self) -> _Chunks:
        return self

    async def __anext__(self) -> bytes:
        if part := await self._body.chunk():
            return part
        raise StopAsyncIteration


class _Async:
    __slots__ = ("_source",)

    def __init__(self, source: Iterable[bytes]) -> None:
        self._source = iter(source)

    def __aiter__(self) -> _Async:
        return self

    async def __anext__(self) -> bytes:
        for part in self._source:
            return part
        raise StopAsyncIteration

    async def aclose(self) -> None:
        closer = cast("Callable[[], object] | None", getattr(self._source, "close", None))
        if closer is not None:
            closer()
