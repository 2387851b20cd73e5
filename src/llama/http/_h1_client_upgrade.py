"""What a client has after the other side switched protocols: a handler, and the stream beneath it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from llama._errors import Closed
from llama._stream import Stream
from llama._target import Bridge, Connector, Relay, Target
from llama.tcp import relay as tcp_relay


@dataclass(frozen=True, slots=True, eq=False)
class Opened:
    """A connector to where a connection is open already: it gives that one first, then opens others by `then`."""

    streams: list[Stream]
    then: Connector | None

    async def __call__(self, target: Target, /) -> Stream:
        if self.streams:
            return self.streams.pop()
        if self.then is None:
            raise Closed(f"the connection to {target} was used already")
        return await self.then(target)


class Upgraded:
    """Carries what passes between a stream and an upstream that is open already.

    It is a handler, which a server runs in place of HTTP. `stream` is the upstream itself: for who speaks the
    new protocol here instead of passing it on, and closes it then. `gone` is called when the upstream is.
    """

    __takes__: ClassVar[type] = Stream

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
        bridge = Bridge(client, self._target, Opened([self.stream], self._connect))
        try:
            await bridge.upstream()
            await self._relay(bridge)
            await bridge.aclose()
        finally:
            self.abort()

    def release(self) -> Stream:
        """The upstream, for who ends it: it is not broken off with this any more."""
        self._is_released = True
        return self.stream

    def abort(self) -> None:
        """Break the upstream off, if it is open still."""
        if self._is_released:
            return
        self.stream.abort()
        if self._gone is not None:
            self._gone()
