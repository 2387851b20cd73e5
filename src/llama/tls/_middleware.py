"""TLS middleware: access rules by the ClientHello."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from llama._core.errors import ConfigError, RefusedError
from llama._core.service import Middleware
from llama._core.stack import layer_factory, named_layer
from llama._core.stream import ConnectionHandler, Stream
from llama.tls._client_hello.client_hello import ClientHello
from llama.tls._client_hello.peek import ACCESS_DENIED, UNRECOGNIZED_NAME, peek_hello, refuse
from llama.tls._stream import TLSStream

Rule = Callable[[ClientHello], str | None]
"""A rule for clients: returns the reason to refuse one, or None to accept it."""

_is_fingerprint = re.compile(
    r"[0-9a-f]{32}|[tqd][0-9a-z]{2}[di][0-9]{4}[0-9a-z]{2}_[0-9a-f]{12}_[0-9a-f]{12}"
).fullmatch


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class ClientHelloRule:
    """Refuses clients by a rule: before `tls.server` with an alert, after it by closing the connection."""

    inner: ConnectionHandler
    rule: Rule
    alert: int
    name: str

    __input_type__: ClassVar[type] = Stream

    def __repr__(self) -> str:
        return self.name

    async def __call__(self, stream: Stream, /) -> None:
        terminated = isinstance(stream, TLSStream)
        hello = stream.extensions[ClientHello] if terminated else await peek_hello(stream)
        if (reason := self.rule(hello)) is not None:
            if not terminated:
                await refuse(stream, self.alert)
            raise RefusedError(reason)
        await self.inner(stream)


def _layer(name: str, rule: Rule, alert: int) -> Middleware[Stream, None]:
    return named_layer(
        name, lambda inner: ClientHelloRule(inner, rule, alert, name), input_type=Stream, inner_type=Stream
    )


def _matches(fingerprints: frozenset[str], hello: ClientHello) -> bool:
    return hello.ja4.lower() in fingerprints or hello.ja3 in fingerprints


def _known(fingerprints: tuple[str, ...], where: str) -> frozenset[str]:
    if not fingerprints:
        raise ConfigError(f"{where}: expected at least one fingerprint, JA3 or JA4")
    known = frozenset(each.lower() for each in fingerprints)
    for each in known:
        if not _is_fingerprint(each):
            raise ConfigError(
                f"{where}: {each!r} is neither a JA3 hash (32 digits) nor a JA4 fingerprint (a_b_c)"
            )
    return known


@layer_factory("tls.allow")
def allow(*fingerprints: str) -> Middleware[Stream, None]:
    """Accept only clients with one of these JA3 or JA4 fingerprints; others get the alert access_denied.

    Place it before or after `tls.server`. Raises RefusedError for a refused connection.
    """
    known = _known(fingerprints, "tls.allow()")

    def rule(hello: ClientHello) -> str | None:
        return None if _matches(known, hello) else f"the client's fingerprint {hello.ja4} is not allowed"

    return _layer(f"tls.allow({', '.join(fingerprints)})", rule, ACCESS_DENIED)


@layer_factory("tls.deny")
def deny(*fingerprints: str) -> Middleware[Stream, None]:
    """Refuse clients with one of these JA3 or JA4 fingerprints, with the alert access_denied.

    Place it before or after `tls.server`. Raises RefusedError for a refused connection.
    """
    known = _known(fingerprints, "tls.deny()")

    def rule(hello: ClientHello) -> str | None:
        return f"the client's fingerprint {hello.ja4} is denied" if _matches(known, hello) else None

    return _layer(f"tls.deny({', '.join(fingerprints)})", rule, ACCESS_DENIED)


@layer_factory("tls.require_sni")
def require_sni() -> Middleware[Stream, None]:
    """Refuse clients that send no server name (SNI), with the alert unrecognized_name.

    Place it before or after `tls.server`. Raises RefusedError for a refused connection.
    """

    def rule(hello: ClientHello) -> str | None:
        return "the client sent no server name" if hello.server_name is None else None

    return _layer("tls.require_sni()", rule, UNRECOGNIZED_NAME)
