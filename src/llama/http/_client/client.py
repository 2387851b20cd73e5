"""The HTTP client: a request handler on top of a connector."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import ClassVar

from llama._core.errors import LlamaError, UnreachableError
from llama._core.extensions import Extensions
from llama._core.shutdown import Shutdown
from llama._core.stack import check_accepts, layer_factory
from llama._core.stream import Stream
from llama._core.target import Connector, Target
from llama.http._client.connection_info import ConnectionUsed
from llama.http._client.h3_upstreams import H3Route
from llama.http._client.pool import ConnectionPool
from llama.http._client_settings import ClientSettings
from llama.http._h1.client import NoResponseError
from llama.http._h2.client_stream import NoExtendedConnect, UnprocessedError
from llama.http._limits import DEFAULT_LIMITS, Limits
from llama.http._messages.message import Request, RequestHandler, Response, note_request
from llama.http._messages.origin import Origin, origin_of
from llama.http._messages.retryable import MAX_REFUSED_RETRIES, may_retry_on_stale_connection
from llama.tcp import connect as tcp_connect
from llama.tls import TLSParams
from llama.tls import connect as tls_connect

ALPN = ("h2", "http/1.1")


class ClientState:
    """The state of a client in the running loop: its pool, its HTTP/3 client, and how often it was entered."""

    __slots__ = ("_connect", "_is_entered", "_settings", "h3", "pool")

    def __init__(
        self, connect: Callable[[Origin], Awaitable[Stream]], h3: H3Route, settings: ClientSettings
    ) -> None:
        self._connect = connect
        self._settings = settings
        self._is_entered = 0
        self.pool: ConnectionPool | None = None
        self.h3 = h3

    def open(self) -> ConnectionPool:
        """Return the pool, and create it if needed; the current Shutdown closes it unless the client was entered."""
        pool = self.pool
        if pool is None or not pool.loop.is_running():
            pool = self.pool = ConnectionPool(self._connect, self._settings)
            if not self._is_entered:
                try:
                    Shutdown.current().on_close(self.close)
                except RuntimeError:  # no server runs: the caller can enter the client to have it closed
                    pass
        return pool

    def enter(self) -> None:
        """Count one more `async with` block."""
        self._is_entered += 1

    async def exit(self) -> None:
        """Count one `async with` block less; the last one closes the pool."""
        self._is_entered -= 1
        if not self._is_entered:
            await self.close()

    async def close(self) -> None:
        """Close the pool; the next request creates another."""
        pool, self.pool = self.pool, None
        await self.h3.close()
        if pool is not None and pool.loop is asyncio.get_running_loop():
            await pool.aclose()


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class Client:
    """A request handler that sends each request to its origin."""

    connect: Connector
    tls: Connector | None
    h3: RequestHandler | None
    settings: ClientSettings
    state: ClientState

    __input_type__: ClassVar[type] = Request

    def __repr__(self) -> str:
        return "http.client()"

    async def __aenter__(self) -> Client:
        self.state.enter()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.state.exit()

    async def __call__(self, request: Request, /) -> Response:
        pool = self.state.open()
        extensions = request._extensions
        origin: Origin | None = None
        carrier: ConnectionUsed | None = None
        if extensions is not None:
            origin, carrier = extensions.get(Origin), extensions.get(ConnectionUsed)
        if origin is None:
            origin = origin_of(request.scheme, request.authority)
        if origin.scheme == "h3":
            return note_request(request, await self.state.h3.send(request, origin))
        if request.upgrade_protocol and origin.scheme == "https" and not _may_go_by_h2(request, origin, pool):
            origin = origin.http1_only
        connection = pool.acquire(origin)
        if connection is None:
            connection = await pool.open(pool.origin_pool(origin))
        reused = connection.reused
        if carrier is not None:
            carrier.stream = connection.stream
        try:
            try:
                return note_request(request, await connection.send(request))
            except UnprocessedError as error:
                return note_request(request, await _retry(pool, origin, request, error))
            except NoResponseError:  # the server closed an idle connection: a new one may work
                if not reused or not may_retry_on_stale_connection(request):
                    raise
                place = pool.origin_pool(origin)
                pool.close_idle(place)
                connection = await pool.open(place)
                if carrier is not None:
                    carrier.stream = connection.stream
                return note_request(request, await connection.send(request))
        except NoExtendedConnect:
            if origin.scheme != "https":
                raise
            return await self(request)  # over HTTP/1.1: the pool has remembered that HTTP/2 does not work


def _may_go_by_h2(request: Request, origin: Origin, pool: ConnectionPool) -> bool:
    """Whether an upgrade may share connections with other requests, including HTTP/2 connections (RFC 8441)."""
    return request.upgrade_protocol == "websocket" and pool.may_take_websockets(origin)


async def _retry(pool: ConnectionPool, origin: Origin, request: Request, error: UnprocessedError) -> Response:
    """Send a request again that a server has not processed, up to REFUSALS times."""
    for _ in range(MAX_REFUSED_RETRIES):
        if not error.is_body_there:
            break
        connection = pool.acquire(origin) or await pool.open(pool.origin_pool(origin))
        if (carrier := request.extensions.get(ConnectionUsed)) is not None:
            carrier.stream = connection.stream
        try:
            return await connection.send(request)
        except UnprocessedError as again:
            error = again
    raise error


def _connecting(
    connect: Connector, tls: Connector | None, timeout: float | None
) -> Callable[[Origin], Awaitable[Stream]]:
    secure: list[Connector] = [tls] if tls is not None else []

    async def open_stream(origin: Origin) -> Stream:
        if origin.scheme != "https":
            return await connect(origin.target)
        if not secure:  # loading the trust store is slow: only when it is needed
            secure.append(tls_connect(connect))
        return await secure[0](_target_with_tls_params(origin))

    async def reach(origin: Origin) -> Stream:
        try:
            if timeout is None:
                return await open_stream(origin)
            async with asyncio.timeout(timeout):
                return await open_stream(origin)
        except TimeoutError as error:
            reason = str(error) or f"no connection to {origin} within {timeout} s"
            raise UnreachableError(reason, status=504) from error
        except LlamaError:
            raise
        except OSError as error:
            raise UnreachableError(f"cannot connect to {origin}: {error.strerror or error}") from error

    return reach


def _target_with_tls_params(origin: Origin) -> Target:
    target = origin.target
    wanted = target.extensions.get(TLSParams)
    name = wanted.server_name if wanted is not None else None
    extensions = Extensions(TLSParams(ALPN[1:] if origin.is_http1_only else ALPN, name))
    merged = target.extensions.fork()
    merged.update(extensions)
    return Target(target.host, target.port, merged)


def _state(
    connect: Connector, tls: Connector | None, h3: RequestHandler | None, settings: ClientSettings
) -> ClientState:
    check_accepts(connect, Target, "http.client(connect=)")
    if tls is not None:
        check_accepts(tls, Target, "http.client(tls=)")
    reach = _connecting(connect, tls, settings.connect_timeout)
    return ClientState(reach, H3Route(h3, connect, tls, settings), settings)


@layer_factory("http.client", "request handler")
def client(
    connect: Connector | None = None, *, tls: Connector | None = None, h3: RequestHandler | None = None,
    connect_timeout: float | None = None, pool_timeout: float | None = None,
    response_header_timeout: float | None = None, body_timeout: float | None = None,
    write_timeout: float | None = None, idle_timeout: float | None = 60.0, max_connections: int | None = 16_384,
    max_per_host: int | None = 8_192, max_idle: int = 1024, max_idle_per_host: int = 256,
    max_waiting: int = 1024, limits: Limits = DEFAULT_LIMITS,
) -> Client:  # fmt: skip
    """Send each request to the origin of its URL, or to the `http.Origin` in its extensions.
    Uses HTTP/2 if ALPN selects it and for `h2c://`, and HTTP/3 for `h3://`, with concurrent requests on a connection.

    `connect` opens connections, by default `tcp.connect()`; `tls` those for https, by default `tls.connect(connect)`;
    `h3` handles h3 origins, by default `http.h3_client()` with the settings of all these (required if `connect` or
    `tls` is of another kind). Idle connections are reused: up to `max_idle` are kept, `max_idle_per_host` per origin,
    for `idle_timeout` seconds. `max_connections` and `max_per_host` limit the open connections, idle ones included
    (None for no limit); at the limit up to `max_waiting` requests wait in order for up to `pool_timeout` seconds; both
    a full queue and a timeout raise OverloadedError (503).

    Timeouts in seconds, None for no limit: `connect_timeout` (Unreachable, 504), `response_header_timeout` from the
    end of the request to the end of the response's head, `body_timeout` for each read of its body, `write_timeout`
    for the server to accept 64 KiB of the request and to acknowledge HTTP/2 SETTINGS (TimeoutError).

    Read the response's body to its end or close it: only then is the connection free. The body of the request may
    still be sent meanwhile. `response.upgrade` is a connection handler if the server switched protocols: for a
    WebSocket over HTTP/2 if the server supports RFC 8441, else over HTTP/1.1. A request is retried only if a reused
    connection ended before the first byte of the response, and either its method is idempotent and its body in memory,
    or it requests a tunnel.

    Raises UnreachableError or TLSError if connecting fails, TruncatedError if the connection ends too early,
    ProtocolError (502) for an invalid response. An async context manager that closes the pool on exit; `run` and
    `serve` enter it.

        async with http.client(head_timeout=10) as client:
            response = await client(Request("GET", "https://example.com/"))
            page = await response.body.read()
    """
    reach = connect or tcp_connect()
    times = (
        connect_timeout,
        pool_timeout,
        response_header_timeout,
        body_timeout,
        write_timeout,
        idle_timeout,
    )
    bounds = (max_connections, max_per_host, max_idle, max_idle_per_host, max_waiting)
    settings = ClientSettings(*times, *bounds, limits)
    return Client(reach, tls, h3, settings, _state(reach, tls, h3, settings))
