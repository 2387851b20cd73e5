"""The poller of an event loop: it reports to ports (`llama.tcp._io.readiness`) when their descriptors are ready.

Situations to handle: a socket becomes readable while no read is pending, a callback closes other sockets whose
events are in the same batch, the kernel reuses their descriptor numbers, and a callback raises. Failures to
rule out: a lost wake-up, a busy loop over a descriptor that nothing reads, a callback for a closed socket,
or one failing callback that stops the others of its batch.

- On Linux all sockets of a loop are in one epoll, edge-triggered. A socket is registered once in its life
  instead of once for each wait, and an event costs one dictionary look-up. The alternative, the loop's
  add_reader and add_writer, costs a system call and a new Handle for each wait, and a pass through the
  selector's key map and the loop's ready queue for each event; asyncio's transports cost more again.
- An edge is reported once. A port therefore remembers readiness until a system call returns EAGAIN; only then
  does it wait for the next edge. This is why no wake-up is lost and why an unread socket does not spin.
- EPOLLOUT is added on the first write that would block and stays: most sockets never need it.
- EPOLLRDHUP sets `hangup`: one more read returns the end or the error, even after a short read.
- A descriptor leaves the table before it is closed. If its number is reused within one batch of events, the
  new port gets one spurious report, which costs one call that returns EAGAIN.
- Each report is guarded: an exception goes to the loop's exception handler, and the batch continues.
- `new_event_loop` makes loops whose selector waits on this epoll directly (`SelectorReactor`). In other loops, uvloop
  included, the loop watches the epoll's own descriptor (`EpollReactor`), which costs one more system call.
- Without epoll, `LoopReactor` uses add_reader and add_writer, which are level-triggered: each is removed when it
  has reported, and added again when the port waits.
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

_BATCH = 256  # events of one epoll_wait
_MAX_COALESCE_DELAY = 0.002  # seconds that a queued message may wait for others of the same iteration


class Port(Protocol):
    """The receiver of a poller's reports, implemented by `llama.tcp._io.readiness.Port`."""

    fd: int
    hangup: bool
    registered: bool
    both: bool

    def handle_readable(self) -> None:
        """A read will not block: there are bytes, the end of the stream, or an error."""

    def handle_writable(self) -> None:
        """A write will not block: there is room, or an error."""

    def handle_hangup(self) -> None:
        """The connection broke."""


class Sender(Protocol):
    """An object that sends queued bytes at the end of a loop iteration."""

    def flush_buffered(self) -> None:
        """Send the queued bytes."""


class LoopReactor:
    """A poller over add_reader and add_writer, which are level-triggered: each is removed when it has reported."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.senders: list[Sender] = []
        self._first = 0.0

    def send_soon(self, sender: Sender) -> None:
        """Call `sender.flush_buffered()` at the end of this loop iteration, or earlier if the iteration is long."""
        senders = self.senders
        senders.append(sender)
        if len(senders) == 1:
            self._first = monotonic()
            self._at_end()
        elif monotonic() - self._first > _MAX_COALESCE_DELAY:
            self.send_all()

    def send_all(self) -> None:
        """Let all senders send, at the end of the iteration."""
        senders, self.senders = self.senders, []
        for each in senders:
            each.flush_buffered()

    def _at_end(self) -> None:
        self.loop.call_soon(self.send_all)

    def watch_read(self, port: Port) -> None:
        """Report once when a read will not block."""
        self.loop.add_reader(port.fd, self._read, port)

    def watch_write(self, port: Port) -> None:
        """Report once when a write will not block."""
        self.loop.add_writer(port.fd, self._write, port)

    def watch_break(self, port: Port) -> None:
        """Report when the connection breaks. Does nothing here: add_reader does not distinguish a break."""

    def _read(self, port: Port) -> None:
        self.loop.remove_reader(port.fd)
        port.handle_readable()

    def _write(self, port: Port) -> None:
        self.loop.remove_writer(port.fd)
        port.handle_writable()

    def unregister(self, port: Port, *, closing: bool) -> None:
        """Stop reporting; call this while the descriptor is open. `closing`: the caller closes it next."""
        self.loop.remove_reader(port.fd)
        self.loop.remove_writer(port.fd)

    def acquire(self) -> None:
        """Keep the poller open until `release`, even without registered ports."""

    async def release(self) -> None:
        """Undo one `acquire`."""


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
            """Register a descriptor; readiness that exists already is reported."""
            self.epoll.register(port.fd, _BOTH if both else _READ)
            self._ports[port.fd] = port
            port.registered, port.both = True, both

        def add_write(self, port: Port) -> None:
            """Report room to write too, including room that exists already."""
            port.both = True
            self.epoll.modify(port.fd, _BOTH)

        def remove(self, port: Port, *, closing: bool) -> None:
            """Stop reporting a descriptor."""
            port.registered = port.both = False
            del self._ports[port.fd]
            if not closing:  # close() removes it from the epoll too, which saves this system call
                self.epoll.unregister(port.fd)

        def report(self, fd: int, events: int) -> None:
            """Report an event to its port.

            A descriptor number that was closed and reused within one batch gets a report of its predecessor,
            which costs one call that returns EAGAIN.
            """
            port = self._ports.get(fd)
            if port is None:
                return
            if events == select.EPOLLIN:
                port.handle_readable()
                return
            if events & _GONE:
                port.hangup = True
                if events & select.EPOLLERR:
                    port.handle_hangup()
            if events & _READABLE:
                port.handle_readable()
            if events & _WRITABLE:
                port.handle_writable()

    class EpollReactor(LoopReactor):
        """An epoll whose descriptor the loop watches; it is open while a port is registered or `acquire` is active."""

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

        def unregister(self, port: Port, *, closing: bool) -> None:
            if port.registered and self._open is not None:
                self._open.remove(port, closing=closing)
                if not len(self._open):
                    self._close_unused()

        def acquire(self) -> None:
            self._holds += 1

        async def release(self) -> None:
            self._holds -= 1
            self._close_unused()

        def _ports(self) -> Ports:
            if self._open is None:
                self._open = Ports(select.epoll())
                # An empty context: the callback must not keep the context of the first caller alive.
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

    class SelectorReactor(EpollReactor):
        """The epoll that the loop itself waits on, which stays open as long as the loop."""

        def __init__(self, loop: asyncio.AbstractEventLoop, ports: Ports) -> None:
            super().__init__(loop)
            self._open = ports

        def _at_end(self) -> None:
            pass  # PortSelector calls send_all

        def _close_unused(self) -> None:
            pass


class _Current(threading.local):
    loop: asyncio.AbstractEventLoop | None = None
    poller: LoopReactor | None = None


_current = _Current()
_own: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, LoopReactor] = weakref.WeakKeyDictionary()


def set_current(poller: LoopReactor) -> None:
    """Make this the poller of its loop."""
    _own[poller.loop] = poller


def current_reactor() -> LoopReactor:
    """Return the running loop's poller."""
    loop = asyncio.get_running_loop()
    if _current.loop is not loop or _current.poller is None:
        if (found := _own.get(loop)) is None:
            found = EpollReactor(loop) if sys.platform == "linux" else LoopReactor(loop)
        _current.loop, _current.poller = loop, found
    return _current.poller
