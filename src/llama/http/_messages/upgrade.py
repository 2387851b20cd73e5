"""The hand-over of a client's connection after the server switched protocols (101, or 2xx for CONNECT).

What can happen: a proxy passes the response on, and its server runs `response.upgrade` with the client's stream, so
that bytes are relayed both ways; or the caller speaks the new protocol itself on `upgrade.stream`, as the WebSocket
client does; or a layer replaces or drops the response, and nothing ever runs the upgrade; or the relay opens a second
upstream connection through the bridge.

What must never happen: the upstream connection leaks, or returns to the pool as an HTTP connection; bytes of the new
protocol that arrived in the same read as the head are lost; two owners close or use the stream; the slot in the pool
stays taken after the connection has ended.

How: `UpgradedConnection` owns the stream from the head on. The client first puts the bytes that it read after the
head back into the stream (`unread`), so that every reader starts at the first byte of the new protocol.
`UpgradedConnection` is itself a connection handler, so a reverse proxy passes it on unchanged as its own `upgrade`.
The relay gets an ordinary `Bridge`, whose connector (`UpgradeStreams`) returns the open stream exactly once: relays
for TCP targets and for upgrades are therefore the same code. Each way out ends in `abort`: after the relay has
finished (`finally`), in the response's `on_close`, which runs at the latest when it is garbage-collected, and in
`__del__`. It aborts the stream and calls `gone`, which frees the slot in the pool. `release` gives the stream to
another owner, and disables `abort`.

A graceful close comes from the bridge; `abort` after it has no effect on a stream that is closed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from llama._core.errors import StreamClosedError
from llama._core.stream import Stream
from llama._core.target import Bridge, Connector, Relay, Target
from llama.tcp import relay as tcp_relay


@dataclass(frozen=True, slots=True, eq=False)
class UpgradeStreams:
    """A connector that first returns an open connection, then connects through `then`.

    Raises StreamClosedError if the connection was already returned and `then` is None.
    """

    streams: list[Stream]
    then: Connector | None

    async def __call__(self, target: Target, /) -> Stream:
        if self.streams:
            return self.streams.pop()
        if self.then is None:
            raise StreamClosedError(f"the connection to {target} was already used")
        return await self.then(target)


class UpgradedConnection:
    """A connection handler that relays a stream to an open upstream connection, which it owns.

    A server runs it in place of HTTP. A caller that speaks the new protocol itself uses and closes `stream`, the
    upstream connection, instead. `gone` is called when the upstream connection has ended.
    """

    __input_type__: ClassVar[type] = Stream

    def __init__(
        self,
        stream: Stream,
        target: Target,
        relay: Relay | None = None,
        connect: Connector | None = None,
        gone: Callable[[], object] | None = None,
    ) -> None:
        self.stream = stream
        self._target = target
        self._relay = relay or tcp_relay()
        self._connect = connect
        self._gone = gone
        self._is_released = False

    def __del__(self) -> None:
        self.abort()

    def __repr__(self) -> str:
        return f"upgraded({self._target})"

    async def __call__(self, client: Stream, /) -> None:
        bridge = Bridge(client, self._target, UpgradeStreams([self.stream], self._connect))
        try:
            await bridge.upstream()
            await self._relay(bridge)
            await bridge.aclose()
        finally:
            self.abort()

    def release(self) -> Stream:
        """Transfer ownership of the upstream stream to the caller, who must close it; `abort` then does nothing."""
        self._is_released = True
        return self.stream

    def abort(self) -> None:
        """Abort the upstream connection and report it as gone, unless it was released."""
        if self._is_released:
            return
        self.stream.abort()
        if self._gone is not None:
            self._gone()
