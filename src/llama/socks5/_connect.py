"""The connector through a SOCKS5 proxy."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias

from llama._core.errors import ConfigError, UnreachableError
from llama._core.stack import layer_factory
from llama._core.stream import Stream
from llama._core.target import Connector, Target
from llama.socks5._client_handshake import ProxyClient, proxy_client
from llama.socks5._wire.address import pack
from llama.socks5._wire.socks5 import Command
from llama.tcp._connect import Resolver, resolve
from llama.tcp._policy.address_filter import filter_addresses

Resolve: TypeAlias = Literal["remote", "local"]


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class Socks5Connect:
    """Connects to targets through a SOCKS5 proxy."""

    proxy: ProxyClient
    resolver: Resolver | None

    __input_type__: ClassVar[type] = Target

    @property
    def inner(self) -> Connector:
        """The connector to the proxy."""
        return self.proxy.connect

    def __repr__(self) -> str:
        return f"socks5.connect({self.proxy.target})"

    async def __call__(self, target: Target, /) -> Stream:
        if self.resolver is not None:
            target = await _resolve(target, self.resolver)
        elif pack(target.host) is not None:
            filter_addresses(target, (target.host,))
        async with self.proxy.open(target) as stream:
            await self.proxy.request(stream, Command.CONNECT, target)
        return stream


async def _resolve(target: Target, resolver: Resolver) -> Target:
    if pack(target.host) is not None:
        addresses = filter_addresses(target, (target.host,))
    else:
        try:
            addresses = filter_addresses(target, await resolver(target.host, target.port))
        except OSError as error:
            if isinstance(error, PermissionError):
                raise
            raise UnreachableError(f"cannot resolve {target.host}: {error.strerror or error}") from error
    if not addresses:
        missing = OSError(errno.EADDRNOTAVAIL, "no address")
        raise UnreachableError(f"cannot resolve {target.host}: it has no address") from missing
    return Target(addresses[0], target.port, target.extensions)


@layer_factory("socks5.connect", "connector")
def connect(
    proxy: str | Target,
    *,
    user: str | None = None,
    password: str | None = None,
    connect: Connector | None = None,
    resolve: Resolve = "remote",
    handshake_timeout: float | None = None,
) -> Connector:
    """Connect through a SOCKS5 proxy, `HOST` or `HOST:PORT` (1080 without one).

    `user` and `password` are sent if the proxy requires them. `connect` connects to the proxy, by default
    `tcp.connect()`: pass another proxy's connector for a chain. The proxy resolves names; with `resolve="local"`
    this process does, and uses the first address. `handshake_timeout`, in seconds, limits the time from the
    connection to the proxy until the proxy has reached the target.

    Failures are those of a direct connection: UnreachableError, whose cause has the errno of the proxy's reply, or
    Refused with the text of the reply. Errors of `connect` are raised too. Raises ConfigError for invalid settings.

        socks5.connect("127.0.0.1:9050", connect=tls.connect())
    """
    if resolve not in ("remote", "local"):
        raise ConfigError(f"socks5.connect(resolve={resolve!r}): expected 'remote' or 'local'")
    made = proxy_client("socks5.connect", proxy, user, password, connect, handshake_timeout)
    return Socks5Connect(made, _system if resolve == "local" else None)


_system: Resolver = resolve
