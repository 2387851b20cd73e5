"""What hooks see of a WebSocket that passes by."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeAlias

from llama._errors import Closed
from llama._extensions import Extensions
from llama._stream import Buffer
from llama.http import Request
from llama.ws._end import End
from llama.ws._wire import NORMAL, close_data


class Conversation:
    """A WebSocket that passes by: what hooks know of it, and their way to say something in it."""

    __slots__ = (
        "_asked", "_client", "_server", "close_code", "close_reason", "closed_by_client", "request", "subprotocol",
    )  # fmt: skip

    def __init__(self, request: Request, subprotocol: str | None, client: End, server: End) -> None:
        self.request = request
        """The request that opened it."""
        self.subprotocol = subprotocol
        """What both sides agreed on, or None."""
        self.close_code: int | None = None
        """The first close's code: 1005 if it gave none, 1006 if a side left without; None while it is open."""
        self.close_reason = ""
        self.closed_by_client: bool | None = None
        """Which side was the first to close or to leave; None while it is open, or where it was closed here."""
        self._client = client
        self._server = server
        self._asked: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def __repr__(self) -> str:
        return f"<Conversation {self.request.url}>"

    @property
    def extensions(self) -> Extensions:
        """What is known of the request; hooks may keep here what they know of this conversation."""
        return self.request.extensions

    async def send_to_client(self, data: str | Buffer) -> None:
        """Send the client what the server did not send. Raises Closed once a side has closed."""
        await self._send(self._client, data)

    async def send_to_server(self, data: str | Buffer) -> None:
        """Send the server what the client did not send. Raises Closed once a side has closed."""
        await self._send(self._server, data)

    async def _send(self, end: End, data: str | Buffer) -> None:
        if self.close_code is not None:
            raise Closed(f"{self!r} is closed")
        await end.send(data)

    def close(self, code: int = NORMAL, reason: str = "") -> None:
        """Close both sides, soon. Raises ValueError for what cannot be sent (RFC 6455 section 7.4)."""
        close_data(code, reason)
        self._note_close(code, reason)
        if not self._asked.done():
            self._asked.set_result(None)

    def _note_close(self, code: int, reason: str, by_client: bool | None = None) -> None:
        """It closes for this reason; the first one counts."""
        if self.close_code is None:
            self.close_code, self.close_reason, self.closed_by_client = code, reason, by_client


@dataclass(slots=True)
class Message:
    """A message that passes by: text as `str`, binary as `bytes`. What is assigned to `data` is passed on."""

    data: str | bytes
    from_client: bool
    conversation: Conversation


Passed: TypeAlias = Message | None
Hook: TypeAlias = Callable[[Message], Passed | Awaitable[Passed]]
"""Sees each message, and returns the one to pass on, or None to drop it; a plain function or an async one."""
Watcher: TypeAlias = Callable[[Conversation], Awaitable[None] | None]
"""Is told of a conversation; a plain function or an async one."""
