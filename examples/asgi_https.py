"""An ASGI application over HTTPS, in two worker processes; plain HTTP is sent there."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from llama import asgi, http, run, stack, tcp, tls

Event = MutableMapping[str, Any]


async def app(
    scope: Event, receive: Callable[[], Awaitable[Event]], send: Callable[[Event], Awaitable[None]]
) -> None:
    """Any framework's application goes here: Starlette's, FastAPI's, Django's."""
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": f"{scope['scheme']} {scope['path']}\n".encode()})


https = stack(tls.server("site.pem", "site.key"), http.server(), asgi(app))
run(
    tcp.server(":443", https),
    tcp.server(":80", stack(http.server(), http.redirect("https"))),
    workers=2,
)
