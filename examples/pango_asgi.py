"""An ASGI application over HTTPS in one line, with pango's timeouts."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import pango

Event = MutableMapping[str, Any]


async def app(
    scope: Event, receive: Callable[[], Awaitable[Event]], send: Callable[[Event], Awaitable[None]]
) -> None:
    """Any framework's application goes here: Starlette's, FastAPI's, Django's."""
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"hello\n"})


pango.run(app, cert="site.pem", key="site.key")
