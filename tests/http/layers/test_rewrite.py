"""Rewriting of paths and bodies."""

import asyncio
import gzip

import pytest

from llama import ConfigError, Middleware, ProtocolError, describe, http, stack
from llama.http import Request, RequestHandler, Response
from tests.http.serving import echo, last, talk


def ask(exchange: RequestHandler, request: Request) -> Response:
    async def main() -> Response:
        return await exchange(request)

    return asyncio.run(main())


async def where(request: Request) -> Response:
    return Response(200, {"Path": request.path})


@pytest.mark.parametrize(
    ("layer", "path", "changed"),
    [
        (http.rewrite(strip_prefix="/api"), "/api/a?b=/api", "/a?b=/api"),
        (http.rewrite(strip_prefix="/api/"), "/api?x", "/?x"),
        (http.rewrite(strip_prefix="/api"), "/apis", None),
        (http.rewrite(strip_prefix="/api"), "/b", None),
        (http.rewrite(add_prefix="/v2"), "/a%2Fb", "/v2/a%2Fb"),
        (http.rewrite(add_prefix="/v2"), "http://a", "/v2/"),
        (http.rewrite(strip_prefix="/api", add_prefix="/v2/"), "/api/a", "/v2/a"),
        (http.rewrite(r"^/(\d+)$", r"/user/\1"), "/12?q", "/user/12?q"),
        (http.rewrite(r"^/(\d+)$", r"/user/\1"), "/a", "/a"),
        (http.rewrite(r"^/a", "b c?ä"), "/a", "/b%20c%3F%C3%A4"),
        (http.rewrite(r"/x", "/y", strip_prefix="/x"), "/x/x/x", "/y/y"),
        (http.rewrite(add_prefix="/v2"), "*", "*"),
    ],
)
def test_rewrite_changes_the_path_and_keeps_the_query(
    layer: Middleware[Request, Response], path: str, changed: str | None
) -> None:
    response = ask(stack(layer, where), Request("OPTIONS" if path == "*" else "GET", path))
    assert response.headers.get("path") == changed
    assert response.status == (404 if changed is None else 200)


@pytest.mark.parametrize("path", ["/api/../x", "/api/%2e%2E/x", "/api/..", "/api/.%2fx", "/api/..\\x"])
def test_rewrite_rejects_paths_that_leave_the_prefix(path: str) -> None:
    with pytest.raises(ProtocolError, match="dot segments"):
        ask(stack(http.rewrite(strip_prefix="/api"), where), Request("GET", path))


def test_invalid_rewrites_are_rejected_when_the_layer_is_built() -> None:
    for prefix in ("api", "/a b", "/a?b", "//", "/..", "/a/./b"):
        with pytest.raises(ConfigError, match="prefix"):
            http.rewrite(strip_prefix=prefix)
    for pattern, replacement in (("(", ""), ("a", r"\1")):
        with pytest.raises(ConfigError):
            http.rewrite(pattern, replacement)
    assert repr(http.rewrite("a", "b", add_prefix="/c")) == "http.rewrite('a', 'b', add_prefix='/c')"
    assert (
        describe(stack(http.rewrite(strip_prefix="/a"), where)) == "http.rewrite(strip_prefix='/a') > where"
    )


# bodies


def mapped(request: Request, response: Response) -> tuple[list[tuple[str, str]], bytes]:
    async def main() -> tuple[list[tuple[str, str]], bytes]:
        async def answer(request: Request) -> Response:
            assert "range" not in request.headers
            return response

        got = await stack(http.map_body(bytes.upper), answer)(request)
        return list(got.headers), await got.body.read()

    return asyncio.run(main())


def test_map_body_changes_bodies_and_removes_their_validators() -> None:
    plain = Response(200, {"A": "b", "ETag": '"x"', "Content-Length": "5"}, b"hello")
    assert mapped(Request("GET", "/", {"Range": "bytes=0-1"}), plain) == ([("A", "b")], b"HELLO")
    packed = Response(200, {"Content-Encoding": "gzip", "ETag": '"x"'}, gzip.compress(b"hello"))
    fields, body = mapped(Request("GET", "/"), packed)
    assert (fields, gzip.decompress(body)) == ([("Content-Encoding", "gzip")], b"HELLO")


def test_map_body_skips_partial_bodies_and_head() -> None:
    part = Response(206, {"ETag": '"x"'}, b"ell")
    assert mapped(Request("GET", "/"), part) == ([("ETag", '"x"')], b"ell")
    head = Response(200, {"Content-Length": "5", "ETag": '"x"', "A": "b"})
    assert mapped(Request("HEAD", "/"), head) == ([("A", "b")], b"")


def test_a_body_with_an_unknown_coding_and_its_fields_stay() -> None:
    fields = [("Content-Encoding", "lzma"), ("ETag", '"x"'), ("Content-Length", "5")]
    assert mapped(Request("GET", "/"), Response(200, fields, b"hello")) == (fields, b"hello")


def test_map_body_can_change_request_bodies() -> None:
    handler = stack(http.server(), http.map_body(bytes.upper, on="request"), echo)
    answer = talk(handler, last("/", "Content-Length: 5", method="POST") + b"hello")
    assert b"HELLO" in answer
    with pytest.raises(ConfigError):
        http.map_body(bytes.upper, on="both")  # type: ignore[arg-type]
