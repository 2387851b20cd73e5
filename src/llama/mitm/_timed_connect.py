"""How long connections to upstreams take, for what is recorded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from llama._core.stream import Stream
from llama._core.target import Bridge, Connector, Target
from llama.http._messages.upgrade import UpgradeStreams
from llama.mitm._lazy_connect import LazyStream, opened
from llama.tcp._io.connect_timing import ConnectTiming


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class TimedConnect:
    """Reaches targets, and notes in the streams' extensions how long that took; around TLS as well."""

    inner: Connector

    __input_type__: ClassVar[type] = Target

    def __repr__(self) -> str:
        return repr(self.inner)

    async def __call__(self, target: Target, /) -> Stream:
        dialled = ConnectTiming()
        extensions = target.extensions.fork()
        extensions.set(dialled)
        stream = await opened(await self.inner(Target(target.host, target.port, extensions)))
        beneath = stream.extensions.get(ConnectTiming)
        if beneath is None:
            dialled.done(stream)
        else:
            beneath.secured()
        return stream


def timed(connect: Connector) -> Connector:
    """The same connector, which notes how long it took."""
    return TimedConnect(connect)


async def first(bridge: Bridge) -> Stream:
    """A bridge's own upstream; how long that took is noted, unless it was there before."""
    dialled = ConnectTiming(is_reused=_is_open(bridge))
    bridge.target.extensions.set(dialled)
    upstream = await bridge.upstream()
    if isinstance(upstream, LazyStream):
        upstream.tell(dialled)
    stream = await opened(upstream)
    dialled.done(stream)
    return stream


def _is_open(bridge: Bridge) -> bool:
    there = bridge._upstream
    if there is None and isinstance(bridge.connect, UpgradeStreams) and bridge.connect.streams:
        there = bridge.connect.streams[-1]
    return there.is_opened if isinstance(there, LazyStream) else there is not None
