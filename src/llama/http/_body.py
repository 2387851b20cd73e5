"""Bodies: what a message carries, in one piece or as a stream of chunks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable
from typing import TypeAlias, cast

from llama._errors import TooLarge
from llama.http._coding import Map, Replace, Transform, decoders
from llama.http._headers import Headers

READ_LIMIT = 1 << 20


class Body:
    """The body of a message: read it whole with `read`, or chunk by chunk with `async for`.

    A body is read once (those made from bytes can be read again). Whoever holds the message owns its body:
    read it to the end or await `aclose`, which may be called again. `map`, `replace` and `decoded` return a
    new body that owns this one. Subclasses give `chunk`.
    """

    __slots__ = ("ended", "headers", "is_decoded", "length", "shared_end")

    shared_end: object
    """Kept as long as this body is: what tells of the end of its exchange."""

    def __init__(self, length: int | None = None) -> None:
        self.length = length
        """Its bytes, or None while that is not known."""
        self.headers: Headers | None = None
        """The header of the message that carries it."""
        self.is_decoded = False
        """Whether a content coding was taken off."""
        self.ended = False
        """Whether it is known that nothing more comes."""

    @property
    def data(self) -> bytes | None:
        """All of it, where it is in memory; it can then be read again."""
        return None

    @property
    def trailers(self) -> Headers | None:
        """The fields that came after the body, known once it has ended; None where there were none."""
        return None

    async def chunk(self) -> bytes:
        """The next bytes, as they come; b"" at the end and after it. Truncated if it came too early."""
        raise TypeError(f"{type(self).__name__} has no chunk()")

    def chunk_nowait(self) -> bytes:
        """The next bytes if they are there already; b"" says nothing of the end, which `chunk` tells."""
        return b""

    async def wait_for_data(self) -> None:
        """Return once a chunk or the end has come from the peer, without asking the peer for it by 100 (Continue).

        It never returns for a body that no peer sends. Cancelling it loses no data.
        """
        await asyncio.get_running_loop().create_future()

    async def aclose(self) -> None:
        """Free what the body holds, without reading the rest."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        return _Chunks(self)

    async def read(self, limit: int = READ_LIMIT, /) -> bytes:
        """All of the body; TooLarge (413) when it has more than `limit` bytes."""
        if self.length is not None and self.length > limit:
            raise TooLarge(f"a body of {self.length} bytes is over the limit of {limit}")
        parts: list[bytes] = []
        size = 0
        while part := await self.chunk():
            size += len(part)
            if size > limit:
                raise TooLarge(f"the body is over the limit of {limit} bytes")
            parts.append(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def map(self, function: Callable[[bytes], bytes], /) -> Body:
        """Each chunk through `function`, content codings taken off first; empty ones are left out."""
        return TransformedBody(self.decoded(), Map(function))

    def replace(self, old: bytes, new: bytes, /) -> Body:
        """Every `old` replaced by `new`, as `bytes.replace` does in the whole; content codings are taken off.

        It holds back no more than `len(old) - 1` bytes, so streams go on flowing.
        """
        if not old:
            raise ValueError("replace() needs something to look for")
        return TransformedBody(self.decoded(), Replace(old, new))

    def decoded(self) -> Body:
        """This body without its Content-Encoding; itself when it has none.

        gzip and deflate are known, br by the extra brotli, zstd by the extra zstd or from Python 3.14 on. Another
        coding raises ProtocolError, for bytes that cannot be read cannot be changed: keep such codings out of
        Accept-Encoding, as `http.map_body` does.
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
        self._given = False  # who read before may have stopped halfway
        return _Chunks(self)

    async def chunk(self) -> bytes:
        self._given = not self._given
        return self._data if self._given else b""

    async def read(self, limit: int = READ_LIMIT, /) -> bytes:
        if len(self._data) > limit:
            raise TooLarge(f"a body of {len(self._data)} bytes is over the limit of {limit}")
        return self._data


class IteratedBody(Body):
    """A body from an iterable of bytes, async or not; closes it if it can be closed."""

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
    """Another body, passed through a transform."""

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
"""What can be given as a body; a `str` is sent as UTF-8."""

EMPTY = BytesBody(b"")


def body_of(content: Content) -> Body:
    """The body that `content` stands for; a Body is returned as it is."""
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
    """Iterates over one body; a loop that is left early leaves the body to be read on or closed."""

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
