"""Basic authentication (RFC 7617), of an origin or of a proxy."""

from __future__ import annotations

import base64
import binascii
import hmac
import inspect
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

from llama._core.server import User
from llama._core.service import Middleware
from llama._core.stack import layer_factory, named_layer
from llama.http._messages.headers import checked_value
from llama.http._messages.message import Request, RequestHandler, Response

Check: TypeAlias = Mapping[str, str] | Callable[[str, str], bool | Awaitable[bool]]
"""Passwords by name, or a function, async or not, that returns whether a name and a password are valid."""


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class BasicAuth:
    """Passes on requests with valid Basic credentials."""

    inner: RequestHandler
    check: Check
    realm: str
    proxy: bool

    __input_type__: ClassVar[type] = Request

    def __repr__(self) -> str:
        return "http.proxy_auth()" if self.proxy else "http.basic_auth()"

    async def __call__(self, request: Request, /) -> Response:
        header = "Proxy-Authorization" if self.proxy else "Authorization"
        given = credentials(request.headers.get_all(header))
        if given is None or not await is_accepted(self.check, *given):
            return self._challenge()
        request.extensions.set(User(given[0]))
        if self.proxy:
            request.headers.discard(header)
        return await self.inner(request)

    def _challenge(self) -> Response:
        status, header = (407, "Proxy-Authenticate") if self.proxy else (401, "WWW-Authenticate")
        challenge = f'Basic realm="{self.realm}", charset="UTF-8"'
        return Response(
            status, {header: challenge, "Content-Type": "text/plain"}, f"{status} credentials required\n"
        )


def credentials(values: list[str]) -> tuple[str, str] | None:
    """Return the name and password from one field with Basic credentials; None for anything else."""
    if len(values) != 1:
        return None
    scheme, _, encoded = values[0].partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        text = base64.b64decode(encoded.strip().encode(), validate=True).decode()
    except (binascii.Error, ValueError):
        return None
    name, colon, password = text.partition(":")
    return (name, password) if colon else None


async def is_accepted(check: Check, name: str, password: str) -> bool:
    """Return whether the credentials are valid; a mapping is compared in constant time."""
    if callable(check):
        answer = check(name, password)
        return await answer if inspect.isawaitable(answer) else answer
    known = check.get(name)
    same = hmac.compare_digest((known or "").encode(), password.encode())
    return same and known is not None


@layer_factory("http.basic_auth")
def basic_auth(check: Check, *, realm: str = "llama") -> Middleware[Request, Response]:
    """Require Basic credentials (RFC 7617); respond with 401 otherwise.

    `check` maps names to passwords, which are compared in constant time, or is a function of the name and the password,
    async or not, that returns whether they are valid. The name becomes `http.User` in the extensions. `realm` is sent
    in the challenge.

        stack(http.server(), http.basic_auth({"john": "secret"}), application)
    """
    return _auth(check, realm, proxy=False)


@layer_factory("http.proxy_auth")
def proxy_auth(check: Check, *, realm: str = "llama") -> Middleware[Request, Response]:
    """Require Basic credentials of a proxy's clients; respond with 407 otherwise.

    Like `http.basic_auth`, but reads Proxy-Authorization and removes it from the request, as it is for this proxy only.

        stack(http.server(), http.proxy_auth({"john": "secret"}), application)
    """
    return _auth(check, realm, proxy=True)


def _auth(check: Check, realm: str, *, proxy: bool) -> Middleware[Request, Response]:
    if '"' in checked_value(realm) or "\\" in realm:
        raise ValueError(f"expected a realm without quotes and backslashes, got {realm!r}")

    def build(inner: RequestHandler) -> RequestHandler:
        return BasicAuth(inner, check, realm, proxy)

    return named_layer(
        "http.proxy_auth()" if proxy else "http.basic_auth()", build, input_type=Request, inner_type=Request
    )
