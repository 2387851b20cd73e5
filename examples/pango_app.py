"""Pango as a library: an ASGI application over HTTPS, with pango's timeouts and its log."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import pango

Message = MutableMapping[str, Any]


async def app(
    scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
) -> None:
    if scope["type"] == "http":
        await send(
            {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]}
        )
        await send({"type": "http.response.body", "body": b"Hello from an ASGI application.\n"})


pango.run(app, listen="localhost:8443", cert="cert.pem", key="key.pem")
