"""The HTTP/3 server: an address, a request handler and certificates."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass

from llama._core.errors import ConfigError
from llama._core.server import PeerAddress, Server
from llama._core.shutdown import Shutdown
from llama._core.target import split_address
from llama.http._h3.connection import new_configuration
from llama.http._h3.server.certificates import Identities
from llama.http._h3.server.endpoint import VERSIONS, Endpoint
from llama.http._h3.settings import H3Settings
from llama.http._messages.message import RequestHandler
from llama.tls._certificates.files import Certificate, Policy
from llama.udp._bind import bind_packets

SECRET = os.urandom(32)


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class H3Server(Server):
    """Accepts HTTP/3 connections at one UDP address."""

    listen_address: str | int | tuple[str, int]
    handler: RequestHandler
    identities: Identities
    settings: H3Settings
    secret: bytes
    """The key of tokens and stateless resets, shared by all workers."""

    def __repr__(self) -> str:
        return f"http.h3_server({self.address})"

    @property
    def address(self) -> str:
        return (
            str(PeerAddress(*self.listen_address))
            if isinstance(self.listen_address, tuple)
            else str(self.listen_address)
        )

    @property
    def service(self) -> RequestHandler:
        return self.handler

    def bind(
        self, *, reuse_port: bool = False, same_ports_as: Sequence[socket.socket] = ()
    ) -> list[socket.socket]:
        where = f":{self.listen_address}" if isinstance(self.listen_address, int) else self.listen_address
        host, port = split_address(where) if isinstance(where, str) else where
        return bind_packets(host, port, shared=reuse_port, like=same_ports_as)

    async def serve(self, sockets: Sequence[socket.socket], shutdown: Shutdown) -> None:
        stopped: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        forget = shutdown.on_stop(lambda: _set(stopped))
        endpoints = [Endpoint(each, self, shutdown) for each in sockets]
        try:
            await stopped
        except asyncio.CancelledError:
            for each in endpoints:
                each.retire()
            raise
        else:
            for each in endpoints:
                each.stop()
        finally:
            forget()


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def build_server(
    where: str | int | tuple[str, int],
    exchange: RequestHandler,
    certificates: Sequence[Certificate],
    settings: H3Settings,
    policy: Policy,
) -> H3Server:
    """Return a server and load its certificates. Raises ConfigError for an invalid address or an unusable file."""
    if isinstance(where, str):
        split_address(where)
    configuration = new_configuration(
        is_client=False, idle_timeout=settings.idle_timeout, keylog=settings.keylog
    )
    configuration.supported_versions = list(VERSIONS)
    try:
        identities = Identities(certificates, configuration, policy)
    except ConfigError as error:
        raise ConfigError(f"http.h3_server(): {error}") from None
    return H3Server(where, exchange, identities, settings, settings.reset_key or SECRET)
