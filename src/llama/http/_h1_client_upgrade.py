"""What a client has after the other side switched protocols: a handler, and the stream beneath it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from llama._errors import Closed
from llama._stream import Stream
from llama._target import Bridge, Relay, Target
from llama.tcp import relay as tcp_relay


@dataclass(frozen=True, slots=True, eq=False)
class Opened:
    """A connector to where a connection is open already, which it gives once; then Closed."""

    streams: list[Stream]

    async def __call__(self, target: Target, /) -> Stream:
        if not self.streams:
            raise Closed(f"the connection to {target} was used already")
        return self.streams.pop()


class Upgraded:
    """Carries what passes between a stream and the upstream that switched protocols.

    It is a handler, which a server runs in place of HTTP. `stream` is the upstream itself: for who speaks the
    new protocol here instead of passing it on, and closes it then.
    """

    __takes__: ClassVar[type] = Stream

    def __init__(
        self, stream: Stream, target: Target, relay: Relay | None, gone: Callable[[], object]
    ) -> None:
        self.stream = stream
        self._target = target
        self._relay = relay or tcp_relay()
        self._gone = gone

    def __del__(self) -> None:
        self.abort()

    def __repr__(self) -> str:
        return f"upgraded({self._target})"

    async def __call__(self, client: Stream, /) -> None:
        bridge = Bridge(client, self._target, Opened([self.stream]))
        try:
            await bridge.upstream()
            await self._relay(bridge)
            await bridge.aclose()
        finally:
            self.abort()

    def abort(self) -> None:
        """Break the upstream off, if it is open still."""
        self.stream.abort()
        self._gone()
