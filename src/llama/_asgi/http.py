"""One HTTP request to an ASGI application, run as a task of the current Shutdown."""

from __future__ import annotations

import asyncio
import logging

from llama._asgi.response_sender import ResponseSender
from llama._asgi.types import Application, Event, Scope
from llama._core.errors import LlamaError
from llama._core.shutdown import Shutdown
from llama.http import Request, Response

log = logging.getLogger("llama.server")


class HTTPConnection:
    """Calls the application for one request."""

    __slots__ = (
        "_answer",
        "_application",
        "_over",
        "_received",
        "_request",
        "_returned",
        "_scope",
        "_waiting",
    )

    def __init__(self, application: Application, scope: Scope, request: Request) -> None:
        self._application = application
        self._scope = scope
        self._request = request
        self._answer = ResponseSender(request)
        self._received = False
        self._returned = False
        self._over = False  # the request is cancelled, or the application has returned
        self._waiting: asyncio.Event | None = None

    async def response(self) -> Response:
        """Start the application and wait for its response head; it may continue after that."""
        Shutdown.current().spawn(self._run(), eager=True)
        try:
            response = await self._answer.response
        except BaseException:
            self._end()
            raise
        if not self._returned:
            response.on_close(self._end)
        return response

    def _end(self) -> None:
        self._over = True
        if self._waiting is not None:
            self._waiting.set()

    async def _run(self) -> None:
        error: Exception | None = None
        try:
            await self._application(self._scope, self._receive, self._answer.send)
        except asyncio.CancelledError:
            error = LlamaError("the application was cancelled", status=503)
            raise
        except Exception as raised:
            error = raised
        finally:
            self._returned = True
            if not self._answer.finish(error) and not (self._over and isinstance(error, OSError)):
                log.error("%s failed after its response", self._scope["path"], exc_info=error)
            self._end()

    def _is_response_done(self) -> bool:
        return self._over

    async def _wait_disconnect(self) -> None:
        if self._waiting is None:
            self._waiting = asyncio.Event()
        await self._waiting.wait()

    async def _receive(self) -> Event:
        if self._received and not self._is_response_done():
            await self._wait_disconnect()
        if self._received or self._is_response_done():
            return {"type": "http.disconnect"}
        body = self._request.body
        if body.buffered is not None:
            self._received = True
            return {"type": "http.request", "body": body.buffered, "more_body": False}
        try:
            chunk = await body.read_chunk()
        except (LlamaError, OSError):
            self._received = True
            if self._is_response_done():
                return {"type": "http.disconnect"}
            raise
        self._received = body.ended
        return {"type": "http.request", "body": chunk, "more_body": not self._received}
