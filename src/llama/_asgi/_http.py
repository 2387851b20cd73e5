"""One HTTP request to an ASGI application: a task of the current Shutdown."""

from __future__ import annotations

import asyncio
import logging

from llama._asgi._answer import Answer
from llama._asgi._types import Application, Event, Scope
from llama._errors import LlamaError
from llama._shutdown import Shutdown
from llama.http import Request, Response

log = logging.getLogger("llama.server")


class HttpCall:
    """Calls the application for one request."""

    def __init__(self, application: Application, scope: Scope, request: Request) -> None:
        self._application = application
        self._scope = scope
        self._request = request
        self._answer = Answer(request)
        self._over = asyncio.Event()
        self._received = False

    async def response(self) -> Response:
        """Start the application, and wait until it has begun to answer; it may go on after that."""
        Shutdown.current().spawn(self._run(), name=f"asgi {self._request.method} {self._scope['path']}")
        try:
            response = await self._answer.response
        except BaseException:
            self._over.set()
            raise
        response.on_close(self._over.set)
        return response

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
            if not self._answer.end(error) and not (self._over.is_set() and isinstance(error, OSError)):
                log.error("%s failed after its response", self._scope["path"], exc_info=error)

    async def _receive(self) -> Event:
        if self._received:
            await self._over.wait()
        if self._received or self._over.is_set():
            return {"type": "http.disconnect"}
        body = self._request.body
        if body.data is not None:
            self._received = True
            return {"type": "http.request", "body": body.data, "more_body": False}
        try:
            chunk = await body.chunk()
        except (LlamaError, OSError):
            self._received = True
            if self._over.is_set():
                return {"type": "http.disconnect"}
            raise
        self._received = body.ended
        return {"type": "http.request", "body": chunk, "more_body": not self._received}
