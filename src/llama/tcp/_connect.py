"""The TCP connector: it resolves names, races addresses, and sets socket options."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import ClassVar, TypeAlias

from llama._core.errors import LlamaError, UnreachableError
from llama._core.stack import layer_factory
from llama._core.stream import Stream
from llama._core.target import Connector, Target
from llama.tcp._io.connect_timing import ConnectTiming
from llama.tcp._io.dial import Dial
from llama.tcp._policy.address_filter import filter_addresses

Resolver: TypeAlias = Callable[[str, int], Awaitable[Sequence[str]]]
"""Resolves a host name and port to addresses, the preferred one first; raises OSError if there are none."""

ATTEMPT_DELAY = 0.25


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class Connect:
    """Connects to a target over TCP."""

    timeout: float | None
    resolver: Resolver
    bind: tuple[str, int] | None
    keepalive: float | None
    nodelay: bool

    __input_type__: ClassVar[type] = Target

    def __repr__(self) -> str:
        return "tcp.connect()"

    async def __call__(self, target: Target, /) -> Stream:
        try:
            dial = self._dial_literal(target)
            if dial is not None and (stream := dial.stream()) is not None:
                return stream
            connecting = self._connect(target) if dial is None else dial.wait()
            if self.timeout is None:
                return await connecting
            return await self._with_timeout(connecting, self.timeout, target)
        except LlamaError:
            raise
        except OSError as error:
            if isinstance(error, TimeoutError) and error.errno is None:
                raise  # from a timeout, not from the system
            reason = error.strerror or str(error)
            raise UnreachableError(f"cannot connect to {target}: {reason}") from error

    async def _with_timeout(
        self, connecting: Coroutine[None, None, Stream], seconds: float, target: Target
    ) -> Stream:
        clock = asyncio.timeout(seconds)
        try:
            async with clock:
                return await connecting
        except TimeoutError:
            if clock.expired():
                raise TimeoutError(f"no connection to {target} within {seconds:g} s") from None
            raise

    def _dial_literal(self, target: Target) -> Dial | None:
        """Start to connect to a target that needs no resolver; None for a host name."""
        host = target.host
        if host.startswith("unix:"):
            return Dial(socket.AF_UNIX, host[5:], target)
        family = _family(host)
        if family is None:
            return None
        filter_addresses(target, (host,))
        return Dial(family, (host, target.port), target, self._set_options)

    async def _connect(self, target: Target) -> Stream:
        dialled = target.extensions.get(ConnectTiming)
        began = time.monotonic() if dialled is not None else 0.0
        addresses = interleave(filter_addresses(target, await self.resolver(target.host, target.port)))
        if dialled is not None:
            dialled.dns = time.monotonic() - began
        if not addresses:
            raise OSError(errno.EADDRNOTAVAIL, f"{target.host} has no address")
        if len(addresses) == 1:
            return await self._open(addresses[0], target)
        return await _race([partial(self._open, each, target) for each in addresses])

    async def _open(self, address: str, target: Target) -> Stream:
        family = _family(address)
        if family is None:
            raise OSError(
                errno.EADDRNOTAVAIL, f"the resolver returned {address!r}, which is not an IP address"
            )
        dial = Dial(family, (address, target.port), target, self._set_options)
        return dial.stream() or await dial.wait()

    def _set_options(self, sock: socket.socket) -> None:
        if self.nodelay:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.keepalive is not None:
            set_keepalive(sock, self.keepalive)
        if self.bind is not None:
            sock.bind(self.bind)


@layer_factory("tcp.connect", "connector")
def connect(
    *,
    timeout: float | None = None,
    resolver: Resolver | None = None,
    bind: tuple[str, int] | None = None,
    keepalive: float | None = None,
    nodelay: bool = True,
) -> Connector:
    """Connect over TCP; the addresses of a name are raced (Happy Eyeballs, RFC 8305).

    A target `unix:PATH` is a Unix-domain socket.

    `timeout` in seconds covers resolving and connecting; `resolver` replaces the system's; `bind` is the
    local address and port (0: any); `keepalive` is the number of idle seconds before the first TCP keep-alive
    probe; `nodelay` sends small writes immediately. Raises UnreachableError, or TimeoutError.
    """
    return Connect(timeout, resolver or resolve, bind, keepalive, nodelay)


async def resolve(host: str, port: int) -> list[str]:
    """Resolve a name with the system's resolver, in its order."""
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as error:  # an empty or too long label
        raise socket.gaierror(socket.EAI_NONAME, f"{host[:80]!r} is not a host name: {error}") from None
    return list(dict.fromkeys(str(each[4][0]) for each in found))


@lru_cache(4096)
def _family(host: str) -> socket.AddressFamily | None:
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, host.partition("%")[0])
        except (OSError, ValueError):
            continue
        return family
    return None


def interleave(addresses: Sequence[str]) -> list[str]:
    """Interleave the addresses of both families, starting with the first one's (RFC 8305, section 4)."""
    if not addresses:
        return []
    first = [each for each in addresses if _family(each) == _family(addresses[0])]
    second = [each for each in addresses if _family(each) != _family(addresses[0])]
    mixed: list[str] = []
    for position in range(max(len(first), len(second))):
        mixed += first[position : position + 1] + second[position : position + 1]
    return mixed


async def _race(attempts: Sequence[Callable[[], Awaitable[Stream]]]) -> Stream:
    """Start an attempt every quarter second, or immediately after a failure; the first connection wins."""
    won: list[Stream] = []
    errors: list[OSError] = []

    async def attempt(start: Callable[[], Awaitable[Stream]], failed: asyncio.Event) -> None:
        try:
            won.append(await start())
        except OSError as error:
            errors.append(error)
            failed.set()
        else:
            raise _RaceWon

    try:
        await _stagger(attempts, attempt)
    except BaseException:
        for stream in won:
            stream.abort()
        raise
    for spare in won[1:]:
        spare.abort()
    if not won:
        raise errors[0]
    return won[0]


async def _stagger(
    attempts: Sequence[Callable[[], Awaitable[Stream]]],
    attempt: Callable[[Callable[[], Awaitable[Stream]], asyncio.Event], Coroutine[None, None, None]],
) -> None:
    try:
        async with asyncio.TaskGroup() as group:
            for start in attempts:
                failed = asyncio.Event()
                group.create_task(attempt(start, failed))
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(ATTEMPT_DELAY):
                        await failed.wait()
    except* _RaceWon:
        pass


class _RaceWon(Exception):
    """Raised by the winning attempt to end the race."""


def set_keepalive(sock: socket.socket, seconds: float) -> None:
    """Enable keep-alive probes after `seconds` (at least 1) of silence, repeated at that interval."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    idle = max(1, round(seconds))
    for name, value in (("TCP_KEEPIDLE", idle), ("TCP_KEEPALIVE", idle), ("TCP_KEEPINTVL", idle)):
        option = getattr(socket, name, None)
        if option is not None:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
