"""The connection pool of an HTTP client: reuses connections, limits their number, and queues requests at the limit.

What can happen: a server closes an idle connection while a request takes it; a connect attempt fails or is cancelled;
requests arrive before it is known whether their origin speaks HTTP/2; a waiting request is cancelled in the very loop
iteration that hands it a connection. What must never happen: a connection or its slot leaks; a limit is exceeded; a
request waits despite free capacity; bytes that a server sent on an idle connection are read as the next response.
How: a slot is counted before the connect attempt starts, and freed in one place (`_on_closed`), which passes it to the
longest-waiting request whose origin is below its limit. The future of a waiting request gets a connection, or None as
permission to open one; if the request was cancelled meanwhile, it passes on what it got. `acquire` and the sweep
discard idle connections on which bytes or an end arrived.
While the first connection to an https origin is being opened, other requests wait for it (`connecting`): it serves
all of them if it is HTTP/2, and without the wait a burst would open one connection per request. They wait at most
ALPN_WAIT seconds while HTTP/2 support is unknown, and fail with the attempt.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable
from copy import copy
from typing import TypeAlias

from llama._core.errors import LlamaError, OverloadedError, TLSError, UnreachableError
from llama._core.shutdown import Shutdown
from llama._core.stream import Stream
from llama.http._client.pending import PendingConnection
from llama.http._client_settings import ClientSettings
from llama.http._h1.client import ClientTimeouts, H1Client
from llama.http._h2.client import H2Client
from llama.http._messages.finalizers import register_loop
from llama.http._messages.origin import Origin
from llama.tls import TLSInfo
from llama.udp._peer_table import PeerTable

log = logging.getLogger("llama.client")
IDLE_CHECK_INTERVAL = 5.0
RETRY_AFTER = 1.0
ALPN_WAIT = (
    1.0  # seconds that requests wait for a first connection while it is unknown whether they can share it
)
ALPN_CACHE_SIZE = 4096  # origins whose HTTP/2 support is remembered


class PooledH1Connection(H1Client):
    """An HTTP/1.1 connection that belongs to a pool."""

    __slots__ = ("idle_since", "place", "pool")

    def __init__(self, stream: Stream, place: OriginPool, pool: ConnectionPool) -> None:
        super().__init__(stream, place.origin, pool.settings, pool.timers, pool.tasks)
        self.place = place
        self.pool = pool
        self.idle_since = 0.0

    def on_available(self) -> None:
        self.pool.release(self)

    def on_closed(self) -> None:
        self.pool.forget(self)


class PooledH2Connection(H2Client):
    """An HTTP/2 connection, with concurrent exchanges, that belongs to a pool."""

    def __init__(self, stream: Stream, place: OriginPool, pool: ConnectionPool) -> None:
        self.place = place
        self.pool = pool
        self.idle_since = 0.0
        self._pending = place.pending()
        super().__init__(stream, place.origin, pool.settings, pool.timers, pool.tasks)

    def settings_changed(self) -> None:
        self.pool.note_websockets(self.origin, allowed=self.protocol.extended_connect)
        super().settings_changed()

    def on_available(self) -> None:
        if self.settings_received:
            self.place.resolve(self._pending)
        self.pool.release(self)

    def on_closed(self) -> None:
        self.place.resolve(self._pending)
        self.pool.forget(self)


PooledConnection: TypeAlias = PooledH1Connection | PooledH2Connection


class Waiter:
    """A request that waits for a connection. Its future gets one, or None as permission to open one."""

    __slots__ = ("future", "ticket")

    def __init__(self, ticket: int) -> None:
        self.ticket = ticket
        self.future: asyncio.Future[PooledConnection | None] = asyncio.get_running_loop().create_future()


class OriginPool:
    """The state of one origin: its idle connections, its number of open ones, and its waiting requests."""

    __slots__ = ("connecting", "h2_connections", "idle", "open", "origin", "speaks_h2", "waiting")

    def __init__(self, origin: Origin, speaks_h2: bool | None = None) -> None:
        self.origin = origin
        self.idle: deque[PooledH1Connection] = deque()
        self.open = 0
        self.waiting: deque[Waiter] = deque()
        self.h2_connections: list[PooledH2Connection] = []
        self.speaks_h2 = speaks_h2
        """Whether the origin speaks HTTP/2, with concurrent exchanges on a connection; None if not known yet."""
        if origin.scheme != "https" or origin.is_http1_only:
            self.speaks_h2 = origin.scheme == "h2c"
        self.connecting: PendingConnection | None = None
        """The connect attempt that other requests wait for."""

    def pending(self) -> PendingConnection | None:
        """Make other requests wait for a new connect attempt, and return it; None if they wait for one already."""
        if self.connecting is not None:
            return None
        self.connecting = PendingConnection()
        return self.connecting

    def resolve(self, awaited: PendingConnection | None, error: BaseException | None = None) -> None:
        """Wake the requests that wait for this attempt. Unreachable and TLSError fail them too."""
        if awaited is not None and self.connecting is awaited:
            self.connecting = None
            if isinstance(error, UnreachableError | TLSError):
                awaited.error = error
            awaited.future.set_result(None)

    def shareable(self) -> PooledH2Connection | None:
        """Return a session that can take another request, or None."""
        for session in self.h2_connections:
            if session.has_room:
                return session
        return None


class ConnectionPool:
    """The connection pool of one client in one event loop. It owns its connections."""

    def __init__(self, connect: Callable[[Origin], Awaitable[Stream]], settings: ClientSettings) -> None:
        self.loop = asyncio.get_running_loop()
        register_loop()
        self.tasks = Shutdown()
        """Owns the tasks that send request bodies and close connections."""
        self.timers = ClientTimeouts(settings)
        self._connect = connect
        self.settings = settings
        self._places: dict[str, OriginPool] = {}
        self._speaks_h2: OrderedDict[str, bool] = OrderedDict()  # by https origin, the most recent last
        self._websockets: PeerTable[str, bool] = PeerTable(
            ALPN_CACHE_SIZE
        )  # by https origin that speaks HTTP/2: RFC 8441 support
        self._idle: OrderedDict[PooledConnection, None] = OrderedDict()  # the longest idle first
        self._all: set[PooledConnection] = set()
        self._open = 0
        self._waiting: dict[OriginPool, None] = {}
        self._tickets = 0
        self._shared = 0  # requests that wait for another request's connect attempt
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    @property
    def count(self) -> int:
        """The number of connections that are open or being opened."""
        return self._open

    @property
    def idle(self) -> tuple[PooledConnection, ...]:
        """The idle connections, the longest idle first."""
        return tuple(self._idle)

    @property
    def origin_pools(self) -> tuple[OriginPool, ...]:
        """The origins with connections or waiting requests."""
        return tuple(self._places.values())

    def origin_pool(self, origin: Origin) -> OriginPool:
        """Return the state of an origin, and create it if there is none."""
        place = self._places.get(origin.pool_key)
        if place is None:
            place = self._places[origin.pool_key] = OriginPool(origin, self._speaks_h2.get(origin.pool_key))
        return place

    def acquire(self, origin: Origin) -> PooledConnection | None:
        """Take a session with room, or an idle connection that is not stale, or None. Discards stale ones."""
        place = self._places.get(origin.pool_key)
        if place is None:
            return None
        if place.h2_connections and (session := place.shareable()) is not None:
            self._idle.pop(session, None)
            return session
        idle = place.idle
        while idle:
            connection = idle.pop()
            del self._idle[connection]
            if connection.is_reusable():
                return connection
            connection.discard()
        return None

    def close_idle(self, place: OriginPool) -> None:
        """Close the idle HTTP/1.1 connections to one origin."""
        while place.idle:
            self.close(place.idle[-1])

    async def open(self, place: OriginPool) -> PooledConnection:
        """Open a connection, or at a limit wait for one to be released or for permission to open one.

        Raises OverloadedError if the queue is full or `pool_timeout` expires, and the errors of the connector.
        """
        patience = self.settings.pool_timeout
        until = None if patience is None else self.loop.time() + patience
        while place.connecting is not None:
            if (session := await self._acquire_shared(place, until)) is not None:
                self._idle.pop(session, None)
                return session
            before, place = (
                place,
                self.origin_pool(place.origin),
            )  # removed from _places with its last connection?
            if place is before:
                break
        while not self._may_open(place):
            given = await self._wait(place, until)
            if given is None:
                break
            if isinstance(given, PooledH1Connection) or given.has_room:
                return given
        else:
            self._places[place.origin.pool_key] = place  # it may have been removed, as above
            place.open += 1
            self._open += 1
        return await self._open_connection(place)

    async def _open_connection(self, place: OriginPool) -> PooledConnection:
        """Connect; the slot is already counted, and returned if this fails or is cancelled."""
        awaited = None if place.speaks_h2 is False else place.pending()
        try:
            stream = await self._connect(place.origin)
        except BaseException as error:
            self._on_closed(place)
            place.resolve(awaited, error)
            raise
        place.resolve(awaited)
        tls = stream.extensions.get(TLSInfo)
        connection: PooledConnection
        if place.origin.scheme == "h2c" or (tls is not None and tls.alpn == "h2"):
            connection = PooledH2Connection(stream, place, self)
            place.h2_connections.append(connection)
        else:
            connection = PooledH1Connection(stream, place, self)
        if place.origin.scheme == "https" and not place.origin.is_http1_only:
            self._remember_alpn(place, isinstance(connection, PooledH2Connection))
        self._all.add(connection)
        return connection

    def _remember_alpn(self, place: OriginPool, speaks_h2: bool) -> None:
        place.speaks_h2 = self._speaks_h2[place.origin.pool_key] = speaks_h2
        self._speaks_h2.move_to_end(place.origin.pool_key)
        if len(self._speaks_h2) > ALPN_CACHE_SIZE:
            self._speaks_h2.popitem(last=False)

    def note_websockets(self, origin: Origin, *, allowed: bool) -> None:
        """Remember whether an origin accepts WebSockets over HTTP/2 (RFC 8441)."""
        self._websockets.set(origin.pool_key, allowed)

    def may_take_websockets(self, origin: Origin) -> bool:
        """Whether a WebSocket may share the origin's HTTP/2 connections; False if it is known to need HTTP/1.1."""
        return self._websockets.get(origin.pool_key) is not False

    async def _acquire_shared(self, place: OriginPool, until: float | None) -> PooledH2Connection | None:
        """Wait for the pending connect attempt; return its session if it has room, or None to open another connection.

        While HTTP/2 support is unknown the wait ends after ALPN_WAIT seconds. An error of the attempt is raised here
        too.
        """
        if self._shared >= self.settings.max_waiting:
            return None
        self._shared += 1
        try:
            async with asyncio.timeout_at(until):
                while (awaited := place.connecting) is not None:
                    seconds = ALPN_WAIT if place.speaks_h2 is None else None
                    await asyncio.wait((awaited.future,), timeout=seconds)
                    if (session := place.shareable()) is not None:
                        return session
                    if awaited.error is not None:
                        raise copy(awaited.error) from awaited.error
                    if not awaited.future.done() and place.speaks_h2 is None:
                        break
                return None
        except TimeoutError:
            raise self._timeout_error(place) from None
        finally:
            self._shared -= 1

    def release(self, connection: PooledConnection) -> None:
        """Hand a free connection to the longest-waiting request for its origin, or keep it as idle, or close it."""
        place = connection.place
        if isinstance(connection, PooledH2Connection):
            self._release_h2(connection)
        elif self._closed:
            connection.discard()
        elif place.waiting:
            if connection.is_reusable():
                self._hand_to_waiter(place, connection)
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

    def _release_h2(self, session: PooledH2Connection) -> None:
        """Hand a session with room to waiting requests, and keep or close it if it is idle."""
        place = session.place
        if self._closed:
            session.discard()
            return
        room = session.protocol.max_streams - len(session.protocol.streams)
        while place.waiting and room > 0 and session.has_room:
            self._hand_to_waiter(place, session)
            room -= 1
        if session.is_idle and session in self._all and session not in self._idle:
            if self._waiting or not self.settings.max_idle or len(place.h2_connections) > 1:
                self.close(session)
                return
            if len(self._idle) >= self.settings.max_idle:
                self._evict()
            self._keep(session)

    def _keep(self, connection: PooledConnection) -> None:
        connection.idle_since = self.loop.time()
        self._idle[connection] = None
        if self._timer is None:
            self._timer = self.loop.call_later(self._period(), self._close_expired)

    def close(self, connection: PooledConnection) -> None:
        """Close a connection that is not in use, gracefully and in a task."""
        self.forget(connection)
        self.tasks.spawn(_close(connection), name="close an HTTP connection")

    def forget(self, connection: PooledConnection) -> None:
        """Remove a connection from the pool and free its slot. Idempotent."""
        if connection in self._all:
            self._all.discard(connection)
            if isinstance(connection, PooledH2Connection):
                connection.place.h2_connections.remove(connection)
                self._idle.pop(connection, None)
            elif connection in self._idle:
                del self._idle[connection]
                connection.place.idle.remove(connection)
            self._on_closed(connection.place)

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

    def _may_open(self, place: OriginPool) -> bool:
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

    def _on_closed(self, place: OriginPool) -> None:
        place.open -= 1
        self._open -= 1
        if self._waiting:
            self._serve_next()
        if not place.open and not place.waiting and self._places.get(place.origin.pool_key) is place:
            del self._places[place.origin.pool_key]

    async def _wait(self, place: OriginPool, until: float | None) -> PooledConnection | None:
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
            self._leave_queue(place, waiter)
            if isinstance(error, TimeoutError):
                raise self._timeout_error(place) from None
            raise

    def _timeout_error(self, place: OriginPool) -> OverloadedError:
        return self._overloaded(place, f"none was free within {self.settings.pool_timeout:g} s")

    def _leave_queue(self, place: OriginPool, waiter: Waiter) -> None:
        if waiter in place.waiting:
            place.waiting.remove(waiter)
            self._drop_if_unused(place)
        elif waiter.future.done() and not waiter.future.cancelled():  # granted in the same loop iteration
            given = waiter.future.result()
            if given is not None:
                self.release(given)
            else:
                self._on_closed(place)

    def _drop_if_unused(self, place: OriginPool) -> None:
        if not place.waiting:
            self._waiting.pop(place, None)
            if not place.open:
                self._places.pop(place.origin.pool_key, None)

    def _hand_to_waiter(self, place: OriginPool, connection: PooledConnection | None) -> None:
        """Give the longest-waiting request for an origin a connection, or None as permission to open one."""
        waiter = place.waiting.popleft()
        if not place.waiting:
            self._waiting.pop(place, None)
        if waiter.future.done():  # cancelled in the same loop iteration
            if connection is not None:
                self.release(connection)
            else:
                self._on_closed(place)
            return
        waiter.future.set_result(connection)

    def _serve_next(self) -> None:
        """After a slot was freed, let the longest-waiting request whose origin is below its limit open a connection."""
        most = self.settings.max_per_host
        for place in sorted(self._waiting, key=lambda each: each.waiting[0].ticket):
            if most is None or place.open < most:
                place.open += 1
                self._open += 1
                self._hand_to_waiter(place, None)
                return

    def _overloaded(self, place: OriginPool, why: str) -> OverloadedError:
        return OverloadedError(f"no connection to {place.origin} is free: {why}", retry_after=RETRY_AFTER)

    # idle timeout

    def _period(self) -> float:
        return min(IDLE_CHECK_INTERVAL, self.settings.idle_timeout or IDLE_CHECK_INTERVAL)

    def _close_expired(self) -> None:
        self._timer = None
        patience = self.settings.idle_timeout
        now = self.loop.time()
        for connection in tuple(self._idle):
            late = patience is not None and connection.idle_since + patience <= now
            if late or not connection.is_reusable():
                self.close(connection)
        if self._idle:
            self._timer = self.loop.call_later(self._period(), self._close_expired)


async def _close(connection: PooledConnection) -> None:
    if isinstance(connection, PooledH2Connection):
        await connection.aclose()
        return
    try:
        await connection.stream.aclose()
    except (LlamaError, OSError) as error:
        log.debug("closing %r: %s", connection.stream, error)
    finally:
        connection.stream.abort()
