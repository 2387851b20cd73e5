"""Routing by the first bytes, which stay in the stream: one port for several protocols."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

from llama._errors import ConfigError, ProtocolError
from llama._shutdown import Shutdown
from llama._stack import check_takes, describe, factory, name_of, spoken
from llama._stream import Handler, Stream
from llama.tcp._first_bytes_wire import HTTP2, SOCKS4, SOCKS5, TLS, Matcher, begins_with, is_http1

Rule: TypeAlias = tuple[bytes | Matcher, Handler]
SHOWN = 16
ARRIVING = 1.0  # seconds that the first bytes of a connection may take once stopping has begun
SHORTEST = 64  # all protocols that are known here can be told by less


@dataclass(frozen=True, slots=True)
class Choice:
    """A protocol, by what it begins with, and who speaks it."""

    name: str
    matches: Matcher
    handler: Handler


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class Route:
    """Gives each connection to the handler of the protocol that its first bytes begin."""

    choices: tuple[Choice, ...]
    default: Handler | None
    timeout: float | None
    limit: int

    __takes__: ClassVar[type] = Stream

    @property
    def __alpn__(self) -> tuple[str, ...]:
        """What TLS around it may offer: all that its handlers speak."""
        handlers = [each.handler for each in self.choices]
        return tuple(dict.fromkeys(name for each in (*handlers, self.default) for name in spoken(each)))

    def __repr__(self) -> str:
        shown = [f"{each.name}: {describe(each.handler)}" for each in self.choices]
        if self.default is not None:
            shown.append(f"default: {describe(self.default)}")
        return f"tcp.route({', '.join(shown)})"

    async def __call__(self, stream: Stream, /) -> None:
        shutdown = _current()
        left, data, late = await self._look(stream, shutdown)
        if late and shutdown is not None and shutdown.stopping:
            return  # which closes it: nobody has begun to speak
        if data:
            stream.unread(data)
        seen = data[: self.limit]
        handler = next((each.handler for each in left if seen and each.matches(seen)), self.default)
        if handler is not None:
            await handler(stream)
        elif late:
            raise TimeoutError(f"{_shown(data)} within {self.timeout:g} s")
        elif data:
            raise ProtocolError(f"there is no route for {_shown(data)}")
        # else nothing came at all: a port scan, or a health check

    async def _look(self, stream: Stream, shutdown: Shutdown | None) -> tuple[Sequence[Choice], bytes, bool]:
        """Read until it is clear: the choices that are left, all that was read, and whether time is up."""
        left: Sequence[Choice] = self.choices
        data, bound = b"", asyncio.timeout(self.timeout)
        ignore_stop: Callable[[], object] = bool
        try:
            async with bound:
                if shutdown is not None:
                    ignore_stop = shutdown.on_stop(lambda: _hurry(bound))
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
    except RuntimeError:  # run by hand, without a server
        return None


def _hurry(bound: asyncio.Timeout) -> None:
    """Stopping has begun: who says nothing does not hold it up."""
    soon = asyncio.get_running_loop().time() + ARRIVING
    if not bound.expired() and (bound.when() or soon) >= soon:
        bound.reschedule(soon)


def _shown(data: bytes) -> str:
    return f"a connection that begins {data[:SHOWN]!r}" if data else "no first bytes"


@factory("tcp.route", "handler")
def route(
    *routes: Rule,
    tls: Handler | None = None,
    socks5: Handler | None = None,
    socks4: Handler | None = None,
    http: Handler | None = None,
    http2: Handler | None = None,
    default: Handler | None = None,
    timeout: float | None = None,
    limit: int = 256,
) -> Handler:
    """One port for several protocols: give each connection to a handler by the first bytes that come.

    `tls` gets what begins a handshake, `socks5` and `socks4` that version of SOCKS, `http` HTTP/1 requests, and
    `http2` what sends HTTP/2's preface, by default `http` too. `routes` are pairs of your own, asked before those:
    the bytes that a protocol begins with, or a function that tells of the bytes so far whether it is this one, with
    None where it takes more. The first that fits gets the connection, once all before it have said that it is not
    theirs. All bytes are still in the stream then.

    `default` gets the others, and after `timeout` seconds also who has not sent enough, such as a client of a
    protocol in which the server speaks first. Without it they are closed. `limit` is how many bytes are looked at.

        tcp.route((b"SSH-", tcp.forward("127.0.0.1:22")), tls=tcp.forward("127.0.0.1:8443"), default=echo)
    """
    if limit < SHORTEST or (timeout is not None and timeout <= 0):
        raise ConfigError(
            f"tcp.route(limit={limit}, timeout={timeout}): expected {SHORTEST} bytes or more, and more than 0 s or None"
        )
    known = {
        "tls": (begins_with(TLS), tls),
        "socks5": (begins_with(SOCKS5), socks5),
        "socks4": (begins_with(SOCKS4), socks4),
        "http2": (begins_with(HTTP2), http2 or http),
        "http": (is_http1, http),
    }
    choices = [*_own(routes, limit)]
    choices += [Choice(name, test, handler) for name, (test, handler) in known.items() if handler is not None]
    if not choices and default is None:
        raise ConfigError("tcp.route() has no routes: give pairs, tls, socks5, http or default")
    for handler in (*(each.handler for each in choices), *([default] if default is not None else [])):
        check_takes(handler, Stream, "tcp.route()")
    return Route(tuple(choices), default, timeout, limit)


def _own(routes: tuple[Rule, ...], limit: int) -> Iterator[Choice]:
    for test, handler in routes:
        if callable(test):
            yield Choice(name_of(test), test, handler)
        elif test and len(test) <= limit:
            yield Choice(repr(test), begins_with(test), handler)
        else:
            raise ConfigError(f"tcp.route(): {test!r} is no beginning of 1 to {limit} bytes")
