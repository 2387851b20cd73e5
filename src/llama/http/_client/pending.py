"""A connect attempt that several requests wait for."""

from __future__ import annotations

import asyncio

from llama._core.errors import TLSError, UnreachableError


class PendingConnection:
    """A connect attempt that other requests wait for, because they may be able to share the connection."""

    __slots__ = ("error", "future")

    def __init__(self) -> None:
        self.future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.error: UnreachableError | TLSError | None = None
        """The error of the connect attempt, if it applies to all waiting requests; else None."""
