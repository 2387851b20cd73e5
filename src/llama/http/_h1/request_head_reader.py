"""The reader of request heads on one HTTP/1.1 connection, with its idle and head timeouts."""

from __future__ import annotations

import asyncio

from llama._core.errors import ProtocolError, TruncatedError
from llama.http._h1.server_reader import STOPPING, H1Reader, TaskInterrupt
from llama.http._h1.wire.fields import HeadBuffer
from llama.http._h1.wire.head import RequestHead, parse_request
from llama.http._progress_timer import ProgressTimer
from llama.http._server_settings import ServerSettings

FIRST_BYTES_TIMEOUT = (
    1.0  # seconds for the first request of a new connection to arrive after the server began to stop
)


_PRIOR_KNOWLEDGE = b"PRI * HTTP/2.0\r\n"


class PriorKnowledgePreface(Exception):
    """The connection begins with the HTTP/2 preface, which was unread."""


class RequestHeadReader:
    """Reads the heads of one connection in order."""

    __slots__ = (
        "_began",
        "_buffer",
        "_deadline",
        "_idle",
        "_input",
        "_interrupts",
        "_read",
        "_settings",
        "count",
        "stopping",
    )

    def __init__(
        self, input: H1Reader, interrupts: TaskInterrupt, deadline: ProgressTimer, settings: ServerSettings
    ) -> None:
        self._input = input
        self._read = input.stream.read
        self._interrupts = interrupts
        self._deadline = deadline
        self._settings = settings
        self._buffer = HeadBuffer(settings.limits)
        self._idle = False
        self.stopping = False
        """Whether the server is stopping, so that no further request is read."""
        self.count = 0
        """The number of heads received."""
        self._began = asyncio.get_running_loop().time()

    def stop(self) -> None:
        """Read no further request: end an idle connection now, one with a request in progress after its response.

        A connection without any request yet stays open until FIRST_BYTES_TIMEOUT seconds after it began, and its
        first request is served: it may already be on its way.
        """
        self.stopping = True
        if not self._idle:
            return
        left = self._began + FIRST_BYTES_TIMEOUT - asyncio.get_running_loop().time()
        if self.count or left <= 0:
            self._interrupts.interrupt(STOPPING)
        else:
            self._deadline.start(left)

    async def head(self) -> RequestHead | None:
        """Return the next head, or None at the end; raise ProtocolError if it is malformed."""
        data = self._input.rest
        if data:
            self._input.rest = b""
        elif (self.stopping and self.count) or not (data := await self._first_bytes()):
            return None
        found = self._buffer.feed(data)
        if found is None and (found := await self._rest_of_head()) is None:
            return None
        raw, self._input.rest = found
        self.count += 1
        if raw == _PRIOR_KNOWLEDGE and self.count == 1:
            self._input.stream.unread(raw + b"\r\n" + self._input.rest)
            raise PriorKnowledgePreface
        return parse_request(raw, self._settings.limits)

    async def _first_bytes(self) -> bytes:
        settings = self._settings
        bound = settings.idle_timeout if self.count else settings.first_byte_timeout
        if self.stopping or bound is not None:
            self._deadline.start(FIRST_BYTES_TIMEOUT if self.stopping else bound)
        self._idle = True
        try:
            data = await self._read()
            if self._interrupts.reason:
                await self._interrupts.flush_pending()
            return data
        except asyncio.CancelledError:
            if not self._interrupts.consume():
                raise
            return b""
        except TruncatedError:  # no close_notify, as from many clients: between requests no data is lost
            return b""
        finally:
            self._idle = False
            if bound is not None or self.stopping:
                self._deadline.stop()

    async def _rest_of_head(self) -> tuple[bytes, bytes] | None:
        self._deadline.start(self._settings.head_timeout)
        try:
            while data := await self._input.read():
                if (found := self._buffer.feed(data)) is not None:
                    if self._interrupts.reason:
                        await self._interrupts.flush_pending()
                    return found
        except asyncio.CancelledError:
            if not self._interrupts.consume():
                raise
            seconds = self._settings.head_timeout
            raise ProtocolError(f"no complete request head within {seconds} seconds", status=408) from None
        finally:
            self._deadline.stop()
        return None
