"""The body of a message received on an HTTP/2 stream."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from llama._core.errors import StreamClosedError
from llama.http._messages.body import Body
from llama.http._messages.headers import Headers

# Frames of up to 16 KiB joined into one chunk; joining a whole window would copy too much in each layer.
MAX_JOINED_FRAMES = 16


class StreamBodySource(Protocol):
    """The exchange that a body belongs to."""

    def on_read(self) -> None:
        """A reader waits for the body."""
        ...

    def release_credit(self, count: int) -> None:
        """`count` bytes were read: return their flow-control credit to the peer."""
        ...

    def on_discard(self) -> None:
        """The reader dropped the rest of the body."""
        ...

    async def wait_upload(self) -> None:
        """Wait until the rest of the exchange has ended too."""
        ...


class H2Body(Body):
    """A body that buffers received bytes until they are read: at most the stream's flow-control window."""

    __slots__ = (
        "_error",
        "_is_over",
        "_parts",
        "_source",
        "_timeout",
        "_timeout_error",
        "_trailers",
        "_waiter",
    )

    def __init__(
        self,
        source: StreamBodySource,
        length: int | None,
        timeout: float | None,
        late: Callable[[float], Exception],
    ) -> None:
        self.length = length
        self.headers = None
        self.is_decoded = self.ended = False
        self._source: StreamBodySource | None = source
        self._timeout = timeout
        self._timeout_error = late
        self._parts: list[bytes] = []
        self._is_over = False
        self._error: BaseException | None = None
        self._trailers: Headers | None = None
        self._waiter: asyncio.Future[None] | None = None

    @property
    def trailers(self) -> Headers | None:
        return self._trailers if self.ended else None

    @property
    def is_whole(self) -> bool:
        """Whether the whole body has been received."""
        return self._is_over

    @property
    def has_trailers(self) -> bool:
        """Whether trailers were received, even if the body before them was not read yet."""
        return bool(self._trailers)

    def without_timeout(self) -> None:
        """Remove the read timeout."""
        self._timeout = None

    # receiving

    def feed(self, data: bytes) -> None:
        """Add received bytes."""
        if self._error is None:
            self._parts.append(data)
            self._wake()

    def finish(self, trailers: Headers | None = None) -> None:
        """Mark the end of the body."""
        self._trailers = trailers
        self._is_over = True
        self.ended = not self._parts
        self._wake()

    def fail(self, error: BaseException) -> None:
        """Fail the body with an error. Received bytes stay readable only if the body is complete."""
        if not self._is_over and self._error is None:
            self._error = error
            self._parts.clear()
            self._wake()

    def stop(self, error: BaseException) -> None:
        """Fail all further reads and drop the buffered bytes."""
        self._error = error
        self._parts.clear()
        self._wake()

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    # reading

    def read_chunk_nowait(self) -> bytes:
        parts = self._parts
        if not parts:
            return b""
        data = parts[0] if len(parts) == 1 else b"".join(parts[:MAX_JOINED_FRAMES])
        del parts[:MAX_JOINED_FRAMES]
        self.ended = self._is_over and not parts
        if self._source is not None and not self._is_over:
            self._source.release_credit(len(data))
        return data

    def rest_nowait(self) -> bytes:
        """Return all received bytes."""
        data = b"".join(self._parts)
        self._parts.clear()
        self.ended = self._is_over
        return data

    async def read_chunk(self) -> bytes:
        while not self._parts:
            if self._error is not None:
                raise self._error
            if self._is_over:
                self.ended = True
                return b""
            await self._wait()
        return self.read_chunk_nowait()

    async def wait_for_data(self) -> None:
        if not self._parts and not self._is_over and self._error is None:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None

    async def _wait(self) -> None:
        if self._source is not None:
            self._source.on_read()
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            if self._timeout is None:
                await self._waiter
                return
            async with asyncio.timeout(self._timeout):
                await self._waiter
        except TimeoutError:
            self._error = self._timeout_error(self._timeout or 0.0)
            raise self._error from None
        finally:
            self._waiter = None

    def detach(self) -> None:
        """Disconnect the body from its exchange, which has ended; fail it if it is incomplete."""
        self._source = None
        self.fail(StreamClosedError("the exchange that this body belongs to is over"))

    async def aclose(self) -> None:
        source, self._source = self._source, None
        if self._error is None and not self.ended:
            self._error = StreamClosedError("the message that this body belongs to was closed")
            self._parts.clear()
            self._wake()
            if source is not None and not self._is_over:
                source.on_discard()
                await source.wait_upload()


class H2ResponseBody(Body):
    """A response's body. It resets the stream if it is dropped before its end."""

    __slots__ = ("_inner", "_source")

    def __init__(self, inner: H2Body, source: StreamBodySource) -> None:
        super().__init__(inner.length)
        self._inner = inner
        self._source = source

    def __del__(self) -> None:
        if not self._inner.is_whole:
            self._source.on_discard()

    @property
    def trailers(self) -> Headers | None:
        return self._inner.trailers

    def read_chunk_nowait(self) -> bytes:
        data = self._inner.read_chunk_nowait()
        self.ended = self._inner.ended
        return data

    async def read_chunk(self) -> bytes:
        data = await self._inner.read_chunk()
        self.ended = self._inner.ended
        return data

    async def wait_for_data(self) -> None:
        await self._inner.wait_for_data()

    async def aclose(self) -> None:
        await self._inner.aclose()
