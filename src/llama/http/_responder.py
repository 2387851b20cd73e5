"""The response to a request over HTTP/2 or HTTP/3: the handler's, or an error page for the error it raised."""

from __future__ import annotations

import asyncio

from llama.http._h1.wire.head import check_expectation
from llama.http._messages.dropped_response import close_responses_in_traceback
from llama.http._messages.error_response import log_and_render_error
from llama.http._messages.message import Request, RequestHandler, Response
from llama.http._server_settings import ServerSettings


async def answer(
    inner: RequestHandler, request: Request, settings: ServerSettings, where: object
) -> Response:
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
        await close_responses_in_traceback(error)
        raise
    except Exception as error:
        await close_responses_in_traceback(error)
        return log_and_render_error(error, settings.error_handler, request, where)


async def _in_time(inner: RequestHandler, request: Request, seconds: float) -> Response:
    clock = asyncio.timeout(seconds)
    try:
        async with clock:
            return await inner(request)
    except TimeoutError as error:
        if clock.expired():
            raise TimeoutError(f"no response from the handler within {seconds} seconds") from error
        raise
