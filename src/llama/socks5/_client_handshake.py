"""The client's part of the handshake with a proxy."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from llama._core.errors import (
    ConfigError,
    LlamaError,
    ProtocolError,
    RefusedError,
    TruncatedError,
    UnreachableError,
)
from llama._core.stack import check_accepts
from llama._core.stream import Stream
from llama._core.target import Connector, Target
from llama.socks5._read_message import read_message
from llama.socks5._reply_codes import error_of
from llama.socks5._wire import socks5 as wire
from llama.socks5._wire.address import Address
from llama.tcp import connect as tcp_connect
from llama.tcp._policy.address_filter import proxy_hop


@dataclass(frozen=True, slots=True)
class ProxyClient:
    """A SOCKS5 proxy, the connector to it, and the credentials for it."""

    target: Target
    connect: Connector
    credentials: bytes | None
    handshake_timeout: float | None

    @asynccontextmanager
    async def open(self, target: Target) -> AsyncGenerator[Stream]:
        """Open an authenticated stream to the proxy; a block that raises aborts it.

        The handshake timeout includes the block. Errors are reported as failures to reach `target`.
        """
        stream = await self.connect(proxy_hop(self.target, target))
        async with self.keep_open(stream, target):
            clock = asyncio.timeout(self.handshake_timeout)
            try:
                async with clock:
                    await self._authenticate(stream)
                    yield stream
            except TimeoutError as error:
                if not clock.expired():
                    raise
                raise TimeoutError(
                    f"{self._error_context(target)}: no answer in {self.handshake_timeout:g} s"
                ) from error

    @asynccontextmanager
    async def keep_open(self, stream: Stream, target: Target) -> AsyncGenerator[None]:
        """Abort the stream if the block raises, and add the target and the proxy to the error."""
        try:
            yield
        except BaseException as error:
            stream.abort()
            if isinstance(error, TimeoutError):
                raise
            if isinstance(error, (TruncatedError, ProtocolError)):
                raise UnreachableError(f"{self._error_context(target)}: {error}") from error
            if isinstance(error, OSError) and not isinstance(error, LlamaError):
                raise UnreachableError(f"{self._error_context(target)}: {error.strerror or error}") from error
            raise

    async def _authenticate(self, stream: Stream) -> None:
        methods = bytes((wire.NO_AUTH,)) if self.credentials is None else bytes((wire.NO_AUTH, wire.PASSWORD))
        await stream.write(wire.encode_greeting(methods))
        method = await read_message(stream, wire.parse_choice, "choice of a method")
        if method == wire.PASSWORD and self.credentials is not None:
            await stream.write(self.credentials)
            if await read_message(stream, wire.parse_auth_status, "authentication status"):
                raise RefusedError(f"proxy {self.target} does not accept the name and password")
        elif method == wire.NO_METHOD:
            wants = "a name and password" if self.credentials is None else "another authentication"
            raise RefusedError(f"proxy {self.target} wants {wants}")
        elif method != wire.NO_AUTH:
            raise ProtocolError(f"the proxy chose method {method}, which was not offered")

    async def request(self, stream: Stream, command: wire.Command, target: Target) -> Address:
        """Send a command, read its reply, and return the address that the proxy bound."""
        try:
            message = wire.encode_request(command, target.host, target.port)
        except ValueError as error:
            raise UnreachableError(f"{self._error_context(target)}: {error}") from None
        await stream.write(message)
        return await self.reply(stream, target)

    async def reply(self, stream: Stream, target: Target) -> Address:
        """Read a reply; raises the error of a failure reply."""
        reply = await read_message(stream, wire.parse_reply, "reply")
        if reply.code != wire.ReplyCode.SUCCEEDED:
            raise error_of(reply.code, self._error_context(target))
        return reply.address

    def _error_context(self, target: Target) -> str:
        return f"cannot reach {target} through proxy {self.target}"


def proxy_client(
    who: str,
    proxy: str | Target,
    user: str | None,
    password: str | None,
    connect: Connector | None,
    handshake_timeout: float | None,
) -> ProxyClient:
    """Build a proxy from the parameters of a factory; ConfigError for invalid settings."""
    connect = connect or tcp_connect()
    check_accepts(connect, Target, f"{who}(connect=)")
    if (user is None) is not (password is None):
        raise ConfigError(f"{who}(): give both user and password, or neither")
    credentials = None
    if user is not None and password is not None:
        try:
            credentials = wire.encode_credentials(user, password)
        except ValueError as error:
            raise ConfigError(f"{who}(): {error}") from None
    target = Target.parse(proxy, default_port=1080) if isinstance(proxy, str) else proxy
    return ProxyClient(target, connect, credentials, handshake_timeout)
