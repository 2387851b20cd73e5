"""The connection pool of an HTTP/3 client: shared, bounded, with a FIFO queue of waiting requests."""

from __future__ import annotations

import asyncio
import dataclasses
from collections import OrderedDict, deque
from collections.abc import Sequence
from functools import partial

from qh3.quic.configuration import QuicConfiguration
from qh3.tls import SessionTicket

from llama._core.errors import LlamaError, OverloadedError, RefusedError, TLSError, UnreachableError
from llama._core.packets import PacketConnector, Packets
from llama._core.shutdown import Shutdown
from llama._core.target import Target
from llama.http._h3.client.alt_svc_cache import AltSvcCache
from llama.http._h3.client.client_connection import H3ClientConnection
from llama.http._h3.connection import PausableQuicConnection
from llama.http._h3.early_data import TicketCache
from llama.http._h3.settings import H3ClientSettings
from llama.http._h3.stream import H3Stream
from llama.http._messages.origin import Origin
from llama.tcp._connect import interleave
from llama.tcp._policy.address_filter import filter_addresses
from llama.tls import TLSParams
from llama.udp._connect import UdpConnect

RETRY_AFTER = 1.0
MAX_ORIGINS = 1024
KEEPALIVE_INTERVAL = (
    15.0  # seconds after which a connection with requests is kept from seeming idle (RFC 9114 section 5.1)
)
PER_ADDRESS_TIMEOUT = 2.0  # seconds to try an address before the next one


