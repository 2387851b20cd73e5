"""Routing of requests to handlers."""

import asyncio

import pytest

from llama import ConfigError, ConnectionHandler, http, stack
from llama.http import PathParameters, Request, RequestHandler, Response, RouteMatcher
from tests.http.serving import last, talk


def named(name: str) -> RequestHandler:
    async def answer(request: Request) -> Response:
        given = request.extensions.get(PathParameters) or PathParameters()
        return Response(200, body=" ".join([name, *(f"{key}={value}" for key, value in given.items())]))

    return answer


def ask(exchange: RequestHandler, request: Request) -> str:
    async def main() -> str:
        response = await exchange(request)
        if response.status == 200:
            return (await response.body.read()).decode()
        return f"{response.status} {response.headers.get('allow', '')}".strip()

    return asyncio.run(main())


SITE = http.route(
    ("GET /users/{id}", named("user")),
    ("DELETE /users/{id}", named("gone")),
    ("PUT /users/{id}", named("put")),
    ("/users/{id}/{what}", named("of")),
    ("/files/{path...}", named("files")),
    ("/a.b", named("dot")),
    ("GET /", named("root")),
)


@pytest.mark.parametrize(
    ("method", "path", "answer"),
    [
        ("GET", "/users/7", "user id=7"),
        ("HEAD", "/users/7?x=/y", "user id=7"),
        ("DELETE", "/users/j%C3%B6", "gone id=jö"),
        ("DELETE", "/users/j%C3%B6%2Fx", "of id=jö what=x"),
        ("POST", "/users/7", "405 GET, HEAD, DELETE, PUT"),
        ("POST", "/users/7/pets", "of id=7 what=pets"),
        ("GET", "/users/", "404"),
        ("GET", "/users/7/", "404"),
        ("GET", "/users/7/pets/1", "404"),
        ("GET", "/Users/7", "404"),
        ("GET", "/files/", "files path="),
        ("GET", "/files/a/b%20c", "files path=a/b c"),
        ("GET", "/files", "files path="),
        ("GET", "/a.b", "dot"),
        ("GET", "/aXb", "404"),
        ("GET", "/", "root"),
        ("GET", "http://a.example", "root"),
        ("GET", "/\n", "404"),
        ("OPTIONS", "*", "404"),
        ("CONNECT", "a.example:80", "404"),
    ],
)
def test_a_request_goes_to_the_first_route_that_matches(method: str, path: str, answer: str) -> None:
    assert ask(SITE, Request(method, path)) == answer


@pytest.mark.parametrize(
    ("test", "request_", "fits"),
    [
        (http.when("/", host="A.example"), Request("GET", "http://a.EXAMPLE:80/"), True),
        (http.when("/", host="a.example"), Request("GET", "http://a.example./"), True),
        (http.when("/", host="a.example"), Request("GET", "http://b.a.example/"), False),
        (http.when("/", host="a.example"), Request("GET", "/"), False),
        (http.when("/", host="*.a.example"), Request("GET", "http://c.b.a.example/"), True),
        (http.when("/", host="*.a.example"), Request("GET", "http://a.example/"), False),
        (http.when("/", host="*.a.example"), Request("GET", "http://.a.example/"), False),
        (http.when("/", host="*.a.example"), Request("GET", "http://ba.example/"), False),
        (http.when("/", host="[::1]"), Request("GET", "http://[::1]:80/"), True),
        (http.when("/", headers={"X": "1"}), Request("GET", "/", [("x", "0"), ("x", "1")]), True),
        (http.when("/", headers={"X": "1"}), Request("GET", "/", {"x": "0"}), False),
        (http.when("/", headers={"X": None}), Request("GET", "/", {"x": "0"}), True),
        (http.when("/", headers={"X": None}), Request("GET", "/"), False),
        (http.when("/", query={"v": "2 3"}), Request("GET", "/?a=b&v=2+3"), True),
        (http.when("/", query={"v": "2"}), Request("GET", "/?v=3"), False),
        (http.when("/", query={"v": None}), Request("GET", "/?v"), True),
        (http.when("/", query={"v": None}), Request("GET", "/"), False),
        (http.when("/", query={"v": "2"}), Request("GET", "/?" + "a&" * 2000 + "v=2"), False),
    ],
)
def test_a_route_can_match_the_host_fields_and_query(
    test: RouteMatcher, request_: Request, fits: bool
) -> None:
    assert ask(http.route((test, named("it"))), request_) == ("it" if fits else "404")


def test_only_requests_that_match_no_path_go_to_the_default() -> None:
    site = http.route(("GET /", named("root")), default=named("rest"))
    assert ask(site, Request("GET", "/x")) == "rest"
    assert ask(site, Request("POST", "/")) == "405 GET, HEAD"


def test_a_malformed_route_is_rejected_when_it_is_built() -> None:
    for path in ("users", "get /", "/{}", "/{a...}/b", "/{a}/{a}", "/a?b", "/{a", "/a}"):
        with pytest.raises(ConfigError):
            http.route((path, named("")))
    with pytest.raises(ValueError, match="header name"):
        http.when("/", headers={"a b": None})
    handler: ConnectionHandler = stack(http.server(), named(""))
    with pytest.raises(TypeError, match="takes Stream"):
        http.route(("/", handler))  # type: ignore[arg-type]


def test_a_route_has_a_repr_and_serves() -> None:
    assert repr(http.route(("GET /", http.redirect("https")))) == (
        "http.route((http.when('GET /'), http.redirect('https')))"
    )
    assert talk(stack(http.server(), SITE), last("/users/7")).endswith(b"\r\n\r\nuser id=7")
