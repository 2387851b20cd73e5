"""The connection pool of an HTTP client: reuses connections, limits their number, and queues requests at the limit.

What can happen: a server closes an idle connection while a request takes it; a connect attempt fails or is cancelled;
requests arrive before it is known whether their origin speaks HTTP/2; a waiting request is cancelled in the very loop
iteration that hands it a connection. What must never happen: a connection or its slot leaks; a limit is exceeded; a
request waits despite free capacity; bytes that a server sent on an idle connection are read as the next response.

How: a slot is counted before the connect attempt starts, and freed in one place (`_left`), which passes it to the
longest-waiting request whose origin is below its limit. The future of a waiting request gets a connection, or None as
permission to open one; if the request was cancelled meanwhile, it passes on what it got. `take` and the sweep discard
idle connections on which bytes or an end arrived. One timer sweeps all: one for each would cost every request.

While the first connection to an https origin is being opened, other requests wait for it (`connecting`): it serves
all of them if it is HTTP/2, and without the wait a burst would open one connection per request. They wait at most
HOPE seconds while HTTP/2 support is unknown, and fail with the attempt. Retries on stale connections are in `_client`.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable
from copy import copy
from typing import TypeAlias

from llama._core.errors import LlamaError, Overloaded, TLSError, Unreachable
from llama._core.shutdown import Shutdown
from llama._core.stream import Stream
from llama.http._client_settings import ClientSettings
from llama.http._h1.client import H1Client, Timers
from llama.http._h2.client import H2Client
from llama.http._messages.finalizers import note_loop
from llama.http._messages.origin import Origin
from llama.tls import TLSInfo
from llama.udp._peer_table import Table

log = logging.getLogger("llama.client")
SWEEP = 5.0
RETRY_AFTER = 1.0
HOPE = 1.0  # seconds that requests wait for a first connection while it is unknown whether they can share it
LEARNT = 4096  # origins whose HTTP/2 support is remembered


class Connection(H1Client):
    """An HTTP/1.1 connection that belongs to a pool."""

    __slots__ = ("idle_since", "place", "pool")

    def __init__(self, stream: Stream, place: Place, pool: Pool) -> None:
        super().__init__(stream, place.origin, pool.settings, pool.timers, pool.tasks)
        self.place = place
        self.pool = pool
        self.idle_since = 0.0

    def freed(self) -> None:
        self.pool.release(self)

    def gone(self) -> None:
        self.pool.forget(self)


class Session(H2Client):
    """An HTTP/2 connection, with concurrent exchanges, that belongs to a pool."""

    def __init__(self, stream: Stream, place: Place, pool: Pool) -> None:
        self.place = place
        self.pool = pool
        self.idle_since = 0.0
        self._awaited = place.awaited()
        super().__init__(stream, place.origin, pool.settings, pool.timers, pool.tasks)

    def settings_changed(self) -> None:
        self.pool.note_websockets(self.origin, allowed=self.engine.extended_connect)
        super().settings_changed()

    def freed(self) -> None:
        if self.is_greeted:
            self.place.served(self._awaited)
        self.pool.release(self)

    def gone(self) -> None:
        self.place.served(self._awaited)
        self.pool.forget(self)


Member: TypeAlias = Connection | Session


class Awaited:
    """A connect attempt that other requests wait for, because they may be able to share the connection."""

    __slots__ = ("error", "future")

    def __init__(self) -> None:
        self.future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.error: Unreachable | TLSError | None = None
        """The error of the connect attempt, if it applies to all waiting requests; else None."""


class Waiter:
    """A request that waits for a connection. Its future gets one, or None as permission to open one."""

    __slots__ = ("future", "ticket")

    def __init__(self, ticket: int) -> None:
        self.ticket = ticket
        self.future: asyncio.Future[Member | None] = asyncio.get_running_loop().create_future()


class Place:
    """The state of one origin: its idle connections, its number of open ones, and its waiting requests."""

    __slots__ = ("connecting", "idle", "open", "origin", "sessions", "speaks_h2", "waiting")

    def __init__(self, origin: Origin, speaks_h2: bool | None = None) -> None:
        self.origin = origin
        self.idle: deque[Connection] = deque()
        self.open = 0
        self.waiting: deque[Waiter] = deque()
        self.sessions: list[Session] = []
        self.speaks_h2 = speaks_h2
        """Whether the origin speaks HTTP/2, with concurrent exchanges on a connection; None if not known yet."""
        if origin.scheme != "https" or origin.is_over_h1:
            self.speaks_h2 = origin.scheme == "h2c"
        self.connecting: Awaited | None = None
        """The connect attempt that other requests wait for."""

    def awaited(self) -> Awaited | None:
        """Make other requests wait for a new connect attempt, and return it; None if they wait for one already."""
        if self.connecting is not None:
            return None
        self.connecting = Awaited()
        return self.connecting

    def served(self, awaited: Awaited | None, error: BaseException | None = None) -> None:
        """Wake the requests that wait for this attempt. Unreachable and TLSError fail them too."""
        if awaited is not None and self.connecting is awaited:
            self.connecting = None
            if isinstance(error, Unreachable | TLSError):
                awaited.error = error
            awaited.future.set_result(None)

    def session(self) -> Session | None:
        """Return a session that can take another request, or None."""
        for session in self.sessions:
            if session.has_room:
                return session
        return None


class Pool:
    """The connection pool of one client in one event loop. It owns its connections."""

    def __init__(self, connect: Callable[[Origin], Awaitable[Stream]], settings: ClientSettings) -> None:
        self.loop = asyncio.get_running_loop()
        note_loop()
        self.tasks = Shutdown()
        """Owns the tasks that send request bodies and close connections."""
        self.timers = Timers(settings)
        self._connect = connect
        self.settings = settings
        self._places: dict[str, Place] = {}
        self._speaks_h2: OrderedDict[str, bool] = OrderedDict()  # by https origin, the most recent last
        self._websockets: Table[str, bool] = Table(
            LEARNT
        )  # by https origin that speaks HTTP/2: RFC 8441 support
        self._idle: OrderedDict[Member, None] = OrderedDict()  # the longest idle first
        self._all: set[Member] = set()
        self._open = 0
        self._waiting: dict[Place, None] = {}
        self._tickets = 0
        self._sharing = 0  # requests that wait for another request's connect attempt
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    @property
    def count(self) -> int:
        """The number of connections that are open or being opened."""
        return self._open

    @property
    def idle(self) -> tuple[Member, ...]:
        """The idle connections, the longest idle first."""
        return tuple(self._idle)

    @property
    def places(self) -> tuple[Place, ...]:
        """The origins with connections or waiting requests."""
        return tuple(self._places.values())

    def place(self, origin: Origin) -> Place:
        """Return the state of an origin, and create it if there is none."""
        place = self._places.get(origin.key)
        if place is None:
            place = self._places[origin.key] = Place(origin, self._speaks_h2.get(origin.key))
        return place

    def take(self, origin: Origin) -> Member | None:
        """Take a session with room, or an idle connection that is not stale, or None. Discards stale ones."""
        place = self._places.get(origin.key)
        if place is None:
            return None
        if place.sessions and (session := place.session()) is not None:
            self._idle.pop(session, None)
            return session
        idle = place.idle
        while idle:
            connection = idle.pop()
            del self._idle[connection]
            if connection.is_quiet():
                return connection
            connection.discard()
        return None

    def empty(self, place: Place) -> None:
        """Close the idle HTTP/1.1 connections to one origin."""
        while place.idle:
            self.close(place.idle[-1])

    async def open(self, place: Place) -> Member:
        """Open a connection, or at a limit wait for one to be released or for permission to open one.

        Raises Overloaded if the queue is full or `pool_timeout` expires, and the errors of the connector.
        """
        patience = self.settings.pool_timeout
        until = None if patience is None else self.loop.time() + patience
        while place.connecting is not None:
            if (session := await self._share(place, until)) is not None:
                self._idle.pop(session, None)
                return session
            before, place = place, self.place(place.origin)  # removed from _places with its last connection?
            if place is before:
                break
        while not self._may_open(place):
            given = await self._wait(place, until)
            if given is None:
                break
            if isinstance(given, Connection) or given.has_room:
                return given
        else:
            self._places[place.origin.key] = place  # it may have been removed, as above
            place.open += 1
            self._open += 1
        return await self._opened(place)

    async def _opened(self, place: Place) -> Member:
        """Connect; the slot is already counted, and returned if this fails or is cancelled."""
        awaited = None if place.speaks_h2 is False else place.awaited()
        try:
            stream = await self._connect(place.origin)
        except BaseException as error:
            self._left(place)
            place.served(awaited, error)
            raise
        place.served(awaited)
        tls = stream.extensions.get(TLSInfo)
        connection: Member
        if place.origin.scheme == "h2c" or (tls is not None and tls.alpn == "h2"):
            connection = Session(stream, place, self)
            place.sessions.append(connection)
        else:
            connection = Connection(stream, place, self)
        if place.origin.scheme == "https" and not place.origin.is_over_h1:
            self._learn(place, isinstance(connection, Session))
        self._all.add(connection)
        return connection

    def _learn(self, place: Place, speaks_h2: bool) -> None:
        place.speaks_h2 = self._speaks_h2[place.origin.key] = speaks_h2
        self._speaks_h2.move_to_end(place.origin.key)
        if len(self._speaks_h2) > LEARNT:
            self._speaks_h2.popitem(last=False)

    def note_websockets(self, origin: Origin, *, allowed: bool) -> None:
        """Remember whether an origin accepts WebSockets over HTTP/2 (RFC 8441)."""
        self._websockets.set(origin.key, allowed)

    def may_take_websockets(self, origin: Origin) -> bool:
        """Whether a WebSocket may share the origin's HTTP/2 connections; False if it is known to need HTTP/1.1."""
        return self._websockets.get(origin.key) is not False

    async def _share(self, place: Place, until: float | None) -> Session | None:
        """Wait for the pending connect attempt; return its session if it has room, or None to open another connection.

        While HTTP/2 support is unknown the wait ends after HOPE seconds. An error of the attempt is raised here too.
        """
        if self._sharing >= self.settings.max_waiting:
            return None
        self._sharing += 1
        try:
            async with asyncio.timeout_at(until):
                while (awaited := place.connecting) is not None:
                    seconds = HOPE if place.speaks_h2 is None else None
                    await asyncio.wait((awaited.future,), timeout=seconds)
                    if (session := place.session()) is not None:
                        return session
                    if awaited.error is not None:
                        raise copy(awaited.error) from awaited.error
                    if not awaited.future.done() and place.speaks_h2 is None:
                        break
                return None
        except TimeoutError:
            raise self._late(place) from None
        finally:
            self._sharing -= 1

    def release(self, connection: Member) -> None:
        """Hand a free connection to the longest-waiting request for its origin, or keep it as idle, or close it."""
        place = connection.place
        if isinstance(connection, Session):
            self._release_session(connection)
        elif self._closed:
            connection.discard()
        elif place.waiting:
            if connection.is_quiet():
                self._grant(place, connection)
            else:  # bytes after the response must not be read as the next response
                connection.discard()
        elif (
            self._waiting or len(place.idle) >= self.settings.max_idle_per_host or not self.settings.max_idle
        ):
            self.close(connection)
        else:
            if len(self._idle) >= self.settings.max_idle:
                self._evict()
            place.idle.append(connection)
            self._keep(connection)

    def _release_session(self, session: Session) -> None:
        """Hand a session with room to waiting requests, and keep or close it if it is idle."""
        place = session.place
        if self._closed:
            session.discard()
            return
        room = session.engine.max_streams - len(session.engine.streams)
        while place.waiting and room > 0 and session.has_room:
            self._grant(place, session)
            room -= 1
        if session.is_idle and session in self._all and session not in self._idle:
            if self._waiting or not self.settings.max_idle or len(place.sessions) > 1:
                self.close(session)
                return
            if len(self._idle) >= self.settings.max_idle:
                self._evict()
            self._keep(session)

    def _keep(self, connection: Member) -> None:
        connection.idle_since = self.loop.time()
        self._idle[connection] = None
        if self._timer is None:
            self._timer = self.loop.call_later(self._period(), self._sweep)

    def close(self, connection: Member) -> None:
        """Close a connection that is not in use, gracefully and in a task."""
        self.forget(connection)
        self.tasks.spawn(_close(connection), name="close an HTTP connection")

    def forget(self, connection: Member) -> None:
        """Remove a connection from the pool and free its slot. Idempotent."""
        if connection in self._all:
            self._all.discard(connection)
            if isinstance(connection, Session):
                connection.place.sessions.remove(connection)
                self._idle.pop(connection, None)
            elif connection in self._idle:
                del self._idle[connection]
                connection.place.idle.remove(connection)
            self._left(connection.place)

    async def aclose(self) -> None:
        """Close the pool: idle connections gracefully, those in use by abort."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for connection in tuple(self._all):
            if connection in self._idle:
                self.close(connection)
            else:
                connection.discard()
        self._waiting.clear()
        await self.tasks.drain()

    # limits

    def _may_open(self, place: Place) -> bool:
        """Whether the limits allow another connection; evicts the longest-idle one if that makes room."""
        settings = self.settings
        if settings.max_per_host is not None and place.open >= settings.max_per_host:
            return False
        if settings.max_connections is None or self._open < settings.max_connections:
            return True
        if not self._idle:
            return False
        self._evict()
        return True

    def _evict(self) -> None:
        """Close the longest-idle connection, whose slot is free from now on."""
        self.close(next(iter(self._idle)))

    def _left(self, place: Place) -> None:
        place.open -= 1
        self._open -= 1
        if self._waiting:
            self._serve_next()
        if not place.open and not place.waiting and self._places.get(place.origin.key) is place:
            del self._places[place.origin.key]

    async def _wait(self, place: Place, until: float | None) -> Member | None:
        settings = self.settings
        if sum(len(each.waiting) for each in self._waiting) >= settings.max_waiting:
            raise self._overloaded(place, f"{settings.max_waiting} requests are already waiting")
        self._tickets += 1
        waiter = Waiter(self._tickets)
        place.waiting.append(waiter)
        self._waiting[place] = None
        try:
            async with asyncio.timeout_at(until):
                return await waiter.future
        except BaseException as error:
            self._leave_line(place, waiter)
            if isinstance(error, TimeoutError):
                raise self._late(place) from None
            raise

    def _late(self, place: Place) -> Overloaded:
        return self._overloaded(place, f"none was free within {self.settings.pool_timeout:g} s")

    def _leave_line(self, place: Place, waiter: Waiter) -> None:
        if waiter in place.waiting:
            place.waiting.remove(waiter)
            self._tidy(place)
        elif waiter.future.done() and not waiter.future.cancelled():  # granted in the same loop iteration
            given = waiter.future.result()
            if given is not None:
                self.release(given)
            else:
                self._left(place)

    def _tidy(self, place: Place) -> None:
        if not place.waiting:
            self._waiting.pop(place, None)
            if not place.open:
                self._places.pop(place.origin.key, None)

    def _grant(self, place: Place, connection: Member | None) -> None:
        """Give the longest-waiting request for an origin a connection, or None as permission to open one."""
        waiter = place.waiting.popleft()
        if not place.waiting:
            self._waiting.pop(place, None)
        if waiter.future.done():  # cancelled in the same loop iteration
            if connection is not None:
                self.release(connection)
            else:
                self._left(place)
            return
        waiter.future.set_result(connection)

    def _serve_next(self) -> None:
        """After a slot was freed, let the longest-waiting request whose origin is below its limit open a connection."""
        most = self.settings.max_per_host
        for place in sorted(self._waiting, key=lambda each: each.waiting[0].ticket):
            if most is None or place.open < most:
                place.open += 1
                self._open += 1
                self._grant(place, None)
                return

    def _overloaded(self, place: Place, why: str) -> Overloaded:
        return Overloaded(f"no connection to {place.origin} is free: {why}", retry_after=RETRY_AFTER)

    # idle timeout

    def _period(self) -> float:
        return min(SWEEP, self.settings.idle_timeout or SWEEP)

    def _sweep(self) -> None:
        self._timer = None
        patience = self.settings.idle_timeout
        now = self.loop.time()
        for connection in tuple(self._idle):
            late = patience is not None and connection.idle_since + patience <= now
            if late or not connection.is_quiet():
                self.close(connection)
        if self._idle:
            self._timer = self.loop.call_later(self._period(), self._sweep)


async def _close(connection: Member) -> None:
    if isinstance(connection, Session):
        await connection.aclose()
        return
    try:
        await connection.stream.aclose()
    except (LlamaError, OSError) as error:
        log.debug("closing %r: %s", connection.stream, error)
    finally:
        connection.stream.abort()
