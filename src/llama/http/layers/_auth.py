"""Asks a function who makes a request."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

from llama._server import User
from llama._service import Middleware
from llama._stack import factory, named_layer
from llama.http._headers import checked_value
from llama.http._message import Exchange, Request, Response

Verdict: TypeAlias = str | bool | Response | None
"""The user's name, True for nobody in particular, a response to answer with, or None or False for a refusal."""
RequestCheck: TypeAlias = Callable[[Request], Verdict | Awaitable[Verdict]]


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class Auth:
    """Lets requests pass that a function knows."""

    inner: Exchange
    check: RequestCheck
    challenge: str | None

    __takes__: ClassVar[type] = Request

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


@factory("http.auth")
def auth(check: RequestCheck, *, challenge: str | None = None) -> Middleware[Request, Response]:
    """Ask a function of the request, async or not, who makes it: by a cookie, a signature, a client certificate.

    It returns the user's name, which is then `http.User` in the extensions, True to let pass without one, or a response
    to answer with, such as a redirect to where one signs in. None, False and an empty name are refused: by 401 with the
    `challenge` in WWW-Authenticate (RFC 9110 section 11.6.1), by 403 without one.

        stack(http.server(), http.auth(lambda request: request.headers.get("x-user")), application)
    """
    if challenge is not None:
        checked_value(challenge)

    def build(inner: Exchange) -> Exchange:
        return Auth(inner, check, challenge)

    return named_layer("http.auth()", build, takes=Request, gives=Request)
