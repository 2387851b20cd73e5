"""Routing by the ClientHello, which stays in the stream: TLS is not terminated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from llama._core.errors import ConfigError, TLSError
from llama._core.stack import check_accepts, describe, layer_factory
from llama._core.stream import ConnectionHandler, Stream
from llama.tcp._io.first_bytes_deadline import FirstBytesDeadline
from llama.tls._certificates.names import NameTable
from llama.tls._client_hello.client_hello import ClientHello
from llama.tls._client_hello.peek import NO_APPLICATION_PROTOCOL, UNRECOGNIZED_NAME, peek_hello, refuse


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class Route:
    """A handler that chooses another handler for each connection by its ClientHello."""

    names: NameTable[ConnectionHandler]
    protocols: Mapping[str, ConnectionHandler]
    default: ConnectionHandler | None
    handlers: tuple[ConnectionHandler, ...]

    __input_type__: ClassVar[type] = Stream

    def __repr__(self) -> str:
        rules = [(name, handler) for name, handler in self.names.items()]
        rules += [(f"alpn {name}", handler) for name, handler in self.protocols.items()]
        shown = [f"{name}: {describe(handler)}" for name, handler in rules]
        if self.default is not None:
            shown.append(f"default: {describe(self.default)}")
        return f"tls.route({', '.join(shown)})"

    async def __call__(self, stream: Stream, /) -> None:
        with FirstBytesDeadline(stream):
            hello = await peek_hello(stream)
        handler = self._choose(hello)
        if handler is None:
            if not len(self.names):
                alert, asked = NO_APPLICATION_PROTOCOL, f"the protocols {', '.join(hello.alpn) or '(none)'}"
            else:
                alert, asked = UNRECOGNIZED_NAME, f"the server name {hello.server_name!r}"
            await refuse(stream, alert)
            raise TLSError(f"no route for {asked}")
        await handler(stream)

    def _choose(self, hello: ClientHello) -> ConnectionHandler | None:
        for protocol in hello.alpn:
            if (found := self.protocols.get(protocol)) is not None:
                return found
        return self.names.lookup(hello.server_name) or self.default


@layer_factory("tls.route", "handler")
def route(
    names: Mapping[str, ConnectionHandler] | None = None,
    *,
    alpn: Mapping[str, ConnectionHandler] | None = None,
    default: ConnectionHandler | None = None,
) -> ConnectionHandler:
    """Choose a handler by ALPN protocol, then by server name, without terminating TLS.

    `names` maps exact names, or `*.example.com` for one label; `alpn` maps protocols, tried in the client's order.
    `default` handles all other clients, also those without a server name; without a default they get the alert
    unrecognized_name, or no_application_protocol if there are only `alpn` routes. With an encrypted ClientHello
    the outer name is used. The handler finds the `ClientHello` in the extensions and all bytes still in the
    stream. Raises ConfigError for an invalid name.
    """
    if not names and not alpn and default is None:
        raise ConfigError("tls.route() has no routes: give names, alpn or default")
    names, alpn = names or {}, alpn or {}
    handlers: list[ConnectionHandler] = [*names.values(), *alpn.values(), *([default] if default else [])]
    for each in handlers:
        check_accepts(each, Stream, "tls.route()")
    return Route(NameTable(names), dict(alpn), default, tuple(dict.fromkeys(handlers)))
