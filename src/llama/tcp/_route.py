"""Routing of connections by their first bytes, which stay in the stream: several protocols on one port."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

from llama._core.errors import ConfigError, ProtocolError
from llama._core.shutdown import Shutdown
from llama._core.stack import alpn_protocols, check_accepts, describe, display_name, layer_factory
from llama._core.stream import ConnectionHandler, Stream
from llama.tcp._protocol_detection import HTTP2, SOCKS4, SOCKS5, TLS, Matcher, begins_with, is_http1

Rule: TypeAlias = tuple[bytes | Matcher, ConnectionHandler]
MAX_SHOWN = 16
FIRST_BYTES_TIMEOUT = 1.0  # seconds for the first bytes of a connection once stopping has begun
DETECTION_LIMIT = 64  # bytes; enough for every built-in protocol


@dataclass(frozen=True, slots=True)
class Choice:
    """A protocol, the matcher of its first bytes, and its handler."""

    name: str
    matches: Matcher
    handler: ConnectionHandler


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class Route:
    """Passes each connection to the handler of the protocol that its first bytes belong to."""

    choices: tuple[Choice, ...]
    default: ConnectionHandler | None
    timeout: float | None
    limit: int

    __input_type__: ClassVar[type] = Stream

    @property
    def __alpn__(self) -> tuple[str, ...]:
        """The ALPN protocols that a TLS layer around it may offer: those of all handlers."""
        handlers = [each.handler for each in self.choices]
        return tuple(
            dict.fromkeys(name for each in (*handlers, self.default) for name in alpn_protocols(each))
        )

    def __repr__(self) -> str:
        shown = [f"{each.name}: {describe(each.handler)}" for each in self.choices]
        if self.default is not None:
            shown.append(f"default: {describe(self.default)}")
        return f"tcp.route({', '.join(shown)})"

    async def __call__(self, stream: Stream, /) -> None:
        shutdown = _current()
        left, data, late = await self._look(stream, shutdown)
        if late and shutdown is not None and shutdown.stopping:
            return  # the server is stopping and no byte has arrived: returning closes the connection
        if data:
            stream.unread(data)
        seen = data[: self.limit]
        handler = next((each.handler for each in left if seen and each.matches(seen)), self.default)
        if handler is not None:
            await handler(stream)
        elif late:
            raise TimeoutError(f"{_shown(data)} within {self.timeout:g} s")
        elif data:
            raise ProtocolError(f"no route for {_shown(data)}")
        # else the connection closed without a byte: a port scan, or a health check

    async def _look(self, stream: Stream, shutdown: Shutdown | None) -> tuple[Sequence[Choice], bytes, bool]:
        """Read until the route is decided; returns the remaining choices, the bytes read, and whether time is up."""
        left: Sequence[Choice] = self.choices
        data, bound = b"", asyncio.timeout(self.timeout)
        ignore_stop: Callable[[], object] = bool
        try:
            async with bound:
                if shutdown is not None:
                    ignore_stop = shutdown.on_stop(lambda: _shorten_timeout(bound))
                while left and len(data) < self.limit and (more := await stream.read()):
                    data += more
                    seen = data[: self.limit]
                    left = [each for each in left if each.matches(seen) is not False]
                    if left and left[0].matches(seen):
                        break
        except TimeoutError:
            if not bound.expired():
                raise
            return left, data, True
        except BaseException:
            if data:
                stream.unread(data)
            raise
        finally:
            ignore_stop()
        return left, data, False


def _current() -> Shutdown | None:
    try:
        return Shutdown.current()
    except RuntimeError:  # called without a server
        return None


def _shorten_timeout(bound: asyncio.Timeout) -> None:
    """Shorten the deadline: a silent connection must not delay a stop that has begun."""
    soon = asyncio.get_running_loop().time() + FIRST_BYTES_TIMEOUT
    if not bound.expired() and (bound.when() or soon) >= soon:
        bound.reschedule(soon)


def _shown(data: bytes) -> str:
    return f"a connection that begins {data[:MAX_SHOWN]!r}" if data else "no first bytes"


@layer_factory("tcp.route", "handler")
def route(
    *routes: Rule,
    tls: ConnectionHandler | None = None,
    socks5: ConnectionHandler | None = None,
    socks4: ConnectionHandler | None = None,
    http: ConnectionHandler | None = None,
    http2: ConnectionHandler | None = None,
    default: ConnectionHandler | None = None,
    timeout: float | None = None,
    limit: int = 256,
) -> ConnectionHandler:
    """Serve several protocols on one port: pass each connection to a handler by its first bytes.

    `tls` gets connections that start with a TLS handshake, `socks5` and `socks4` those of that SOCKS version, `http`
    HTTP/1 requests, and `http2` the HTTP/2 preface, by default `http` too. `routes` are additional pairs, tried
    before those: a prefix, or a function from the bytes so far to True, False, or None if it needs more bytes. The
    first match gets the connection, once all earlier ones have ruled it out. The bytes remain in the stream.

    `default` gets all other connections, and after `timeout` seconds also those that have not sent enough bytes,
    such as clients of a protocol in which the server speaks first. Without it they are closed. `limit` is the
    number of bytes examined.

        tcp.route((b"SSH-", tcp.forward("127.0.0.1:22")), tls=tcp.forward("127.0.0.1:8443"), default=echo)
    """
    if limit < DETECTION_LIMIT or (timeout is not None and timeout <= 0):
        raise ConfigError(
            f"tcp.route(limit={limit}, timeout={timeout}): "
            f"expected {DETECTION_LIMIT} bytes or more, and more than 0 s or None"
        )
    known = {
        "tls": (begins_with(TLS), tls),
        "socks5": (begins_with(SOCKS5), socks5),
        "socks4": (begins_with(SOCKS4), socks4),
        "http2": (begins_with(HTTP2), http2 or http),
        "http": (is_http1, http),
    }
    choices = [*_custom_routes(routes, limit)]
    choices += [Choice(name, test, handler) for name, (test, handler) in known.items() if handler is not None]
    if not choices and default is None:
        raise ConfigError("tcp.route() has no routes: give pairs, tls, socks5, http or default")
    for handler in (*(each.handler for each in choices), *([default] if default is not None else [])):
        check_accepts(handler, Stream, "tcp.route()")
    return Route(tuple(choices), default, timeout, limit)


def _custom_routes(routes: tuple[Rule, ...], limit: int) -> Iterator[Choice]:
    for test, handler in routes:
        if callable(test):
            yield Choice(display_name(test), test, handler)
        elif test and len(test) <= limit:
            yield Choice(repr(test), begins_with(test), handler)
        else:
            raise ConfigError(f"tcp.route(): expected a prefix of 1 to {limit} bytes, got {test!r}")
