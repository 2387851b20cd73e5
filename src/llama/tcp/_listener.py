"""The TCP and Unix listener: its accept loop, and one task of the current Shutdown for each connection."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

from llama._core.errors import ConfigError, LlamaError, TruncatedError
from llama._core.server import PeerAddress, Server, should_close_gracefully
from llama._core.shutdown import Shutdown
from llama._core.stack import check_accepts, describe
from llama._core.stream import ConnectionHandler, Stream
from llama.tcp._io.bind import bind
from llama.tcp._io.open_stream import has_readiness, open_stream
from llama.tcp._io.proactor_accept import ProactorAccept
from llama.tcp._io.proactor_stream import ProactorStream
from llama.tcp._io.reactor import LoopReactor, current_reactor
from llama.tcp._io.readiness import Port
from llama.tcp._io.stream import SocketStream
from llama.tcp._tproxy import TagListenerPort, enable_transparent

log = logging.getLogger("llama.server")
ACCEPT_BATCH = 64
EMFILE_DELAY = 0.25
_NO_DESCRIPTORS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class TcpServer(Server):
    """Accepts TCP or Unix connections and passes each to a handler."""

    listen_address: str | int | tuple[str, int] | socket.socket
    handler: ConnectionHandler
    backlog: int
    transparent: bool = False

    def __repr__(self) -> str:
        return f"tcp.server({self.address})"

    @property
    def address(self) -> str:
        if isinstance(self.listen_address, tuple):
            return str(PeerAddress(*self.listen_address))
        return (
            f"fd:{self.listen_address.fileno()}"
            if isinstance(self.listen_address, socket.socket)
            else str(self.listen_address)
        )

    @property
    def service(self) -> ConnectionHandler:
        return self.handler

    def bind(
        self, *, reuse_port: bool = False, same_ports_as: Sequence[socket.socket] = ()
    ) -> list[socket.socket]:
        bound = bind(self.listen_address, self.backlog, reuse_port=reuse_port, same_ports_as=same_ports_as)
        if self.transparent:
            try:
                enable_transparent(bound)
            except BaseException:
                for each in bound:
                    each.close()
                raise
        return bound

    async def serve(self, sockets: Sequence[socket.socket], shutdown: Shutdown) -> None:
        gates = _admission_checks(self.handler)
        chain = describe(self.handler)
        held = current_reactor()
        held.acquire()
        shutdown.on_close(held.release)
        async with asyncio.TaskGroup() as group:
            for each in sockets:
                handler = (
                    TagListenerPort(self.handler, each.getsockname()[1]) if self.transparent else self.handler
                )
                acceptor = _Acceptor(each, handler, shutdown, gates, chain)
                task = group.create_task(acceptor.run(), name=f"accept {self.address}")
                acceptor.stop_with(task, self.backlog)


def server(
    address: str | int | tuple[str, int] | socket.socket,
    handler: ConnectionHandler,
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
    check_accepts(handler, Stream, "tcp.server()")
    if transparent and isinstance(address, str) and address.startswith("unix:"):
        raise ConfigError(f"tcp.server({address!r}, transparent=True): expected a TCP address")
    return TcpServer(address, handler, backlog, transparent)


def _admission_checks(handler: object) -> tuple[Callable[[], Awaitable[None]], ...]:
    """Return the `ready` methods of the chain, outermost first."""
    found: list[Callable[[], Awaitable[None]]] = []
    while handler is not None:
        ready: Callable[[], Awaitable[None]] | None = getattr(handler, "ready", None)
        if callable(ready):
            found.append(ready)
        handler = getattr(handler, "inner", None)
    return tuple(found)


def _fast_acceptor(listener: socket.socket) -> Callable[[], tuple[socket.socket, Any]]:
    """Return a faster `listener.accept`, which does not convert family and type to enumerations each time."""
    take = cast("Callable[[], tuple[int, Any]]", listener._accept)  # type: ignore[attr-defined]
    family, kind = int(listener.family), int(listener.type)

    def accept() -> tuple[socket.socket, Any]:
        descriptor, address = take()
        return socket.socket(family, kind, 0, descriptor), address

    return accept


def _acceptor_for(
    sock: socket.socket, by: LoopReactor
) -> tuple[Port | ProactorAccept, Callable[[], tuple[socket.socket, Any]]]:
    """Return the readiness of a listening socket, and a function that accepts a connection."""
    if not has_readiness(by.loop):
        asking = ProactorAccept(sock)
        return asking, asking.accept
    return Port(sock.fileno(), by=by), _fast_acceptor(sock) if hasattr(sock, "_accept") else sock.accept


def _abort(stream: SocketStream | ProactorStream) -> Callable[[object], None]:
    return lambda _: stream.abort()


class _Acceptor:
    """Accepts on one socket until it is cancelled."""

    def __init__(
        self,
        sock: socket.socket,
        handler: ConnectionHandler,
        shutdown: Shutdown,
        checks: tuple[Callable[[], Awaitable[None]], ...],
        chain: str,
    ) -> None:
        self._sock = sock
        self._handler = handler
        self._shutdown = shutdown
        self._checks = checks
        self._chain = chain
        self._burst = 1 if checks else ACCEPT_BATCH
        self._poller = current_reactor()
        self._port, self._accept_socket = _acceptor_for(sock, self._poller)
        self._short_of_descriptors = False

    def stop_with(self, task: asyncio.Task[None], backlog: int) -> None:
        """On stop, accept the connections in the kernel's queue: closing the socket would reset them.

        A task that is cancelled before that leaves the queue to the process that shares the socket.
        """

        def stop() -> None:
            if task.cancel():
                self._port.unregister(
                    closing=False
                )  # immediately: the socket may be closed before the task ends
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
                for ready in self._checks:
                    await ready()
                try:
                    self._accept()
                except BlockingIOError:
                    self._port.clear_readable()
                    await self._port.wait_readable()
                except OSError as error:
                    await self._recover(error)
                else:
                    await asyncio.sleep(0)
        finally:
            self._port.unregister(closing=False)

    def _accept(self) -> None:
        for _ in range(self._burst):
            self._accept_one()

    def _accept_one(self) -> tuple[asyncio.Task[None], SocketStream | ProactorStream]:
        sock, address = self._accept_socket()
        self._short_of_descriptors = False
        sock.setblocking(False)
        peer = PeerAddress(address[0], address[1]) if isinstance(address, tuple) else PeerAddress("unix", 0)
        stream = open_stream(sock, peer, reactor=self._poller)
        stream.extensions.set(peer)
        stream.extensions.set(sock)  # for its local address and its options
        return self._shutdown.spawn(self._connection(stream)), stream

    async def _recover(self, error: OSError) -> None:
        if error.errno not in _NO_DESCRIPTORS:  # the connection died in the queue
            return
        if not self._short_of_descriptors:
            self._short_of_descriptors = True
            log.error("%s: accepting is paused: %s", self._sock.getsockname(), error)
        await asyncio.sleep(EMFILE_DELAY)

    async def _connection(self, stream: SocketStream | ProactorStream) -> None:
        try:
            await self._handler(stream)
            await stream.aclose()
        except Exception as error:
            self._report(stream, error)
            if should_close_gracefully(error):
                await stream.aclose()  # orderly, so that the last bytes, such as an alert, arrive
        finally:
            stream.abort()  # a reset, so that the peer sees an error

    def _report(self, stream: SocketStream | ProactorStream, error: Exception) -> None:
        peer = str(stream.peer)
        extra = {"client.address": peer, "error.type": type(error).__name__}
        if isinstance(error, (ConnectionResetError, BrokenPipeError, ConnectionAbortedError, TruncatedError)):
            log.info("%s: %s [%s]", peer, error, self._chain, extra=extra)
        elif isinstance(error, (LlamaError, TimeoutError, OSError)):
            text = str(error) or type(error).__name__
            log.warning("%s: %s [%s]", peer, text, self._chain, extra=extra)
        else:
            log.error("%s: %r [%s]", peer, error, self._chain, exc_info=error, extra=extra)
