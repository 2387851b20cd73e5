"""The output of a server's HTTP/1.1 connection: heads and bodies in as few writes as possible."""

from __future__ import annotations

import logging
from collections.abc import Callable

from llama._core.errors import LlamaError, ProtocolError
from llama._core.stream import NonblockingStream, Stream
from llama.http._h1.wire.encode import encode_chunk, encode_last_chunk, encode_response
from llama.http._h1.wire.framing import CHUNKED, UNTIL_CLOSE
from llama.http._messages.message import Message, Response
from llama.http._progress_timer import ProgressTimer

log = logging.getLogger("llama.server")
COALESCE_LIMIT = 65536


def encode_switch(protocol: str, response: Response) -> bytes:
    """Encode the head sent before `response.upgrade` runs: 101 for an Upgrade, 2xx for CONNECT."""
    headers = response.headers
    if not protocol:
        status = response.status if 200 <= response.status < 300 else 200
        return encode_response("CONNECT", status, response.reason, headers, UNTIL_CLOSE)
    extra = "Connection: Upgrade\r\n"
    if "upgrade" not in headers.names:
        extra += f"Upgrade: {protocol}\r\n"
    return encode_response("GET", 101, response.reason, headers, 0, extra)


class H1Writer:
    """The writing side of a connection, with a timeout for writes that make no progress."""

    __slots__ = (
        "_deadline",
        "_on_late",
        "_stream",
        "_timeout",
        "_writing",
        "broken",
        "write",
        "write_buffered",
    )

    def __init__(self, stream: Stream, timeout: float | None, late: Callable[[], object]) -> None:
        self._stream = stream
        self._timeout = timeout
        self._on_late = late
        self._deadline = ProgressTimer(self._on_timeout) if timeout is not None else None
        self._writing = False
        self.broken = False
        """Whether the stream was aborted because the client did not accept data in time."""
        self.write = stream.write if timeout is None else self._timed_write
        """Writes all of the data."""
        self.write_buffered = stream.write_buffered if timeout is None else self._timed_write_buffered
        """Queues a small message to send it together with others; False if it must be written."""

    def close(self) -> None:
        """Cancel the timer."""
        if self._deadline is not None:
            self._deadline.close()

    async def _timed_write(self, data: bytes) -> None:
        deadline = self._deadline
        if deadline is None:
            return
        self._writing = True
        try:
            for start in range(0, len(data), COALESCE_LIMIT):
                deadline.start(self._timeout)
                await self._stream.write(memoryview(data)[start : start + COALESCE_LIMIT])
        finally:
            self._writing = False
            deadline.stop()

    def _timed_write_buffered(self, data: bytes) -> bool:
        if self._deadline is None or not self._stream.write_buffered(data):
            return False
        self._deadline.start(self._timeout)
        return True

    def _on_timeout(self) -> None:
        stream = self._stream
        if self._writing:
            self._on_late()
        elif isinstance(stream, NonblockingStream) and not stream.flush_nowait():
            self.broken = True
            stream.abort()

    async def write_both(self, head: bytes, data: bytes) -> None:
        """Write a head and a complete body, in one write if the body is small."""
        if len(data) <= COALESCE_LIMIT:
            await self.write(head + data)
        else:
            await self.write(head)
            await self.write(data)

    async def stream_body(self, head: bytes, framing: int, message: Message) -> bool:
        """Write a head and each chunk of a body as it arrives; False if the body fails or does not match its length.

        Errors of the connection itself are raised.
        """
        body = message._body
        left = framing
        chunk = body.read_chunk_nowait()
        if not chunk:
            await self.write(head)
            head = b""
        while True:
            if not chunk:
                try:
                    chunk = await body.read_chunk()
                except Exception as error:
                    return self._on_write_error(error)
                if not chunk:
                    break
            if framing == CHUNKED:
                data = encode_chunk(chunk)
            elif framing == UNTIL_CLOSE or (left := left - len(chunk)) >= 0:
                data = chunk
            else:
                return self._on_write_error(
                    ProtocolError(f"the body is longer than its Content-Length of {framing}")
                )
            await self.write(head + data if head else data)
            head = chunk = b""
        if framing > 0 and left:
            return self._on_write_error(
                ProtocolError(f"the body ended {left} bytes before its Content-Length of {framing}")
            )
        if framing == CHUNKED:
            await self.write(encode_last_chunk(message.trailers))
        return True

    def _on_write_error(self, error: Exception) -> bool:
        trace = None if isinstance(error, LlamaError | OSError | TimeoutError) else error
        extra = {"error.type": type(error).__name__}
        log.warning("%s: the response body failed: %s", self._stream, error, exc_info=trace, extra=extra)
        return False
