"""One connection attempt to one address, which waits only if the kernel does not connect immediately."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import sys
from collections.abc import Callable

from llama._core.stream import Stream
from llama._core.target import Target
from llama.tcp._io.bind import SocketAddress
from llama.tcp._io.open_stream import has_readiness, open_stream
from llama.tcp._io.readiness import Port
from llama.tcp._io.stream import SocketStream

_IN_PROGRESS = (errno.EINPROGRESS, errno.EALREADY)
_NON_BLOCKING = getattr(socket, "SOCK_NONBLOCK", 0)


class Dial:
    """A connection attempt; it owns its socket until the stream takes it over.

    Raises OSError for a connection that fails immediately.
    """

    __slots__ = ("_address", "_by_loop", "_code", "_sock", "_target")

    def __init__(
        self,
        family: int,
        address: SocketAddress | str,
        target: Target,
        prepare: Callable[[socket.socket], object] | None = None,
    ) -> None:
        self._address = address
        self._target = target
        self._sock = sock = socket.socket(family, socket.SOCK_STREAM | _NON_BLOCKING)
        try:
            if not _NON_BLOCKING:
                sock.setblocking(False)
            if prepare is not None:
                prepare(sock)
            # The loop connects if it has no readiness callbacks, and on Windows, whose failures never become ready.
            self._by_loop = sys.platform == "win32" or not has_readiness(asyncio.get_running_loop())
            self._code = errno.EINPROGRESS if self._by_loop else self._begin()
        except BaseException:
            sock.close()
            raise

    def _begin(self) -> int:
        code = self._sock.connect_ex(self._address)
        if (
            code == errno.EINPROGRESS
        ):  # a local connection is often complete by now: this saves a loop iteration
            code = self._sock.connect_ex(self._address)
        if code not in _IN_PROGRESS:
            _check(code)
        return code

    def stream(self) -> SocketStream | None:
        """Return the stream if the connection is complete, else None."""
        if self._code in _IN_PROGRESS:
            return None
        return SocketStream(self._sock, self._target, Port(self._sock.fileno(), readable=False))

    async def wait(self) -> Stream:
        """Return the stream once connected; on failure close the socket and raise OSError."""
        try:
            port = await (self._wait_for_loop() if self._by_loop else self._wait())
        except BaseException:
            self._sock.close()
            raise
        return open_stream(self._sock, self._target, port=port)

    async def _wait_for_loop(self) -> None:
        try:
            await asyncio.get_running_loop().sock_connect(self._sock, self._address)
        except OSError as error:  # asyncio's message repeats the address
            raise OSError(error.errno, os.strerror(error.errno or 0)) from None

    async def _wait(self) -> Port:
        port = Port(self._sock.fileno(), readable=False, writable=False)
        code = self._code
        try:
            while code in _IN_PROGRESS:
                await port.wait_writable()
                port.clear_writable()
                code = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                code = code or self._sock.connect_ex(self._address)
            _check(code)
        except BaseException:
            port.unregister()
            raise
        port.writable = True
        return port


def _check(code: int) -> None:
    if code not in (0, errno.EISCONN):
        raise OSError(code, os.strerror(code))
