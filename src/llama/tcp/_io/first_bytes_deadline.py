"""A deadline for a client's first bytes once the server stops, so that silent connections do not delay it."""

from __future__ import annotations

import asyncio

from llama._core.errors import StreamClosedError
from llama._core.shutdown import Shutdown
from llama._core.stream import Stream

FIRST_BYTES_TIMEOUT = 1.0  # seconds for the first bytes of a connection once stopping has begun


class FirstBytesDeadline:
    """Limits the time for a client's first bytes, counted from the moment in which stopping begins.

    A context manager around the code that reads them: after FIRST_BYTES_TIMEOUT seconds it aborts the stream, and
    raises TimeoutError instead of Closed.
    """

    __slots__ = ("_forget", "_late", "_stream", "_timer")

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._late = False
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> None:
        try:
            self._forget = Shutdown.current().on_stop(self._stop)
        except RuntimeError:  # called without a server
            self._forget = _noop

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._forget()
        if self._timer is not None:
            self._timer.cancel()
        if self._late and isinstance(error, StreamClosedError):
            raise TimeoutError("the server stopped before the client had sent enough") from None

    def _stop(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(FIRST_BYTES_TIMEOUT, self._abort)

    def _abort(self) -> None:
        self._late = True
        self._stream.abort()


def _noop() -> None:
    return None
