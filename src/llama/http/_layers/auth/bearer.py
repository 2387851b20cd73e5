"""Bearer token authentication (RFC 6750)."""

from __future__ import annotations

import hmac
import inspect
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

from llama._core.server import User
from llama._core.service import Middleware
from llama._core.stack import layer_factory, named_layer
from llama.http._messages.message import Request, RequestHandler, Response

TokenCheck: TypeAlias = Collection[str] | Callable[[str], str | bool | Awaitable[str | bool]]
"""The valid tokens, or a function, async or not, that returns whether a token is valid, or the user's name."""


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class BearerAuth:
    """Passes on requests with a valid bearer token."""

    inner: RequestHandler
    check: TokenCheck

    __input_type__: ClassVar[type] = Request

    def __repr__(self) -> str:
        return "http.bearer_auth()"

    async def __call__(self, request: Request, /) -> Response:
        values = request.headers.get_all("authorization")
        scheme, _, token = values[0].partition(" ") if len(values) == 1 else ("", "", "")
        if scheme.lower() != "bearer" or not token:
            return Response(401, {"WWW-Authenticate": "Bearer"})
        user = await self._user(token.strip())
        if not user:
            return Response(401, {"WWW-Authenticate": 'Bearer error="invalid_token"'})
        if isinstance(user, str):
            request.extensions.set(User(user))
        return await self.inner(request)

    async def _user(self, token: str) -> str | bool:
        if callable(self.check):
            answer = self.check(token)
            return await answer if inspect.isawaitable(answer) else answer
        given = token.encode()
        return sum(hmac.compare_digest(given, known.encode()) for known in self.check) > 0


@layer_factory("http.bearer_auth")
def bearer_auth(check: TokenCheck) -> Middleware[Request, Response]:
    """Require a bearer token (RFC 6750); respond with 401 otherwise.

    `check` is a collection of tokens, which are compared in constant time, or a function of the token, async or not,
    that returns whether the token is valid, or the user's name, which becomes `http.User` in the extensions.

        stack(http.server(), http.bearer_auth({"3f29c0"}), application)
    """
    if isinstance(check, str):
        raise TypeError("http.bearer_auth(): expected a collection of tokens, got a string")

    def build(inner: RequestHandler) -> RequestHandler:
        return BearerAuth(inner, check)

    return named_layer("http.bearer_auth()", build, input_type=Request, inner_type=Request)
