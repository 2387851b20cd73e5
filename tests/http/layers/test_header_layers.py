"""Layers for header fields, and request IDs."""

import asyncio
import re

import pytest

from llama import http, stack
from llama._core.errors import ConfigError, RefusedError
from llama.http import Request, RequestHandler, RequestId, Response


def ask(exchange: RequestHandler, request: Request) -> Response:
    async def main() -> Response:
        return await exchange(request)

    return asyncio.run(main())


async def reflect(request: Request) -> Response:
    return Response(200, request.headers)


def headers(exchange: RequestHandler, *pairs: tuple[str, str]) -> list[tuple[str, str]]:
    return list(ask(exchange, Request("GET", "/", pairs)).headers)


def test_set_header_replaces_all_fields_of_the_same_name() -> None:
    pairs = ("a", "1"), ("B", "2"), ("A", "3")
    for side in ("request", "response"):
        assert headers(stack(http.set_header("A", "x", on=side), reflect), *pairs) == [("A", "x"), ("B", "2")]
        assert headers(stack(http.add_header("A", "x", on=side), reflect), *pairs) == [*pairs, ("A", "x")]
        assert headers(stack(http.remove_header("A", "c", on=side), reflect), *pairs) == [("B", "2")]


def test_a_field_value_can_be_a_function_of_the_request() -> None:
    made = stack(http.set_header("A", lambda request: request.path), reflect)
    assert headers(made) == [("A", "/")]
    assert headers(stack(http.set_header("A", lambda request: None), reflect), ("a", "b")) == [("a", "b")]


def test_an_invalid_field_is_rejected_when_the_layer_is_built() -> None:
    for name, value in (("a b", "c"), ("a", "b\r\nc: d")):
        with pytest.raises(ValueError, match="header"):
            http.set_header(name, value)
        with pytest.raises(ValueError, match="header"):
            http.add_header(name, value)
    with pytest.raises(ValueError, match="header name"):
        http.remove_header("a b")
    with pytest.raises(ConfigError, match="expected on='request' or on='response'"):
        http.remove_header("a", on="both")  # type: ignore[arg-type]


def test_a_field_can_be_required() -> None:
    required = stack(http.require_header("A"), reflect)
    assert headers(required, ("a", "b")) == [("a", "b")]
    with pytest.raises(RefusedError, match="no acceptable A field") as caught:
        headers(required)
    assert caught.value.status == 400


def test_a_value_can_be_required() -> None:
    for required in (
        stack(http.require_header("A", "b", status=403), reflect),
        stack(http.require_header("A", lambda value: value == "b", status=403), reflect),
    ):
        assert headers(required, ("A", "x"), ("A", "b"))
        with pytest.raises(RefusedError) as caught:
            headers(required, ("A", "B"))
        assert caught.value.status == 403


def test_each_request_gets_a_unique_id() -> None:
    seen: list[RequestId | None] = []

    async def look(request: Request) -> Response:
        seen.append(request.extensions.get(RequestId))
        assert request.headers["x-request-id"] == seen[-1]
        return Response()

    made = stack(http.request_id(), look)
    sent = Request("GET", "/", {"x-request-id": "mine"})
    answers = [ask(made, request).headers["X-Request-ID"] for request in (sent, Request("GET", "/"))]
    assert answers == seen
    assert all(re.fullmatch(r"[0-9a-f]{32}", answer) for answer in answers)
    assert len(set(answers)) == 2


def test_a_well_formed_request_id_can_be_trusted() -> None:
    made = stack(http.request_id("X-Trace", trust=True, make=lambda: "new"), reflect)
    assert headers(made, ("x-trace", "a-1")) == [("X-Trace", "a-1")]
    assert headers(made, ("x-trace", 'a"b')) == [("X-Trace", "new")]
    assert headers(made, ("x-trace", "a" * 129)) == [("X-Trace", "new")]
