"""Authentication by a function of the request."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

from llama._core.server import User
from llama._core.service import Middleware
from llama._core.stack import layer_factory, named_layer
from llama.http._messages.headers import checked_value
from llama.http._messages.message import Request, RequestHandler, Response

Verdict: TypeAlias = str | bool | Response | None
"""The user's name, True to accept without a name, a response to send instead, or None or False to reject."""
RequestCheck: TypeAlias = Callable[[Request], Verdict | Awaitable[Verdict]]


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class Auth:
    """Passes on the requests that a function accepts."""

    inner: RequestHandler
    check: RequestCheck
    challenge: str | None

    __input_type__: ClassVar[type] = Request

    def __repr__(self) -> str:
        return "http.auth()"

    async def __call__(self, request: Request, /) -> Response:
        answer = self.check(request)
        verdict = await answer if inspect.isawaitable(answer) else answer
        if isinstance(verdict, Response):
            return verdict
        if not verdict:
            return self._refusal()
        if isinstance(verdict, str):
            request.extensions.set(User(verdict))
        return await self.inner(request)

    def _refusal(self) -> Response:
        if self.challenge is None:
            return Response(403, {"Content-Type": "text/plain"}, b"403 Forbidden\n")
        fields = {"WWW-Authenticate": self.challenge, "Content-Type": "text/plain"}
        return Response(401, fields, b"401 Unauthorized\n")


@layer_factory("http.auth")
def auth(check: RequestCheck, *, challenge: str | None = None) -> Middleware[Request, Response]:
    """Authenticate requests with a function, for example by a cookie, a signature or a client certificate.

    `check`, async or not, takes the request and returns the user's name, which becomes `http.User` in the extensions,
    True to accept the request without a name, or a response to send instead, such as a redirect to the login page.
    None, False and an empty name reject the request: with 401 and `challenge` in WWW-Authenticate (RFC 9110 section
    11.6.1), or with 403 without a challenge.

        stack(http.server(), http.auth(lambda request: request.headers.get("x-user")), application)
    """
    if challenge is not None:
        checked_value(challenge)

    def build(inner: RequestHandler) -> RequestHandler:
        return Auth(inner, check, challenge)

    return named_layer("http.auth()", build, input_type=Request, inner_type=Request)
