"""Late connections: a connector that succeeds at once and connects on first use of the stream."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import ClassVar

from llama._core.errors import StreamClosedError
from llama._core.meter import Meter, Pacer
from llama._core.stack import check_accepts, layer_factory
from llama._core.stream import DEFAULT_READ_SIZE, Buffer, Stream
from llama._core.target import Bridge, Connector, Target
from llama.http._messages.upgrade import UpgradeStreams
from llama.tcp import connect as tcp_connect


class LazyStream(Stream):
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

    async def open(self) -> Stream:
        """Return the underlying stream, opened on the first call."""
        async with self._lock:
            self._check_open()
            if self._opened is None:
                self._opened = await self._connect(self._target)
                try:
                    self._check_open()  # it may have been closed meanwhile
                except StreamClosedError:
                    self._opened.abort()
                    raise
                for meter in self._pacer.meters if self._pacer is not None else ():
                    self._opened.attach(meter)
                self._pacer = None
                if self._unread:
                    self._opened.unread(self._unread)
                    self._unread = b""
            return self._opened

    def _check_open(self) -> None:
        if self._closed:
            raise StreamClosedError(f"{self!r} is closed")

    @property
    def pacer(self) -> Pacer | None:
        return self._pacer if self._opened is None else self._opened.pacer

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

    async def read(self, limit: int = DEFAULT_READ_SIZE, /) -> bytes:
        return await (await self.open()).read(limit)

    async def write(self, data: Buffer, /) -> None:
        await (await self.open()).write(data)

    async def write_eof(self) -> None:
        await (await self.open()).write_eof()

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
class LazyConnect:
    """A connector whose streams open on first use."""

    inner: Connector

    __input_type__: ClassVar[type] = Target

    def __repr__(self) -> str:
        return "mitm.lazy_connect()"

    async def __call__(self, target: Target, /) -> Stream:
        return LazyStream(self.inner, target)


@layer_factory("mitm.lazy_connect", "connector")
def lazy_connect(connect: Connector | None = None) -> Connector:
    """Connect to targets on first use: for listeners that connect before they call the relay.

    `connect` opens the connections, by default `tcp.connect()`. Clients of `socks5.server` or `http.proxy` get
    their success reply at once. `mitm.relay` can then answer for the magic host and from a replay without an
    upstream, and show an error page inside the client's TLS if the target is unreachable.

        socks5.server(connect=mitm.lazy_connect(), relay=mitm.relay(ca, layer))
    """
    connect = connect or tcp_connect()
    check_accepts(connect, Target, "mitm.lazy_connect()")
    return LazyConnect(connect)


async def opened(stream: Stream) -> Stream:
    """Return the underlying stream; a late stream is opened now."""
    return await stream.open() if isinstance(stream, LazyStream) else stream


async def with_upstream(bridge: Bridge) -> Bridge:
    """Connect a bridge's upstream now and return the bridge, for relays that check the stream's type."""
    upstream = await bridge.upstream()
    stream = await opened(upstream)
    if stream is upstream:
        return bridge
    return Bridge(bridge.client, bridge.target, UpgradeStreams([stream], bridge.connect))
