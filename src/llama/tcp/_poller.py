"""Who tells a loop's sockets that they are ready.

On Linux an epoll of ours watches the sockets, edge-triggered: a socket is registered once in its life, and an
event costs a dictionary look-up in place of a round through the loop's selector, its handles and its mappings.
In a loop of `new_event_loop` that epoll is the one the loop waits on, elsewhere the loop watches it. Where
there is no epoll the loop's own add_reader and add_writer do.
"""

from __future__ import annotations

import asyncio
import contextvars
import select
import sys
import threading
import weakref
from time import monotonic
from typing import Protocol

_BATCH = 256
_HELD = 0.002  # seconds that a message may wait for others of its round


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

    def now_broken(self) -> None:
        """The connection broke."""


class Sender(Protocol):
    """What has something to send at the end of a round."""

    def send_taken(self) -> None:
        """Send it."""


class LoopPoller:
    """Over add_reader and add_writer, which report again and again: each is taken back when it has reported."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.senders: list[Sender] = []
        self._first = 0.0

    def send_soon(self, sender: Sender) -> None:
        """Have it send when this round of the loop is over, or after a while of it."""
        senders = self.senders
        senders.append(sender)
        if len(senders) == 1:
            self._first = monotonic()
            self._at_end()
        elif monotonic() - self._first > _HELD:
            self.send_all()

    def send_all(self) -> None:
        """The round is over."""
        senders, self.senders = self.senders, []
        for each in senders:
            each.send_taken()

    def _at_end(self) -> None:
        self.loop.call_soon(self.send_all)

    def watch_read(self, port: Port) -> None:
        """Report once when there is something to read."""
        self.loop.add_reader(port.fd, self._read, port)

    def watch_write(self, port: Port) -> None:
        """Report once when there is room to write."""
        self.loop.add_writer(port.fd, self._write, port)

    def watch_break(self, port: Port) -> None:
        """Report when the connection breaks; here only a read tells."""

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

    class Ports:
        """The ports in one epoll, by descriptor."""

        def __init__(self, epoll: select.epoll) -> None:
            self.epoll = epoll
            self._ports: dict[int, Port] = {}

        def __len__(self) -> int:
            return len(self._ports)

        def add(self, port: Port, *, both: bool = False) -> None:
            """Register a descriptor; what is ready already is reported."""
            self.epoll.register(port.fd, _BOTH if both else _READ)
            self._ports[port.fd] = port
            port.registered, port.both = True, both

        def add_write(self, port: Port) -> None:
            """Report room to write too, what there is already among it."""
            port.both = True
            self.epoll.modify(port.fd, _BOTH)

        def remove(self, port: Port, *, closing: bool) -> None:
            """Report a descriptor no more."""
            port.registered = port.both = False
            del self._ports[port.fd]
            if not closing:  # closing it takes it out of the epoll too
                self.epoll.unregister(port.fd)

        def report(self, fd: int, events: int) -> None:
            """Tell a port.

            A number that was closed and taken again in one batch gets a report that is not its own, which
            costs it one call that would block.
            """
            port = self._ports.get(fd)
            if port is None:
                return
            if events == select.EPOLLIN:
                port.now_readable()
                return
            if events & _GONE:
                port.hangup = True
                if events & select.EPOLLERR:
                    port.now_broken()
            if events & _READABLE:
                port.now_readable()
            if events & _WRITABLE:
                port.now_writable()

    class EpollPoller(LoopPoller):
        """An epoll that the loop watches; it exists while a port is registered or someone holds it."""

        def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
            super().__init__(loop)
            self._holds = 0
            self._open: Ports | None = None

        def watch_read(self, port: Port) -> None:
            if not port.registered:
                self._ports().add(port)

        def watch_break(self, port: Port) -> None:
            self._ports().add(port)

        def watch_write(self, port: Port) -> None:
            if not port.registered:
                self._ports().add(port, both=True)
            elif not port.both:
                self._ports().add_write(port)

        def forget(self, port: Port, *, closing: bool) -> None:
            if port.registered and self._open is not None:
                self._open.remove(port, closing=closing)
                if not len(self._open):
                    self._close_unused()

        def hold(self) -> None:
            self._holds += 1

        async def drop(self) -> None:
            self._holds -= 1
            self._close_unused()

        def _ports(self) -> Ports:
            if self._open is None:
                self._open = Ports(select.epoll())
                # The callback must not keep alive the context of whoever came first.
                contextvars.Context().run(self.loop.add_reader, self._open.epoll.fileno(), self._dispatch)
            return self._open

        def _dispatch(self) -> None:
            ports = self._open
            if ports is None:
                return
            for fd, events in ports.epoll.poll(0, _BATCH):
                try:
                    ports.report(fd, events)
                except Exception as error:
                    context = {"message": "a readiness callback failed", "exception": error}
                    self.loop.call_exception_handler(context)

        def _close_unused(self) -> None:
            if self._open is not None and not len(self._open) and self._holds <= 0:
                self.loop.remove_reader(self._open.epoll.fileno())
                self._open.epoll.close()
                self._open = None

    class OwnPoller(EpollPoller):
        """The epoll that the loop itself waits on, which is open as long as the loop."""

        def __init__(self, loop: asyncio.AbstractEventLoop, ports: Ports) -> None:
            super().__init__(loop)
            self._open = ports

        def _at_end(self) -> None:
            pass  # the loop's selector sees to it

        def _close_unused(self) -> None:
            pass


class _Current(threading.local):
    loop: asyncio.AbstractEventLoop | None = None
    poller: LoopPoller | None = None


_current = _Current()
_own: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, LoopPoller] = weakref.WeakKeyDictionary()


def adopt(poller: LoopPoller) -> None:
    """Use this poller in its loop from now on."""
    _own[poller.loop] = poller


def poller() -> LoopPoller:
    """The running loop's poller."""
    loop = asyncio.get_running_loop()
    if _current.loop is not loop or _current.poller is None:
        if (found := _own.get(loop)) is None:
            found = EpollPoller(loop) if sys.platform == "linux" else LoopPoller(loop)
        _current.loop, _current.poller = loop, found
    return _current.poller
