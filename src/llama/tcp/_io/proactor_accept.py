"""Accepting on a loop without readiness callbacks."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from llama._core.shutdown import detached_task


class ProactorAccept:
    """A listening socket with the interface of a Port, over the loop's `sock_accept`."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._accepting: asyncio.Task[tuple[socket.socket, Any]] | None = None
        self._left = False

    def accept(self) -> tuple[socket.socket, Any]:
        """Return the next connection; raises BlockingIOError if there is none yet."""
        task = self._accepting
        if task is not None and task.done() and not task.cancelled():
            self._accepting = None
            return task.result()
        if self._left:
            return self._sock.accept()
        raise BlockingIOError

    async def wait_readable(self) -> None:
        """Return when `accept` has a connection."""
        if self._accepting is None:
            self._accepting = detached_task(asyncio.get_running_loop().sock_accept(self._sock))
        await asyncio.wait((self._accepting,))

    def clear_readable(self) -> None:
        """Do nothing: `accept` keeps its own state."""

    def unregister(self, *, closing: bool = True) -> None:
        """Stop using the loop; afterwards `accept` calls accept directly."""
        self._left = True
        if self._accepting is not None:
            self._accepting.cancel()
