"""Late connections: a connector that succeeds at once and connects on first use of the stream."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import ClassVar

from llama._core.errors import Closed
from llama._core.meter import Meter, Pace
from llama._core.stack import check_takes, factory
from llama._core.stream import CHUNK, Buffer, Stream
from llama._core.target import Bridge, Connector, Target
from llama.http._messages.upgrade import Opened
from llama.tcp import connect as tcp_connect


class LateStream(Stream):
    """A stream to a target that connects on first use; it owns the stream it opens."""

    __slots__ = ("_closed", "_connect", "_lock", "_opened", "_target", "_unread")

    def __init__(self, connect: Connector, target: Target) -> None:
        super().__init__()
        self._connect = connect
        self._target = target
        self._lock = asyncio.Lock()
        self._opened: Stream | None = None
        self._unread = b""
        self._closed = False

    def __repr__(self) -> str:
        return f"<late stream to {self._target}>"

    @property
    def is_opened(self) -> bool:
        """Whether the connection was opened."""
        return self._opened is not None

    def tell(self, value: object) -> None:
        """Set a value in the target's extensions, for the connector."""
        extensions = self._target.extensions.fork()
        extensions.set(value)
        self._target = Target(self._target.host, self._target.port, extensions)

    async def opened(self) -> Stream:
        """Return the underlying stream, opened on the first call."""
        async with self._lock:
            self._check_open()
            if self._opened is None:
                self._opened = await self._connect(self._target)
                try:
                    self._check_open()  # it may have been closed meanwhile
                except Closed:
                    self._opened.abort()
                    raise
                for meter in self._pace.meters if self._pace is not None else ():
                    self._opened.attach(meter)
                self._pace = None
                if self._unread:
                    self._opened.unread(self._unread)
                    self._unread = b""
            return self._opened

    def _check_open(self) -> None:
        if self._closed:
            raise Closed(f"{self!r} is closed")

    @property
    def pace(self) -> Pace | None:
        return self._pace if self._opened is None else self._opened.pace

    def attach(self, meter: Meter, /) -> None:
        if self._opened is None:
            super().attach(meter)
        else:
            self._opened.attach(meter)

    def detach(self, meter: Meter, /) -> None:
        if self._opened is None:
            super().detach(meter)
        else:
            self._opened.detach(meter)

    async def read(self, limit: int = CHUNK, /) -> bytes:
        return await (await self.opened()).read(limit)

    async def write(self, data: Buffer, /) -> None:
        await (await self.opened()).write(data)

    async def write_eof(self) -> None:
        await (await self.opened()).write_eof()

    def unread(self, data: bytes, /) -> None:
        if self._opened is None:
            self._unread = data + self._unread
        else:
            self._opened.unread(data)

    async def aclose(self) -> None:
        self._closed = True
        if self._opened is not None:
            await self._opened.aclose()

    def abort(self) -> None:
        self._closed = True
        if self._opened is not None:
            self._opened.abort()


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class Late:
    """A connector whose streams open on first use."""

    inner: Connector

    __takes__: ClassVar[type] = Target

    def __repr__(self) -> str:
        return "mitm.late()"

    async def __call__(self, target: Target, /) -> Stream:
        return LateStream(self.inner, target)


@factory("mitm.late", "connector")
def late(connect: Connector | None = None) -> Connector:
    """Connect to targets on first use: for listeners that connect before they call the relay.

    `connect` opens the connections, by default `tcp.connect()`. Clients of `socks5.server` or `http.proxy` get
    their success reply at once. `mitm.relay` can then answer for the magic host and from a replay without an
    upstream, and show an error page inside the client's TLS if the target is unreachable.

        socks5.server(connect=mitm.late(), relay=mitm.relay(ca, layer))
    """
    connect = connect or tcp_connect()
    check_takes(connect, Target, "mitm.late()")
    return Late(connect)


async def at_last(stream: Stream) -> Stream:
    """Return the underlying stream; a late stream is opened now."""
    return await stream.opened() if isinstance(stream, LateStream) else stream


async def reached(bridge: Bridge) -> Bridge:
    """Connect a bridge's upstream now and return the bridge, for relays that check the stream's type."""
    upstream = await bridge.upstream()
    stream = await at_last(upstream)
    if stream is upstream:
        return bridge
    return Bridge(bridge.client, bridge.target, Opened([stream], bridge.connect))
