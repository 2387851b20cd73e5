"""Forwarding of connections to a fixed target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from llama._core.stack import check_accepts, layer_factory
from llama._core.stream import ConnectionHandler, Stream
from llama._core.target import Bridge, Connector, Relay, Target
from llama.tcp._connect import connect as tcp_connect
from llama.tcp._relay.relay import relay as tcp_relay


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class Forward:
    """Relays each connection to one target."""

    target: Target
    connect: Connector
    relay: Relay

    __input_type__: ClassVar[type] = Stream

    def __repr__(self) -> str:
        return f"tcp.forward({self.target})"

    async def __call__(self, stream: Stream, /) -> None:
        bridge = Bridge(stream, self.target, self.connect)
        try:
            await self.relay(bridge)
            await bridge.aclose()
        finally:
            bridge.abort()


@layer_factory("tcp.forward", "handler")
def forward(
    to: str | Target, *, connect: Connector | None = None, relay: Relay | None = None
) -> ConnectionHandler:
    """Relay every connection to one target, `HOST:PORT` or a Target.

    `connect` connects to it, by default `tcp.connect()`; `relay` copies the bytes, by default `tcp.relay()`.
    Raises ConfigError for an invalid address.
    """
    target = Target.parse(to) if isinstance(to, str) else to
    connect = connect or tcp_connect()
    relay = relay or tcp_relay()
    check_accepts(connect, Target, "tcp.forward(connect=)")
    check_accepts(relay, Bridge, "tcp.forward(relay=)")
    return Forward(target, connect, relay)
