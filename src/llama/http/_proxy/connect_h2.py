"""Shared connections to an HTTP/2 proxy, each of which carries many tunnels (RFC 9113 section 8.5)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from copy import copy

from llama._core.errors import TLSError, UnreachableError
from llama._core.shutdown import Shutdown
from llama._core.stream import Stream
from llama._core.target import Target
from llama.http._client_settings import ClientSettings
from llama.http._h1.client import ClientTimeouts
from llama.http._h2.client import H2Client
from llama.http._messages.origin import Origin
from llama.tls import TLSInfo

IDLE_TIMEOUT = 60.0  # seconds until a connection without tunnels is closed
ALPN_WAIT = (
    1.0  # seconds to wait for the first connection while it is unknown whether the proxy supports HTTP/2
)
SETTINGS = ClientSettings()


class PendingProxyConnection:
    """A connection attempt that other callers wait for."""

    __slots__ = ("error", "future")

    def __init__(self) -> None:
        self.future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.error: UnreachableError | TLSError | None = None

    def done(self, error: BaseException | None = None) -> None:
        """Finish the attempt, after a failure with the error that all waiters share."""
        if not self.future.done():
            if isinstance(error, UnreachableError | TLSError):
                self.error = error
            self.future.set_result(None)


class ProxyConnection(H2Client):
    """An HTTP/2 connection to a proxy."""

    def __init__(
        self, stream: Stream, sessions: ProxyConnections, opening: PendingProxyConnection | None
    ) -> None:
        self._sessions = sessions
        self._opening = opening
        self.idle_since = 0.0
        self.is_watched = False
        """Whether an idle timer is scheduled."""
        super().__init__(stream, sessions.origin, SETTINGS, ClientTimeouts(SETTINGS), sessions.tasks)

    def on_available(self) -> None:
        if self.settings_received and self._opening is not None:
            self._opening.done()
        if self.is_idle:
            self._sessions.release(self)

    def on_closed(self) -> None:
        if self._opening is not None:
            self._opening.done()
        self._sessions.forget(self)


class ProxyConnections:
    """A pool of HTTP/2 connections to one proxy, in one event loop."""

    def __init__(
        self, connect: Callable[[Target], Awaitable[Stream]], origin: Origin, *, is_owned: bool
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.tasks = Shutdown()
        self.origin = origin
        self.is_owned = is_owned
        """Whether the owner closes the pool: only then are idle connections kept."""
        self._connect = connect
        self._all: list[ProxyConnection] = []
        self._opening: PendingProxyConnection | None = None
        self._is_h2: bool | None = True if origin.scheme == "h2c" else None

    @property
    def count(self) -> int:
        """The number of connections."""
        return len(self._all)

    async def acquire(self, way: Target) -> ProxyConnection | Stream:
        """Return a connection with room for a tunnel, or a stream to a proxy without HTTP/2."""
        while True:
            for session in self._all:
                if session.has_room:
                    return session
            opening = self._opening
            if self._is_h2 is False or opening is None or opening.future.done():
                return await self._open(way)
            await asyncio.wait((opening.future,), timeout=ALPN_WAIT if self._is_h2 is None else None)
            if opening.error is not None:
                raise copy(opening.error) from opening.error
            if not opening.future.done() and self._is_h2 is None:
                return await self._open(way)

    async def _open(self, way: Target) -> ProxyConnection | Stream:
        opening = None
        if self._is_h2 is not False and (self._opening is None or self._opening.future.done()):
            opening = self._opening = PendingProxyConnection()
        try:
            stream = await self._connect(way)
        except BaseException as error:
            if opening is not None:
                opening.done(error)
            raise
        tls = stream.extensions.get(TLSInfo)
        self._is_h2 = self.origin.scheme == "h2c" or (tls is not None and tls.alpn == "h2")
        if not self._is_h2:
            if opening is not None:
                opening.done()
            return stream
        session = ProxyConnection(stream, self, opening)
        self._all.append(session)
        return session

    def release(self, session: ProxyConnection) -> None:
        """Keep a connection that has become idle, or close it if it is surplus or the pool has no owner."""
        if not self.is_owned or len(self._all) > 1:
            self._close(session)
        else:
            session.idle_since = self.loop.time()
            if not session.is_watched:
                self._watch(session)

    def _watch(self, session: ProxyConnection) -> None:
        session.is_watched = True
        self.loop.call_at(session.idle_since + IDLE_TIMEOUT, self._check, session)

    def _check(self, session: ProxyConnection) -> None:
        session.is_watched = False
        if not session.is_idle:
            return
        if session.idle_since + IDLE_TIMEOUT > self.loop.time():
            self._watch(session)
        else:
            self._close(session)

    def _close(self, session: ProxyConnection) -> None:
        if session in self._all:
            self._all.remove(session)
            self.tasks.spawn(session.aclose(), name="close an HTTP/2 connection")

    def forget(self, session: ProxyConnection) -> None:
        """Remove a connection that accepts no new tunnels."""
        if session in self._all:
            self._all.remove(session)

    async def aclose(self) -> None:
        """Close idle connections and abort those with tunnels."""
        for session in tuple(self._all):
            if session.is_idle:
                self._close(session)
            else:
                session.discard()
        await self.tasks.drain()


class TunnelPool:
    """The pool of a connector for the running event loop, with a count of its users."""

    __slots__ = ("_connect", "_entered", "_origin", "sessions")

    def __init__(self, connect: Callable[[Target], Awaitable[Stream]], origin: Origin) -> None:
        self._connect = connect
        self._origin = origin
        self._entered = 0
        self.sessions: ProxyConnections | None = None

    def open(self) -> ProxyConnections:
        """Return the pool; the current Shutdown also closes it."""
        sessions = self.sessions
        if sessions is None or not sessions.loop.is_running():
            owned = bool(self._entered) or self._is_closed_by_shutdown()
            sessions = self.sessions = ProxyConnections(self._connect, self._origin, is_owned=owned)
        return sessions

    def _is_closed_by_shutdown(self) -> bool:
        try:
            Shutdown.current().on_close(self.close)
        except RuntimeError:  # no Shutdown is active
            return False
        return True

    def enter(self) -> None:
        """Count one more user; each must call `leave`."""
        self._entered += 1

    async def leave(self) -> None:
        """Uncount a user; the last one closes the pool."""
        self._entered -= 1
        if not self._entered:
            await self.close()

    async def close(self) -> None:
        """Close the pool; the next tunnel opens a new one."""
        sessions, self.sessions = self.sessions, None
        if sessions is not None and sessions.loop is asyncio.get_running_loop():
            await sessions.aclose()
