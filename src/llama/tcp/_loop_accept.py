"""Accepting on a loop that reports no readiness."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from llama._shutdown import own_task


class LoopAccept:
    """A listening socket's readiness and its `take`, by asking the loop for one connection after the other."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._accepting: asyncio.Task[tuple[socket.socket, Any]] | None = None
        self._left = False

    def take(self) -> tuple[socket.socket, Any]:
        """The next connection; BlockingIOError when it is still to come."""
        task = self._accepting
        if task is not None and task.done() and not task.cancelled():
            self._accepting = None
            return task.result()
        if self._left:
            return self._sock.accept()
        raise BlockingIOError

    async def wait_readable(self) -> None:
        """Return when `take` has something."""
        if self._accepting is None:
            self._accepting = own_task(asyncio.get_running_loop().sock_accept(self._sock))
        await asyncio.wait((self._accepting,))

    def unreadable(self) -> None:
        """A take would block."""

    def leave(self, *, closing: bool = True) -> None:
        """Ask the loop no more; `take` then asks the system."""
        self._left = True
        if self._accepting is not None:
            self._accepting.cancel()
