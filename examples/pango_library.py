"""Pango as a library: an ASGI application, and two services elsewhere that take turns, over HTTPS.

`pango.run(app, cert="cert.pem", key="key.pem")` is the first of them on port 443, until a signal ends it.
"""

import asyncio
import signal
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import pango

Message = MutableMapping[str, Any]


async def app(
    scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
) -> None:
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"Hello from an ASGI application.\n"})


async def main() -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with (
        pango.serve(app, listen="127.0.0.1:8443", cert="cert.pem", key="key.pem"),
        pango.serve(
            to=["http://127.0.0.1:8081", "http://127.0.0.1:8082"],
            listen="127.0.0.1:9443",
            cert="cert.pem",
            key="key.pem",
            response_header_timeout=30,
        ),
    ):
        await stop.wait()  # whatever else this program does; leaving the block lets requests finish


asyncio.run(main())