class PooledH3Connection(H3ClientConnection):
    """A connection of the pool."""

    def __init__(
        self, packets: Packets, quic: PausableQuicConnection, place: H3OriginPool, state: H3Pool
    ) -> None:
        super().__init__(packets, quic, place.origin, state.limits)
        self.place = place
        self.used = False
        """Whether it has carried a request."""
        self._state = state
        self._timer: asyncio.TimerHandle | None = None
        self.link.on_packets = place.wake
        self.link.on_room = self._on_stream_done
        self.link.closed.add_done_callback(self._on_closed)

    @property
    def is_idle(self) -> bool:
        """Whether it carries no request."""
        return not self.link.channels

    def open(self) -> H3Stream:
        channel = super().open()
        self.used = True
        self._state.idle.pop(self, None)
        if self._timer is None:
            self._timer = self.link.loop.call_later(self._state.period, self._keepalive)
        return channel

    async def wait_handshake(self) -> bool:
        """Wait for the handshake and return whether it succeeded."""
        established = self.link.established
        if not established.done():
            await asyncio.wait((established,))
        return established.exception() is None

    async def close_unless_handshaken(self, seconds: float | None) -> None:
        """Close the connection if the handshake fails or takes longer than `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                if await self.wait_handshake():
                    return
        except TimeoutError:
            text = f"no HTTP/3 connection to {self.origin} within {seconds} s"
            self.link.fail(UnreachableError(text, status=504))
        self.close()

    def _keepalive(self) -> None:
        self._timer = None
        if not self.is_idle and not self.link.closed.done():
            self.link.quic.send_ping(0)
            self.link.flush()
            self._timer = self.link.loop.call_later(self._state.period, self._keepalive)

    def _on_stream_done(self) -> None:
        """A request has ended."""
        if self.is_idle and not self.link.closed.done():
            self._state.on_idle(self)
        self.place.wake()

    def _on_closed(self, _: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._state.on_closed(self)


class H3OriginPool:
    """The pool of one origin: its connections, the task that connects, and the waiting requests."""

    __slots__ = ("_state", "connections", "dialling", "origin", "waiting")

    def __init__(self, origin: Origin, state: H3Pool) -> None:
        self.origin = origin
        self.connections: list[PooledH3Connection] = []
        self.dialling: asyncio.Task[PooledH3Connection] | None = None
        self.waiting: deque[asyncio.Future[None]] = deque()
        self._state = state

    def wake(self) -> None:
        """Wake as many waiting requests as there may be room for, in FIFO order."""
        if not self.waiting:
            return
        room = sum(each.room for each in self.connections) or self._state.may_dial(self)
        while self.waiting and room > 0:
            future = self.waiting.popleft()
            if not future.done():
                future.set_result(None)
                room -= 1

    def with_room(self) -> PooledH3Connection | None:
        """Return a connection that accepts another request now, or None."""
        for each in self.connections:
            if each.room > 0:
                return each
        return None


class H3Pool:
    """The state of a client in the running loop."""

    def __init__(
        self, connect: PacketConnector, configuration: QuicConfiguration, settings: H3ClientSettings
    ) -> None:
        self.tasks = Shutdown()
        self.origin_pools: OrderedDict[str, H3OriginPool] = OrderedDict()
        self.idle: OrderedDict[PooledH3Connection, None] = OrderedDict()  # longest idle first
        self.alternatives = AltSvcCache()
        self.tickets = TicketCache()
        self.entered = 0
        self.loop: asyncio.AbstractEventLoop | None = None
        self.period = min(KEEPALIVE_INTERVAL, settings.idle_timeout / 3)
        self._connect = connect
        self._configuration = configuration
        self._settings = settings
        self.limits = settings.limits

    def open(self) -> None:
        """Bind the state to the running loop. If the client was not entered, the current Shutdown closes it."""
        loop = asyncio.get_running_loop()
        if self.loop is loop:
            return
        self.loop = loop
        self.tasks, self.origin_pools, self.idle = Shutdown(), OrderedDict(), OrderedDict()
        if not self.entered:
            try:
                Shutdown.current().on_close(self.close)
            except RuntimeError:  # called without a server; the caller may enter the client
                pass

    @property
    def connections(self) -> int:
        """The number of connections that are open or being opened."""
        return sum(
            len(each.connections) + (each.dialling is not None) for each in tuple(self.origin_pools.values())
        )

    async def close(self) -> None:
        """Close all connections; the next request opens new ones."""
        self.loop = None
        for place in tuple(self.origin_pools.values()):
            if place.dialling is not None:
                place.dialling.cancel()
            for each in tuple(place.connections):
                each.close()
        await self.tasks.drain(1.0)

    # connections

    def origin_pool(self, origin: Origin) -> H3OriginPool:
        """Return the pool of an origin."""
        place = self.origin_pools.get(origin.pool_key)
        if place is None:
            place = self.origin_pools[origin.pool_key] = H3OriginPool(origin, self)
            for key in list(self.origin_pools)[: max(0, len(self.origin_pools) - MAX_ORIGINS)]:
                old = self.origin_pools[key]
                if not (old.connections or old.waiting) and old.dialling is None and old is not place:
                    del self.origin_pools[key]
        return place

    async def connection(self, origin: Origin, other: Origin, *, early: bool = False) -> PooledH3Connection:
        """Return a connection to an origin that accepts a request now; `other` is the origin to connect to.

        With `early`, its handshake may be incomplete. Raises OverloadedError if too many requests wait or the wait
        exceeds `pool_timeout`, and the errors of connecting.
        """
        place = self.origin_pool(origin)
        deadline: float | None = None
        while True:
            if (found := place.with_room()) is not None:
                if early or found.link.established.done():
                    return found
                await found.wait_handshake()  # other requests may have used the room: check again
                continue
            self.origin_pools[origin.pool_key] = place  # it may have been evicted
            if place.dialling is not None or self._evict_one(place):
                await asyncio.shield(self.dial(place, other, early=early))
                continue
            patience = self._settings.pool_timeout
            if deadline is None and patience is not None:
                deadline = asyncio.get_running_loop().time() + patience
            await self._wait(place, deadline)

    def may_dial(self, place: H3OriginPool) -> bool:
        """Whether another connection may be opened, possibly in place of an idle one of another origin."""
        settings, here = self._settings, [each for each in place.connections if each.is_open]
        if place.dialling is not None or any(each.is_idle for each in here):
            return False  # a server that allows no request on an idle connection allows none on a new one
        if settings.max_per_host is not None and len(here) >= settings.max_per_host:
            return False
        return (
            settings.max_connections is None or self.connections < settings.max_connections or bool(self.idle)
        )

    def _evict_one(self, place: H3OriginPool) -> bool:
        if not self.may_dial(place):
            return False
        most = self._settings.max_connections
        if most is not None and self.connections >= most:
            next(iter(self.idle)).close()
        return True

    async def _wait(self, place: H3OriginPool, deadline: float | None) -> None:
        settings = self._settings
        if sum(len(each.waiting) for each in self.origin_pools.values()) >= settings.max_waiting:
            raise self._overloaded(place, f"{settings.max_waiting} wait for one already")
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        place.waiting.append(future)
        try:
            async with asyncio.timeout_at(deadline):
                await future
        except BaseException as error:
            if future in place.waiting:
                place.waiting.remove(future)
            else:
                place.wake()
            if isinstance(error, TimeoutError):
                raise self._overloaded(place, f"none was free within {settings.pool_timeout:g} s") from None
            raise

    def _overloaded(self, place: H3OriginPool, why: str) -> OverloadedError:
        return OverloadedError(
            f"no HTTP/3 connection to {place.origin} is free: {why}", retry_after=RETRY_AFTER
        )

    def on_idle(self, member: PooledH3Connection) -> None:
        """Keep a connection that carries no request, or close it if there are too many or others need its place."""
        self.idle[member] = None
        most = self._settings.max_connections
        wanted = most is not None and self.connections >= most and self._is_waited_for(member.place)
        if wanted or len(member.place.connections) > 1:
            asyncio.get_running_loop().call_soon(self._evict, member)
        elif len(self.idle) > self._settings.max_idle:
            asyncio.get_running_loop().call_soon(self._evict, next(iter(self.idle)))

    def _is_waited_for(self, besides: H3OriginPool) -> bool:
        return any(each.waiting for each in self.origin_pools.values() if each is not besides)

    def _evict(self, member: PooledH3Connection) -> None:
        if member in self.idle:
            member.close()

    def on_closed(self, member: PooledH3Connection) -> None:
        """Remove a connection that has ended, and wake the requests that wait for its place."""
        self.idle.pop(member, None)
        if member in member.place.connections:
            member.place.connections.remove(member)
        for each in tuple(self.origin_pools.values()):
            each.wake()

    # connecting

    def dial(
        self, place: H3OriginPool, other: Origin, *, early: bool = False
    ) -> asyncio.Task[PooledH3Connection]:
        """Return the task that connects, shared by all waiting requests; callers must shield it."""
        if place.dialling is None:
            place.dialling = self.tasks.spawn(self._open(place, other, early))
            place.dialling.add_done_callback(lambda task: task.cancelled() or task.exception())
        return place.dialling

    async def _open(self, place: H3OriginPool, other: Origin, early: bool) -> PooledH3Connection:
        try:
            if early and (member := await self._connect_0rtt(place)) is not None:
                place.connections.append(member)
                return member
            async with asyncio.timeout(self._settings.connect_timeout):
                member = await self._connect_any(place, other.target)
        except TimeoutError as error:
            text = f"no HTTP/3 connection to {place.origin} within {self._settings.connect_timeout} s"
            raise UnreachableError(str(error) or text, status=504) from error
        except (UnreachableError, TLSError, RefusedError, OverloadedError):
            raise
        except (LlamaError, OSError) as error:
            raise UnreachableError(f"cannot reach {place.origin}: {error}") from error
        finally:
            place.dialling = None
        place.connections.append(member)
        return member

    async def _connect_0rtt(self, place: H3OriginPool) -> PooledH3Connection | None:
        """Return a connection that accepts early requests during its handshake; None if the server is unknown."""
        known = self.tickets.take(place.origin.pool_key)
        if known is None:
            return None
        try:
            member = await self._start(place, known.target, known.ticket)
        except (LlamaError, OSError):
            return None
        self.tasks.spawn(member.close_unless_handshaken(self._settings.connect_timeout))
        return member

    async def _connect_any(self, place: H3OriginPool, target: Target) -> PooledH3Connection:
        """Connect to the first of a target's addresses that completes the handshake."""
        *others, last = await self._resolve(target)
        for each in others:
            try:
                async with asyncio.timeout(PER_ADDRESS_TIMEOUT):
                    return await self._handshake(place, each)
            except (TimeoutError, UnreachableError):
                continue
        return await self._handshake(place, last)

    async def _resolve(self, target: Target) -> Sequence[Target]:
        if not isinstance(self._connect, UdpConnect):
            return (target,)  # another connector resolves the name itself
        found = interleave(filter_addresses(target, await self._connect.resolver(target.host, target.port)))
        return [Target(each, target.port, target.extensions) for each in found] or (target,)

    async def _start(
        self, place: H3OriginPool, target: Target, ticket: SessionTicket | None = None
    ) -> PooledH3Connection:
        origin = place.origin.target
        wanted = origin.extensions.get(TLSParams)
        name = (wanted.server_name if wanted is not None else None) or self._configuration.server_name
        configuration = dataclasses.replace(
            self._configuration, server_name=name or origin.host, session_ticket=ticket
        )
        keep = (
            partial(self.tickets.keep, place.origin.pool_key, target) if self._settings.early_data else None
        )
        quic = PausableQuicConnection(configuration=configuration, session_ticket_handler=keep)
        member = PooledH3Connection(await self._connect(target), quic, place, self)
        member.start(self.tasks)
        return member

    async def _handshake(self, place: H3OriginPool, target: Target) -> PooledH3Connection:
        member = await self._start(place, target)
        try:
            await asyncio.shield(member.link.established)
        except BaseException:
            member.close()
            raise
        return member
