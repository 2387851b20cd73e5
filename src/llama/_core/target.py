"""Targets, connectors, and the bridge between a client and its target."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TypeAlias

from llama._core.errors import ConfigError
from llama._core.extensions import Extensions
from llama._core.service import Service
from llama._core.stack import register_input_type
from llama._core.stream import Stream


@register_input_type
@dataclass(frozen=True, slots=True)
class Target:
    """The destination of a connection: a host name, an address or `unix:PATH`, and a port (0 for a path)."""

    host: str
    port: int
    extensions: Extensions = field(default_factory=Extensions, compare=False, repr=False)

    @classmethod
    def parse(cls, text: str, *, default_port: int | None = None) -> Target:
        """Parse `HOST:PORT`, `[IPV6]:PORT` or `unix:PATH`; raises ConfigError for anything else."""
        if text == "unix:":
            raise ConfigError(f"{text!r} has an empty path: expected unix:PATH")
        if text.startswith("unix:"):
            return cls(text, 0)
        host, port = split_address(text, default_port)
        if not host:
            raise ConfigError(f"{text!r} has an empty host: expected HOST:PORT, [IPV6]:PORT or unix:PATH")
        return cls(host, port)

    def fork(self, extensions: Extensions) -> Target:
        """Return this target with a copy of `extensions`, overridden by the target's own."""
        merged = extensions.fork()
        if len(self.extensions):
            merged.update(self.extensions)
        return Target(self.host, self.port, merged)

    def __str__(self) -> str:
        if self.host.startswith("unix:"):
            return self.host
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


_ADDRESS = re.compile(r"(?:\[([^\[\]]+)\]|([^:\[\]]*))(?::([0-9]{1,5}))?", re.ASCII)


def split_address(text: str, default_port: int | None = None) -> tuple[str, int]:
    """Split `HOST:PORT`, `[IPV6]:PORT`, `:PORT` or, with a default port, `HOST`."""
    if "@" in text:  # the text before it may be a password: keep it out of the message
        here = text.rpartition("@")[2]
        raise ConfigError(f"the address ending in {here!r} has a user: expected HOST:PORT")
    match = _ADDRESS.fullmatch(text)
    if match is None:
        hint = ": write an IPv6 address in brackets, as [::1]:443" if text.count(":") > 1 else ""
        raise ConfigError(f"{text!r} is not an address of the form HOST:PORT{hint}")
    port = int(match[3]) if match[3] else default_port
    if port is None or port > 65535:
        raise ConfigError(f"{text!r} is not an address: expected HOST:PORT with a port from 0 to 65535")
    return match[1] or match[2], port


Connector: TypeAlias = Service[Target, Stream]
"""Connects to a target and returns the stream."""


@register_input_type
class Bridge:
    """A client, the target that it requested, and the connector; the upstream connection opens on first use.

    The bridge owns the upstream and closes it; the creator of the bridge owns the client.
    """

    __slots__ = ("_upstream", "client", "connect", "target")

    def __init__(self, client: Stream, target: Target, connect: Connector) -> None:
        self.client = client
        self.target = target.fork(client.extensions)
        self.connect = connect
        self._upstream: Stream | None = None

    @property
    def extensions(self) -> Extensions:
        """The client's extensions."""
        return self.client.extensions

    async def upstream(self) -> Stream:
        """Return the stream to the target, opened once; to open another, call `connect`."""
        if self._upstream is None:
            self._upstream = await self.connect(self.target)
        return self._upstream

    async def aclose(self) -> None:
        """Close the upstream, if it was opened."""
        if self._upstream is not None:
            await self._upstream.aclose()

    def abort(self) -> None:
        """Abort the upstream, if it was opened."""
        if self._upstream is not None:
            self._upstream.abort()


Relay: TypeAlias = Service[Bridge, None]
"""Carries the bytes between the two ends of a bridge."""
