"""The body of a message on an HTTP/2 stream, as it comes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from llama._errors import Closed
from llama.http._body import Body
from llama.http._headers import Headers

TOGETHER = 16  # frames, of up to 16 KiB, that are read at once: a whole window would be copied by each who passes it on


class Source(Protocol):
    """The exchange that a body belongs to."""

    def wanted(self) -> None:
        """Somebody wants to read the body."""
        ...

    def consumed(self, count: int) -> None:
        """So many bytes were read, and others may come."""
        ...

    def unwanted(self) -> None:
        """Nobody wants to read the rest."""
        ...

    async def settled(self) -> None:
        """What belongs to the exchange beside the body has ended, too."""
        ...


class H2Body(Body):
    """Bytes that have come and were not read: at most the stream's window."""

    __slots__ = ("_error", "_late", "_over", "_parts", "_source", "_timeout", "_trailers", "_waiter")

    def __init__(
        self, source: Source, length: int | None, timeout: float | None, late: Callable[[float], Exception]
    ) -> None:
        self.length = length
        self.headers = None
        self.is_decoded = self.ended = False
        self._source: Source | None = source
        self._timeout = timeout
        self._late = late
        self._parts: list[bytes] = []
        self._over = False
        self._error: BaseException | None = None
        self._trailers: Headers | None = None
        self._waiter: asyncio.Future[None] | None = None

    @property
    def trailers(self) -> Headers | None:
        return self._trailers if self.ended else None

    @property
    def is_whole(self) -> bool:
        """Whether all of it has come."""
        return self._over

    @property
    def has_trailers(self) -> bool:
        """Whether fields came after it, read or not."""
        return bool(self._trailers)

    def without_timeout(self) -> None:
        """Wait as long as it takes from now on."""
        self._timeout = None

    # what comes

    def feed(self, data: bytes) -> None:
        """Bytes have come."""
        if self._error is None:
            self._parts.append(data)
            self._wake()

    def finish(self, trailers: Headers | None = None) -> None:
        """Nothing more comes."""
        self._trailers = trailers
        self._over = True
        self.ended = not self._parts
        self._wake()

    def fail(self, error: BaseException) -> None:
        """It broke off; what has come can still be read, if it was whole."""
        if not self._over and self._error is None:
            self._error = error
            self._parts.clear()
            self._wake()

    def stop(self, error: BaseException) -> None:
        """Nobody may read on, whatever has come."""
        self._error = error
        self._parts.clear()
        self._wake()

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    # what is read

    def chunk_nowait(self) -> bytes:
        parts = self._parts
        if not parts:
            return b""
        data = parts[0] if len(parts) == 1 else b"".join(parts[:TOGETHER])
        del parts[:TOGETHER]
        self.ended = self._over and not parts
        if self._source is not None and not self._over:
            self._source.consumed(len(data))
        return data

    def rest_nowait(self) -> bytes:
        """All that has come."""
        data = b"".join(self._parts)
        self._parts.clear()
        self.ended = self._over
        return data

    async def chunk(self) -> bytes:
        while not self._parts:
            if self._error is not None:
                raise self._error
            if self._over:
                self.ended = True
                return b""
            await self._wait()
        return self.chunk_nowait()

    async def wait_for_data(self) -> None:
        if not self._parts and not self._over and self._error is None:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None

    async def _wait(self) -> None:
        if self._source is not None:
            self._source.wanted()
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            if self._timeout is None:
                await self._waiter
                return
            async with asyncio.timeout(self._timeout):
                await self._waiter
        except TimeoutError:
            self._error = self._late(self._timeout or 0.0)
            raise self._error from None
        finally:
            self._waiter = None

    def detach(self) -> None:
        """The exchange is over: nothing is told to it any more."""
        self._source = None
        self.fail(Closed("the exchange that this body belongs to is over"))

    async def aclose(self) -> None:
        source, self._source = self._source, None
        if self._error is None and not self.ended:
            self._error = Closed("the message that this body belongs to was closed")
            self._parts.clear()
            self._wake()
            if source is not None and not self._over:
                source.unwanted()
                await source.settled()


class H2ResponseBody(Body):
    """A response's body: dropped before its end it breaks its stream off."""

    __slots__ = ("_inner", "_source")

    def __init__(self, inner: H2Body, source: Source) -> None:
        super().__init__(inner.length)
        self._inner = inner
        self._source = source

    def __del__(self) -> None:
        if not self._inner.is_whole:
            self._source.unwanted()

    @property
    def trailers(self) -> Headers | None:
        return self._inner.trailers

    def chunk_nowait(self) -> bytes:
        data = self._inner.chunk_nowait()
        self.ended = self._inner.ended
        return data

    async def chunk(self) -> bytes:
        data = await self._inner.chunk()
        self.ended = self._inner.ended
        return data

    async def wait_for_data(self) -> None:
        await self._inner.wait_for_data()

    async def aclose(self) -> None:
        await self._inner.aclose()
