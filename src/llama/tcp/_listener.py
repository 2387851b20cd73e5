"""The TCP and Unix listener: its accept loop, and one task of the current Shutdown for each connection."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

from llama._core.errors import ConfigError, LlamaError, Truncated
from llama._core.server import Peer, Server, is_orderly
from llama._core.shutdown import Shutdown
from llama._core.stack import check_takes, describe
from llama._core.stream import Handler, Stream
from llama.tcp._io.bind import bind
from llama.tcp._io.open_stream import has_readiness, open_stream
from llama.tcp._io.proactor_accept import LoopAccept
from llama.tcp._io.proactor_stream import LoopSocketStream
from llama.tcp._io.reactor import LoopPoller, poller
from llama.tcp._io.readiness import Port
from llama.tcp._io.stream import SocketStream
from llama.tcp._tproxy import LedHere, take_any

log = logging.getLogger("llama.server")
BURST = 64
PAUSE = 0.25
_NO_DESCRIPTORS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class TcpServer(Server):
    """Accepts TCP or Unix connections and passes each to a handler."""

    where: str | int | tuple[str, int] | socket.socket
    handler: Handler
    backlog: int
    transparent: bool = False

    def __repr__(self) -> str:
        return f"tcp.server({self.address})"

    @property
    def address(self) -> str:
        if isinstance(self.where, tuple):
            return str(Peer(*self.where))
        return f"fd:{self.where.fileno()}" if isinstance(self.where, socket.socket) else str(self.where)

    @property
    def service(self) -> Handler:
        return self.handler

    def bind(self, *, shared: bool = False, like: Sequence[socket.socket] = ()) -> list[socket.socket]:
        bound = bind(self.where, self.backlog, shared=shared, like=like)
        if self.transparent:
            try:
                take_any(bound)
            except BaseException:
                for each in bound:
                    each.close()
                raise
        return bound

    async def serve(self, sockets: Sequence[socket.socket], shutdown: Shutdown) -> None:
        gates = _gates(self.handler)
        chain = describe(self.handler)
        held = poller()
        held.hold()
        shutdown.on_close(held.drop)
        async with asyncio.TaskGroup() as group:
            for each in sockets:
                handler = LedHere(self.handler, each.getsockname()[1]) if self.transparent else self.handler
                acceptor = _Acceptor(each, handler, shutdown, gates, chain)
                task = group.create_task(acceptor.run(), name=f"accept {self.address}")
                acceptor.stop_with(task, self.backlog)


def server(
    address: str | int | tuple[str, int] | socket.socket,
    handler: Handler,
    *,
    backlog: int = 4096,
    transparent: bool = False,
) -> TcpServer:
    """Accept connections on an address and call a handler for each.

    The address is `HOST:PORT`, `:PORT` for all IPv4 and IPv6 addresses, a port (0: any free one), `unix:PATH`,
    `fd:N`, or an inherited bound socket. `backlog` is the size of the kernel's queue. `transparent` accepts
    connections to any address that a TPROXY rule redirects here (Linux, with the capability NET_ADMIN; for
    `tcp.transparent()`). Raises TypeError if the handler does not take a stream.
    """
    check_takes(handler, Stream, "tcp.server()")
    if transparent and isinstance(address, str) and address.startswith("unix:"):
        raise ConfigError(f"tcp.server({address!r}, transparent=True): expected a TCP address")
    return TcpServer(address, handler, backlog, transparent)


def _gates(handler: object) -> tuple[Callable[[], Awaitable[None]], ...]:
    """Return the `ready` methods of the chain, outermost first."""
    found: list[Callable[[], Awaitable[None]]] = []
    while handler is not None:
        ready: Callable[[], Awaitable[None]] | None = getattr(handler, "ready", None)
        if callable(ready):
            found.append(ready)
        handler = getattr(handler, "inner", None)
    return tuple(found)


def _quick_accept(listener: socket.socket) -> Callable[[], tuple[socket.socket, Any]]:
    """Return a faster `listener.accept`, which does not convert family and type to enumerations each time."""
    take = cast("Callable[[], tuple[int, Any]]", listener._accept)  # type: ignore[attr-defined]
    family, kind = int(listener.family), int(listener.type)

    def accept() -> tuple[socket.socket, Any]:
        descriptor, address = take()
        return socket.socket(family, kind, 0, descriptor), address

    return accept


def _ways(
    sock: socket.socket, by: LoopPoller
) -> tuple[Port | LoopAccept, Callable[[], tuple[socket.socket, Any]]]:
    """Return the readiness of a listening socket, and a function that accepts a connection."""
    if not has_readiness(by.loop):
        asking = LoopAccept(sock)
        return asking, asking.take
    return Port(sock.fileno(), by=by), _quick_accept(sock) if hasattr(sock, "_accept") else sock.accept


def _abort(stream: SocketStream | LoopSocketStream) -> Callable[[object], None]:
    return lambda _: stream.abort()


class _Acceptor:
    """Accepts on one socket until it is cancelled."""

    def __init__(
        self,
        sock: socket.socket,
        handler: Handler,
        shutdown: Shutdown,
        gates: tuple[Callable[[], Awaitable[None]], ...],
        chain: str,
    ) -> None:
        self._sock = sock
        self._handler = handler
        self._shutdown = shutdown
        self._gates = gates
        self._chain = chain
        self._burst = 1 if gates else BURST
        self._poller = poller()
        self._port, self._take = _ways(sock, self._poller)
        self._short_of_descriptors = False

    def stop_with(self, task: asyncio.Task[None], backlog: int) -> None:
        """On stop, accept the connections in the kernel's queue: closing the socket would reset them.

        A task that is cancelled before that leaves the queue to the process that shares the socket.
        """

        def stop() -> None:
            if task.cancel():
                self._port.leave(closing=False)  # immediately: the socket may be closed before the task ends
                self._take_queued(backlog)

        task.add_done_callback(lambda _: forget())
        forget = self._shutdown.on_stop(stop)

    def _take_queued(self, backlog: int) -> None:
        for _ in range(backlog + 1):
            try:
                task, stream = self._accept_one()
                task.add_done_callback(
                    _abort(stream)
                )  # a task that is cancelled before its first step would not close the stream
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _NO_DESCRIPTORS:
                    log.error(
                        "%s: lost the connections in the listen queue: %s", self._sock.getsockname(), error
                    )
                    return

    async def run(self) -> None:
        try:
            while True:
                for ready in self._gates:
                    await ready()
                try:
                    self._accept()
                except BlockingIOError:
                    self._port.unreadable()
                    await self._port.wait_readable()
                except OSError as error:
                    await self._recover(error)
                else:
                    await asyncio.sleep(0)
        finally:
            self._port.leave(closing=False)

    def _accept(self) -> None:
        for _ in range(self._burst):
            self._accept_one()

    def _accept_one(self) -> tuple[asyncio.Task[None], SocketStream | LoopSocketStream]:
        sock, address = self._take()
        self._short_of_descriptors = False
        sock.setblocking(False)
        peer = Peer(address[0], address[1]) if isinstance(address, tuple) else Peer("unix", 0)
        stream = open_stream(sock, peer, by=self._poller)
        stream.extensions.set(peer)
        stream.extensions.set(sock)  # for its local address and its options
        return self._shutdown.spawn(self._connection(stream)), stream

    async def _recover(self, error: OSError) -> None:
        if error.errno not in _NO_DESCRIPTORS:  # the connection died in the queue
            return
        if not self._short_of_descriptors:
            self._short_of_descriptors = True
            log.error("%s: accepting is paused: %s", self._sock.getsockname(), error)
        await asyncio.sleep(PAUSE)

    async def _connection(self, stream: SocketStream | LoopSocketStream) -> None:
        try:
            await self._handler(stream)
            await stream.aclose()
        except Exception as error:
            self._report(stream, error)
            if is_orderly(error):
                await stream.aclose()  # orderly, so that the last bytes, such as an alert, arrive
        finally:
            stream.abort()  # a reset, so that the peer sees an error

    def _report(self, stream: SocketStream | LoopSocketStream, error: Exception) -> None:
        peer = str(stream.peer)
        extra = {"client.address": peer, "error.type": type(error).__name__}
        if isinstance(error, (ConnectionResetError, BrokenPipeError, ConnectionAbortedError, Truncated)):
            log.info("%s: %s [%s]", peer, error, self._chain, extra=extra)
        elif isinstance(error, (LlamaError, TimeoutError, OSError)):
            text = str(error) or type(error).__name__
            log.warning("%s: %s [%s]", peer, text, self._chain, extra=extra)
        else:
            log.error("%s: %r [%s]", peer, error, self._chain, exc_info=error, extra=extra)
