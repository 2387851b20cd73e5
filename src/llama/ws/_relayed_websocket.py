"""A proxied WebSocket and its messages, as hooks see them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeAlias

from llama._core.errors import StreamClosedError
from llama._core.extensions import Extensions
from llama._core.stream import Buffer
from llama.http import Request
from llama.ws._framed_endpoint import FramedEndpoint
from llama.ws._wire import NORMAL, close_data


class RelayedWebSocket:
    """A proxied WebSocket, with methods for hooks to send messages and to close it."""

    __slots__ = (
        "_asked", "_client", "_server", "close_code", "close_reason", "closed_by_client", "request", "subprotocol",
    )  # fmt: skip

    def __init__(
        self, request: Request, subprotocol: str | None, client: FramedEndpoint, server: FramedEndpoint
    ) -> None:
        self.request = request
        """The request that opened it."""
        self.subprotocol = subprotocol
        """The negotiated subprotocol, or None."""
        self.close_code: int | None = None
        """The code of the first close: 1005 if it had none, 1006 after a disconnect without close; None while open."""
        self.close_reason = ""
        self.closed_by_client: bool | None = None
        """Whether the client closed or disconnected first; None while open, or if the proxy closed first."""
        self._client = client
        self._server = server
        self._asked: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def __repr__(self) -> str:
        return f"<Conversation {self.request.url}>"

    @property
    def extensions(self) -> Extensions:
        """The extensions of the request; hooks may store their own state here."""
        return self.request.extensions

    async def send_to_client(self, data: str | Buffer) -> None:
        """Send the client a message of the hook's own. Raises StreamClosedError once either side has closed."""
        await self._send(self._client, data)

    async def send_to_server(self, data: str | Buffer) -> None:
        """Send the server a message of the hook's own. Raises StreamClosedError once either side has closed."""
        await self._send(self._server, data)

    async def _send(self, end: FramedEndpoint, data: str | Buffer) -> None:
        if self.close_code is not None:
            raise StreamClosedError(f"{self!r} is closed")
        await end.send(data)

    def close(self, code: int = NORMAL, reason: str = "") -> None:
        """Begin to close both sides. Raises ValueError for an invalid code or reason (RFC 6455 section 7.4)."""
        close_data(code, reason)
        self._note_close(code, reason)
        if not self._asked.done():
            self._asked.set_result(None)

    def _note_close(self, code: int, reason: str, by_client: bool | None = None) -> None:
        """Record why it closes; only the first call has an effect."""
        if self.close_code is None:
            self.close_code, self.close_reason, self.closed_by_client = code, reason, by_client


@dataclass(slots=True)
class Message:
    """A proxied message: text as `str`, binary as `bytes`. Assign to `data` to change it."""

    data: str | bytes
    from_client: bool
    websocket: RelayedWebSocket


HookResult: TypeAlias = Message | None
Hook: TypeAlias = Callable[[Message], HookResult | Awaitable[HookResult]]
"""Receives each message and returns the one to forward, or None to drop it; may be async."""
LifecycleHook: TypeAlias = Callable[[RelayedWebSocket], Awaitable[None] | None]
"""Called with a conversation when it opens or closes; may be async."""
