"""Basic and bearer authentication."""

import asyncio
import base64

import pytest

from llama import http, stack
from llama.http import Request, RequestHandler, Response, User
from llama.http._layers.auth.basic import Check

USERS = {"john": "s\xe9cret:x", "empty": ""}


async def whoami(request: Request) -> Response:
    return Response(
        200,
        {"Auth": "yes"} if "proxy-authorization" in request.headers else {},
        request.extensions.get(User) or "nobody",
    )


def basic(name: str, password: str, scheme: str = "Basic") -> str:
    return f"{scheme} {base64.b64encode(f'{name}:{password}'.encode()).decode()}"


def ask(exchange: RequestHandler, *values: str, header: str = "Authorization") -> tuple[int, bytes, Response]:
    async def main() -> tuple[int, bytes, Response]:
        response = await exchange(Request("GET", "/", [(header, value) for value in values]))
        return response.status, await response.body.read(), response

    return asyncio.run(main())


async def asynchronous(name: str, password: str) -> bool:
    return USERS.get(name) == password


def synchronous(name: str, password: str) -> bool:
    return USERS.get(name) == password


CHECKS: list[Check] = [USERS, asynchronous, synchronous]


@pytest.mark.parametrize("check", CHECKS)
def test_valid_credentials_are_accepted(check: Check) -> None:
    site = stack(http.basic_auth(check), whoami)
    assert ask(site, basic("john", "s\xe9cret:x"))[:2] == (200, b"john")
    assert ask(site, basic("empty", "", "basic"))[:2] == (200, b"empty")
    for wrong in (basic("john", "secret"), basic("JOHN", "s\xe9cret:x"), basic("nobody", ""), basic("", "")):
        assert ask(site, wrong)[0] == 401


@pytest.mark.parametrize(
    "values",
    [
        (),
        ("Basic",),
        ("Basic !!!",),
        ("Basic " + base64.b64encode(b"john").decode(),),
        ("Basic " + base64.b64encode(b"john:\xff").decode(),),
        ("Bearer x",),
        ("Bearer " + base64.b64encode("john:s\xe9cret:x".encode()).decode(),),
        ("Basic !" + base64.b64encode("john:s\xe9cret:x".encode()).decode(),),
        (basic("john", "s\xe9cret:x"), basic("john", "s\xe9cret:x")),
    ],
)
def test_malformed_credentials_are_ignored(values: tuple[str, ...]) -> None:
    status, _, response = ask(stack(http.basic_auth(USERS, realm="here"), whoami), *values)
    assert status == 401
    assert response.headers["www-authenticate"] == 'Basic realm="here", charset="UTF-8"'


def test_proxy_auth_uses_the_proxy_fields_and_removes_the_credentials() -> None:
    proxy = stack(http.proxy_auth(USERS), whoami)
    status, _, response = ask(proxy, basic("john", "s\xe9cret:x"))
    assert status == 407
    assert response.headers["proxy-authenticate"].startswith("Basic realm=")
    status, body, response = ask(proxy, basic("john", "s\xe9cret:x"), header="Proxy-Authorization")
    assert (status, body) == (200, b"john")
    assert "auth" not in response.headers


def test_a_realm_with_quotes_is_rejected() -> None:
    with pytest.raises(ValueError, match="quote"):
        http.basic_auth({}, realm='a"b')


async def who(token: str) -> str:
    return {"one": "mary"}.get(token, "")


def test_a_valid_token_is_accepted() -> None:
    site = stack(http.bearer_auth(["one", "two"]), whoami)
    assert ask(site, "Bearer two")[:2] == (200, b"nobody")
    assert ask(site, "bearer  one")[0] == 200
    assert ask(site, "Bearer three")[2].headers["www-authenticate"] == 'Bearer error="invalid_token"'
    for wrong in ((), ("Bearer",), ("Basic one",), ("Bearer one", "Bearer one")):
        assert ask(site, *wrong)[2].headers["www-authenticate"] == "Bearer"
    assert ask(stack(http.bearer_auth(who), whoami), "Bearer one")[:2] == (200, b"mary")
    assert ask(stack(http.bearer_auth(who), whoami), "Bearer two")[0] == 401
    with pytest.raises(TypeError, match="got a string"):
        http.bearer_auth("one")
