"""An ASGI server's side of one call, message by message."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

App = Any
Message = dict[str, Any]


class Call:
    """What a server tells an application of one request, and what it is told."""

    def __init__(self) -> None:
        self.incoming: asyncio.Queue[Message] = asyncio.Queue()
        self.sent: asyncio.Queue[Message] = asyncio.Queue()
        self.gone = False
        self.task: asyncio.Task[None] | None = None

    async def _receive(self) -> Message:
        return await self.incoming.get()

    async def _send(self, message: Message) -> None:
        if self.gone:
            raise OSError("the client has left")
        await self.sent.put(message)

    def say(self, kind: str, **fields: Any) -> None:
        """A message to the application."""
        self.incoming.put_nowait({"type": kind, **fields})

    def leave(self, kind: str = "http.disconnect", **fields: Any) -> None:
        """The client leaves."""
        self.gone = True
        self.say(kind, **fields)

    async def hear(self) -> Message:
        """The next message of the application."""
        return await asyncio.wait_for(self.sent.get(), 10)

    async def over(self) -> None:
        """Wait until the application has returned."""
        assert self.task is not None
        async with asyncio.timeout(10):
            await asyncio.wait([self.task])

    async def response(self) -> tuple[int, dict[bytes, bytes], bytes]:
        """The status, the fields and the whole body."""
        start = await self.hear()
        assert start["type"] == "http.response.start"
        body = b""
        while True:
            message = await self.hear()
            assert message["type"] == "http.response.body"
            body += message["body"]
            if not message["more_body"]:
                return start["status"], dict(start["headers"]), body


@asynccontextmanager
async def called(app: App, scope: Message) -> AsyncGenerator[Call]:
    """Call the application, and wait for its end when the block ends."""
    call = Call()
    async with asyncio.TaskGroup() as group:
        call.task = group.create_task(app(scope, call._receive, call._send))
        try:
            yield call
        except BaseException:
            call.task.cancel()
            raise


def http(method: str = "GET", path: str = "/", /, *headers: tuple[bytes, bytes], **fields: Any) -> Message:
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"a.example"), *headers],
        "client": ("192.0.2.1", 5),
        "server": ("192.0.2.2", 80),
        "extensions": {},
        **fields,
    }


def websocket(path: str = "/", /, *headers: tuple[bytes, bytes], **fields: Any) -> Message:
    return http("GET", path, *headers, **{"type": "websocket", "scheme": "ws", "subprotocols": [], **fields})


async def ask(app: App, scope: Message, body: bytes = b"") -> tuple[int, dict[bytes, bytes], bytes]:
    """One request, and the response to it."""
    async with called(app, scope) as call:
        call.say("http.request", body=body, more_body=False)
        response = await call.response()
        await call.over()
    return response
