"""The host in a plain HTTP request whose target is only an address."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from llama._core.errors import RefusedError
from llama._core.stream import Stream
from llama.http import Request, RequestHandler, Response
from llama.layers._hostname import hostname
from llama.layers._peer_key import packed_address
from llama.mitm._interception import Interception
from llama.mitm._rules import ConnectionInfo, Rules

_LONGEST_HEAD = 65536
host_of = hostname


def is_address(host: str) -> bool:
    """Whether a host is an IP address."""
    return packed_address(host) is not None


def named_in(head: bytes) -> str | None:
    """Return the host in a request head: from its target, else from its Host field (RFC 9112, 3.2.2)."""
    first, *lines = head.split(b"\r\n")
    target = first.split(b" ")[1] if first.count(b" ") >= 2 else b""
    scheme, _, rest = target.partition(b"://")
    if scheme.lower() in (b"http", b"https") and rest:
        return _text(rest.partition(b"/")[0].partition(b"?")[0])
    for line in lines:
        name, colon, value = line.partition(b":")
        if colon and name.lower() == b"host":
            return _text(value.strip())
    return None


def _text(authority: bytes) -> str | None:
    return hostname(authority.decode("latin-1")) or None


async def read_name(stream: Stream, data: bytes) -> tuple[str | None, bytes]:
    """Read a request head that begins with `data`; return its host and all bytes read."""
    while (end := data.find(b"\r\n\r\n")) < 0 and len(data) < _LONGEST_HEAD:
        more = await stream.read()
        if not more:
            break
        data += more
    return (named_in(data[:end]) if end >= 0 else None), data


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class RequestRules:
    """Applies rules to requests with a different host than their connection, which may serve several hosts."""

    inner: RequestHandler
    without_hooks: RequestHandler
    rules: Rules

    __input_type__: ClassVar[type] = Request

    def __repr__(self) -> str:
        return "mitm.rules()"

    async def __call__(self, request: Request, /) -> Response:
        known = request._extensions or request._connection_extensions
        interception = known.get(Interception) if known is not None else None
        if interception is None:
            return await self.inner(request)
        host = request.hostname
        if host == interception.named or not host:
            return await self.inner(request)
        asked = ConnectionInfo(interception.target, interception.server_name, request.extensions, host)
        action = self.rules.decide(asked)
        if action == "block":
            raise RefusedError(f"{host} is blocked by a rule")
        return await (self.without_hooks if action == "passthrough" else self.inner)(request)
