"""Who tells a loop's sockets that they are ready.

On Linux the loop watches one epoll of ours, and that one watches the sockets, edge-triggered: a socket is
registered once in its life, and an event costs a dictionary look-up in place of a round through the loop's
selector, its handles and its mappings. Elsewhere the loop's own add_reader and add_writer do.
"""

from __future__ import annotations

import asyncio
import contextvars
import select
import sys
import threading
from typing import Protocol

_BATCH = 256


class Port(Protocol):
    """What a poller reports to; `llama.tcp._port` has the one there is."""

    fd: int
    hangup: bool
    registered: bool
    both: bool

    def now_readable(self) -> None:
        """There is something to read, the end and an error among it."""

    def now_writable(self) -> None:
        """There is room to write, or an error to find."""


class LoopPoller:
    """Over add_reader and add_writer, which report again and again: each is taken back when it has reported."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop

    def watch_read(self, port: Port) -> None:
        """Report once when there is something to read."""
        self.loop.add_reader(port.fd, self._read, port)

    def watch_write(self, port: Port) -> None:
        """Report once when there is room to write."""
        self.loop.add_writer(port.fd, self._write, port)

    def _read(self, port: Port) -> None:
        self.loop.remove_reader(port.fd)
        port.now_readable()

    def _write(self, port: Port) -> None:
        self.loop.remove_writer(port.fd)
        port.now_writable()

    def forget(self, port: Port, *, closing: bool) -> None:
        """Report nothing more; call it while the descriptor is open. `closing`: it will not be for long."""
        self.loop.remove_reader(port.fd)
        self.loop.remove_writer(port.fd)

    def hold(self) -> None:
        """Stay open until `drop`, while nothing is registered too."""

    async def drop(self) -> None:
        """Take `hold` back."""


if sys.platform == "linux":
    _READ = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET
    _BOTH = _READ | select.EPOLLOUT
    _GONE = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR
    _READABLE = select.EPOLLIN | select.EPOLLPRI | _GONE
    _WRITABLE = select.EPOLLOUT | select.EPOLLHUP | select.EPOLLERR

    class EpollPoller(LoopPoller):
        """An epoll within the loop's; it exists while a port is registered or someone holds it."""

        def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
            super().__init__(loop)
            self._epoll: select.epoll | None = None
            self._ports: dict[int, Port] = {}
            self._holds = 0

        def watch_read(self, port: Port) -> None:
            if not port.registered:
                self._register(port, _READ)

        def watch_write(self, port: Port) -> None:
            if not port.registered:
                self._register(port, _BOTH)
                port.both = True
            elif not port.both and self._epoll is not None:
                port.both = True
                self._epoll.modify(port.fd, _BOTH)  # which reports what is ready already

        def _register(self, port: Port, events: int) -> None:
            if self._epoll is None:
                self._epoll = select.epoll()
                # The callback must not keep alive the context of whoever came first.
                contextvars.Context().run(self.loop.add_reader, self._epoll.fileno(), self._dispatch)
            self._epoll.register(port.fd, events)
            self._ports[port.fd] = port
            port.registered = True

        def _dispatch(self) -> None:
            if self._epoll is None:
                return
            ports = self._ports
            for fd, events in self._epoll.poll(0, _BATCH):
                port = ports.get(fd)
                if port is None:
                    continue
                # A number that was closed and taken again in this batch gets a report that is not its own,
                # which costs it one call that would block.
                try:
                    if events & _GONE:
                        port.hangup = True
                    if events & _READABLE:
                        port.now_readable()
                    if events & _WRITABLE:
                        port.now_writable()
                except Exception as error:
                    context = {"message": "a readiness callback failed", "exception": error}
                    self.loop.call_exception_handler(context)

        def forget(self, port: Port, *, closing: bool) -> None:
            if port.registered and self._epoll is not None:
                port.registered = port.both = False
                del self._ports[port.fd]
                if not closing:  # closing it takes it out of the epoll too
                    self._epoll.unregister(port.fd)
                if not self._ports:
                    self._close_unused()

        def hold(self) -> None:
            self._holds += 1

        async def drop(self) -> None:
            self._holds -= 1
            self._close_unused()

        def _close_unused(self) -> None:
            if not self._ports and self._holds <= 0 and self._epoll is not None:
                self.loop.remove_reader(self._epoll.fileno())
                self._epoll.close()
                self._epoll = None


class _Current(threading.local):
    loop: asyncio.AbstractEventLoop | None = None
    poller: LoopPoller | None = None


_current = _Current()


def poller() -> LoopPoller:
    """The running loop's poller."""
    loop = asyncio.get_running_loop()
    if _current.loop is not loop or _current.poller is None:
        _current.loop = loop
        _current.poller = EpollPoller(loop) if sys.platform == "linux" else LoopPoller(loop)
    return _current.poller
