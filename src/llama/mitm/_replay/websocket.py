"""A WebSocket that was recorded, spoken again by its server's side."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from llama import ws
from llama._core.errors import StreamClosedError
from llama.http import RequestHandler
from llama.mitm._records import Recorded

Data: TypeAlias = str | bytes
Unexpected: TypeAlias = Callable[[Data, Data | None], object]
"""Is told what a client said, and what it had said when it was recorded, None for nothing."""
_POLICY = 1008
_NO_CODES = frozenset({1004, 1005, 1006, 1015})


def is_websocket(recorded: Recorded) -> bool:
    """Whether an exchange opened a WebSocket."""
    said = bool(recorded.messages or recorded.close_code)
    return said or (recorded.status == 101 and "sec-websocket-accept" in recorded.response_headers)


def replay_websocket(
    recorded: Recorded, clean: Callable[[Data], Data], unexpected: Unexpected
) -> RequestHandler:
    """Answers a request for a WebSocket: what the server had said comes once the client has said its part.

    The client's messages are compared as `clean` makes them; one that is another closes with 1008.
    """

    async def speak(socket: ws.WebSocket) -> None:
        for message in recorded.messages:
            if not message.from_client:
                await socket.send(message.data)
                continue
            try:
                said = clean(await socket.receive())
            except StreamClosedError:
                return
            if said != message.data:
                await _refuse(socket, unexpected, said, message.data)
                return
        if recorded.closed_by_client is False:
            code = recorded.close_code
            await socket.close(1000 if code in _NO_CODES or not code else code)
            return
        async for more in socket:
            await _refuse(socket, unexpected, clean(more), None)
            return

    agreed = recorded.response_headers.get("sec-websocket-protocol")
    return ws.server(subprotocols=() if agreed is None else (agreed,))(speak)


async def _refuse(socket: ws.WebSocket, unexpected: Unexpected, said: Data, expected: Data | None) -> None:
    unexpected(said, expected)
    await socket.close(_POLICY, "this message was not recorded")
