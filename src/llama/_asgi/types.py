"""The types of ASGI; its messages are dictionaries with values of any type."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

Scope: TypeAlias = MutableMapping[str, Any]
Event: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Event]]
Send: TypeAlias = Callable[[Event], Awaitable[None]]
Application: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]


class ASGIProtocolError(RuntimeError):
    """The application sent a message out of order."""

    def __init__(self, kind: str, when: str) -> None:
        super().__init__(f"the application sent {kind!r} {when}")
