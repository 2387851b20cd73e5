"""The response to a request over HTTP/2 or HTTP/3: the handler's, or an error page for the error it raised."""

from __future__ import annotations

import asyncio

from llama.http._h1.wire.head import check_expectation
from llama.http._messages.dropped_response import close_dropped
from llama.http._messages.error_response import answer_error
from llama.http._messages.message import Exchange, Request, Response
from llama.http._server_settings import Settings


async def answer(inner: Exchange, request: Request, settings: Settings, where: object) -> Response:
    """Call the handler within `handler_timeout` and return its response. Raises only CancelledError."""
    headers = request.headers
    try:
        if "expect" in headers._keys:
            check_expectation(headers)
        if settings.handler_timeout is None:
            response = await inner(request)
        else:
            response = await _in_time(inner, request, settings.handler_timeout)
        if not isinstance(response, Response):  # pyright: ignore[reportUnnecessaryIsInstance]  # not all check
            raise TypeError(f"the handler returned {response!r}, expected a Response")
        return response
    except asyncio.CancelledError as error:
        await close_dropped(error)
        raise
    except Exception as error:
        await close_dropped(error)
        return answer_error(error, settings.error_page, request, where)


async def _in_time(inner: Exchange, request: Request, seconds: float) -> Response:
    clock = asyncio.timeout(seconds)
    try:
        async with clock:
            return await inner(request)
    except TimeoutError as error:
        if clock.expired():
            raise TimeoutError(f"no response from the handler within {seconds} seconds") from error
        raise
