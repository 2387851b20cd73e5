"""Request IDs, shared by logs, upstreams and clients."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from random import getrandbits
from typing import ClassVar

from llama._core.service import Middleware
from llama._core.stack import layer_factory, named_layer
from llama.http._layers.headers.base import check_field
from llama.http._messages.headers import checked_value
from llama.http._messages.message import Request, RequestHandler, Response

_COMMON = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")


class RequestId(str):
    """The ID of a request, in its extensions."""

    __slots__ = ()


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class SetRequestId:
    """Sets the ID of requests and their responses."""

    inner: RequestHandler
    header: str
    trust: bool
    make: Callable[[], str]
    key: str

    __input_type__: ClassVar[type] = Request

    def __repr__(self) -> str:
        return "http.request_id()"

    async def __call__(self, request: Request, /) -> Response:
        given = request.headers.get(self.header) if self.trust else None
        identity = given if given is not None and _COMMON.fullmatch(given) else self.make()
        key, line = self.key, f"{self.header}: {checked_value(identity)}"
        request.headers._put(key, line)
        request.extensions.set(RequestId(identity))
        response = await self.inner(request)
        response.headers._put(key, line)
        return response


def new_id() -> str:
    """Return 32 random hexadecimal digits."""
    return f"{getrandbits(128):032x}"  # each process seeds its own generator


@layer_factory("http.request_id")
def request_id(
    header: str = "X-Request-ID", *, trust: bool = False, make: Callable[[], str] = new_id
) -> Middleware[Request, Response]:
    """Set an ID in the field `header` of each request and its response, and as `http.RequestId` in the extensions.

    An ID from the client is replaced; with `trust` it is kept if it consists of 1 to 128 letters, digits and
    `._:/+=-`. `make` returns a new ID, by default 32 random hexadecimal digits.

        stack(http.server(), http.request_id(), http.access_log(), application)
    """
    check_field(header)

    def build(inner: RequestHandler) -> RequestHandler:
        return SetRequestId(inner, header, trust, make, header.lower())

    return named_layer("http.request_id()", build, input_type=Request, inner_type=Request)
