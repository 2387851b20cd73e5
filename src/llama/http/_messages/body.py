"""Message bodies, in memory or as a stream of chunks."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable
from typing import TypeAlias, cast

from llama._core.errors import LlamaError, ProtocolError, TooLargeError
from llama.http._codings.recode import (
    FailingTransform,
    Pipeline,
    RecodeTransform,
    bounded_decoder,
    encoders,
)
from llama.http._codings.transform import MapTransform, ReplaceTransform, Transform, decoders
from llama.http._messages.headers import Headers

log = logging.getLogger("llama.server")
READ_LIMIT = 1 << 20


class Body:
    """The body of a message: read it whole with `read`, or chunk by chunk with `async for`.

    A body can be read once, a body made from bytes any number of times. The holder of the message owns its body:
    it reads to the end or awaits `aclose`, which is idempotent. `map`, `replace` and `decoded` return a new body
    that owns this one. Subclasses implement `read_chunk`.
    """

    __slots__ = (
        "_is_of_response",
        "_is_reported",
        "close_callbacks",
        "ended",
        "headers",
        "is_decoded",
        "length",
    )

    _is_of_response: bool
    """Set, to true, where a response carries it."""
    _is_reported: bool
    """Set, to true, where a warning said that it cannot be decoded."""
    close_callbacks: object
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
    def buffered(self) -> bytes | None:
        """The whole body if it is in memory, and so can be read again; else None."""
        return None

    @property
    def trailers(self) -> Headers | None:
        """The trailer fields, available once the body has ended; None if there were none."""
        return None

    async def read_chunk(self) -> bytes:
        """Return the next bytes as they arrive; b"" at the end and after it. Truncated if the body ends too early."""
        raise TypeError(f"{type(self).__name__} does not implement read_chunk()")

    def read_chunk_nowait(self) -> bytes:
        """Return the next bytes if they have arrived, else b"". Only `read_chunk` reports the end."""
        return b""

    async def wait_for_data(self) -> None:
        """Wait until a chunk or the end has arrived from the peer, without sending it 100 (Continue).

        For a body that does not come from a peer it never returns. Cancelling it loses no data.
        """
        await asyncio.get_running_loop().create_future()

    async def aclose(self) -> None:
        """Release the body's resources without reading the rest. Idempotent."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        return _BodyIterator(self)

    async def read(self, limit: int = READ_LIMIT, /) -> bytes:
        """Return the whole body. Raises TooLargeError (413) if it has more than `limit` bytes."""
        if self.length is not None and self.length > limit:
            raise TooLargeError(f"expected a body of at most {limit} bytes, got {self.length}")
        parts: list[bytes] = []
        size = 0
        while part := await self.read_chunk():
            size += len(part)
            if size > limit:
                raise TooLargeError(f"expected a body of at most {limit} bytes, got more")
            parts.append(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def map(self, function: Callable[[bytes], bytes], /) -> Body:
        """Return a body with `function` applied to each decoded chunk; chunks that become empty are skipped.

        A message encodes the result again when it is assigned: see `Message.body`.
        """
        return self._edited(MapTransform(function))

    def replace(self, old: bytes, new: bytes, /) -> Body:
        """Return a decoded body with every `old` replaced by `new`, also across chunks, as by `bytes.replace`.

        It holds back at most `len(old) - 1` bytes, so a stream is not delayed. A message encodes the result again when
        it is assigned: see `Message.body`. Raises ValueError if `old` is empty.
        """
        if not old:
            raise ValueError("expected at least one byte to replace, got b''")
        return self._edited(ReplaceTransform(old, new))

    def _edited(self, edit: Transform) -> Body:
        if self.length == 0:
            return self
        codings = self._content_codings()
        if self.is_decoded or not codings:
            return TransformedBody(self, edit)
        return EditedBody(self, codings, (edit,))

    def _content_codings(self) -> list[str]:
        return content_codings(self.headers) if self.headers is not None else []

    def decoded(self) -> Body:
        """Return this body with its Content-Encoding decoded; the body itself if it has none.

        Supports gzip and deflate, br with the extra `brotli`, and zstd with the extra `zstd` or on Python 3.14 and
        later. Raises ProtocolError for another coding, with status 502 if the body is a response's.
        """
        codings = self._content_codings()
        if self.is_decoded or self.length == 0 or not codings:
            return self
        status = 502 if is_of_response(self) else None
        try:
            body = TransformedBody(self, Pipeline(decoders(codings), status))
        except ProtocolError as error:
            error.status = status or error.status
            raise
        body.is_decoded = True
        return body


class BytesBody(Body):
    """A body in memory; it can be read any number of times."""

    __slots__ = ("_data", "_is_read")

    def __init__(self, data: bytes) -> None:
        self.length = len(data)
        self.headers = None
        self.is_decoded = self.ended = False
        self._data = data
        self._is_read = False

    @property
    def buffered(self) -> bytes:
        return self._data

    def __aiter__(self) -> AsyncIterator[bytes]:
        self._is_read = False  # an earlier loop may have stopped before the end
        return _BodyIterator(self)

    async def read_chunk(self) -> bytes:
        self._is_read = not self._is_read
        return self._data if self._is_read else b""

    async def read(self, limit: int = READ_LIMIT, /) -> bytes:
        if len(self._data) > limit:
            raise TooLargeError(f"expected a body of at most {limit} bytes, got {len(self._data)}")
        return self._data


class StreamBody(Body):
    """A body from a sync or async iterable of bytes; `aclose` closes the iterator if it has a close method."""

    __slots__ = ("_source",)

    def __init__(self, source: AsyncIterable[bytes] | Iterable[bytes], length: int | None = None) -> None:
        super().__init__(length)
        self._source: AsyncIterator[bytes] = (
            source.__aiter__() if isinstance(source, AsyncIterable) else _AsyncIterator(iter(source))
        )

    async def read_chunk(self) -> bytes:
        if self.ended:
            return b""
        async for part in self._source:
            if part:
                return part
        self.ended = True
        return b""

    async def aclose(self) -> None:
        self.ended, self.close_callbacks = True, None
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
        if is_of_response(source):
            self._is_of_response = True
        self._source = source
        self._transform = transform

    @property
    def trailers(self) -> Headers | None:
        return self._source.trailers

    async def read_chunk(self) -> bytes:
        if part := self._transform.pending():
            return part
        while not self.ended:
            part = await self._source.read_chunk()
            if part:
                part = self._transform.update(part)
            else:
                self.ended = True
                part = self._transform.flush()
            if part:
                return part
        return b""

    async def wait_for_data(self) -> None:
        await self._source.wait_for_data()

    async def aclose(self) -> None:
        self.ended, self.close_callbacks = True, None
        await self._source.aclose()


class EditedBody(TransformedBody):
    """An encoded body: decoded, then edited. A message that it is assigned to encodes it again."""

    __slots__ = ("_edits", "_error", "_has_begun", "codings", "keeps_codings")

    def __init__(
        self, source: Body, codings: list[str], edits: tuple[Transform, ...], *, keeps_codings: bool = True
    ) -> None:
        self.codings = codings
        self.keeps_codings = keeps_codings
        """Whether the message keeps its Content-Encoding."""
        self._edits = edits
        self._error: ProtocolError | None = None
        self._has_begun = False
        super().__init__(source, self._transform_of(source))
        self.is_decoded = True

    def _transform_of(self, source: Body) -> Transform:
        try:
            return Pipeline([self._decoder(source), *self._edits])
        except ProtocolError as error:
            if is_of_response(source):
                error.status = 502
            self._error = error
            return FailingTransform(error)

    def _decoder(self, source: Body) -> Transform:
        return bounded_decoder(self.codings, 502 if is_of_response(source) else 400)

    async def read_chunk(self) -> bytes:
        self._has_begun = True
        return await super().read_chunk()

    def _edited(self, edit: Transform) -> Body:
        if self._has_begun:
            return super()._edited(edit)
        edits = (*self._edits, edit)
        return EditedBody(self._source, self.codings, edits, keeps_codings=self.keeps_codings)

    def encoded(self, exchange: str, *, keeps_codings: bool) -> Body:
        """Encode the edited bytes again; pass bytes that cannot be decoded unchanged, with a warning."""
        if self._error is None:
            return EncodedBody(self, exchange, keeps_codings=self.keeps_codings and keeps_codings)
        source = self._source
        if not getattr(source, "_is_reported", False):
            source._is_reported = True
            log.warning(_UNCHANGED, exchange, self._error)
        return source


class EncodedBody(EditedBody):
    """An encoded body: decoded, edited and encoded again, or unchanged where it cannot be decoded."""

    __slots__ = ("_exchange",)

    def __init__(self, edited: EditedBody, exchange: str, *, keeps_codings: bool) -> None:
        self._exchange = exchange
        super().__init__(edited._source, edited.codings, edited._edits, keeps_codings=keeps_codings)
        self.is_decoded = not keeps_codings

    def _transform_of(self, source: Body) -> Transform:
        edit = Pipeline([*self._edits, *(encoders(self.codings) if self.keeps_codings else ())])
        exchange = self._exchange

        def warn(error: LlamaError, passes: bool) -> None:
            log.warning(_UNCHANGED if passes else _BROKEN, exchange, error)

        return RecodeTransform(self._decoder(source), edit, source.length, warn)


def content_codings(headers: Headers) -> list[str]:
    """The content codings of a message but identity, in the order in which they were applied."""
    return [coding for coding in headers.tokens("content-encoding") if coding != "identity"]


def is_of_response(body: Body) -> bool:
    """Whether a response carries it."""
    return getattr(body, "_is_of_response", False)


_UNCHANGED = "%s: the body passes unchanged: %s"
_BROKEN = "%s: the exchange ends within the body: %s"

Content: TypeAlias = Body | bytes | bytearray | memoryview | str | AsyncIterable[bytes] | Iterable[bytes]
"""Types accepted as a body; a `str` is encoded as UTF-8."""

EMPTY = BytesBody(b"")


def to_body(content: Content) -> Body:
    """Convert `content` to a Body; a Body is returned unchanged."""
    if type(content) is bytes:
        return BytesBody(content) if content else EMPTY
    if isinstance(content, Body):
        return content
    if isinstance(content, str):
        content = content.encode()
    if isinstance(content, bytes | bytearray | memoryview):
        return BytesBody(bytes(content)) if content else EMPTY
    return StreamBody(content)


class _BodyIterator:
    """An iterator over one body. Leaving the loop early does not close the body: it can be read further or closed."""

    __slots__ = ("_body",)

    def __init__(self, body: Body) -> None:
        self._body = body

    def __aiter__(self) -> _BodyIterator:
        return self

    async def __anext__(self) -> bytes:
        if part := await self._body.read_chunk():
            return part
        raise StopAsyncIteration


class _AsyncIterator:
    __slots__ = ("_source",)

    def __init__(self, source: Iterable[bytes]) -> None:
        self._source = iter(source)

    def __aiter__(self) -> _AsyncIterator:
        return self

    async def __anext__(self) -> bytes:
        for part in self._source:
            return part
        raise StopAsyncIteration

    async def aclose(self) -> None:
        closer = cast("Callable[[], object] | None", getattr(self._source, "close", None))
        if closer is not None:
            closer()
