"""An ASGI application over TLS, and the plain port that sends clients there."""

from collections.abc import Awaitable, Callable
from typing import Any

from llama import asgi, http, run, stack, tcp, tls


async def application(scope: Any, receive: Any, send: Callable[[Any], Awaitable[None]]) -> None:
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": f"hello by {scope['scheme']}\n".encode()})


run(
    tcp.server(":8443", stack(tls.server("cert.pem", "key.pem"), http.server(), asgi(application))),
    tcp.server(":8080", stack(http.server(), http.redirect("https", port=8443))),
)
