"""HTTP variants of generic layers, which take a function of the request."""

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest

from llama import ConfigError, OverloadedError, PeerAddress, http, socks5, stack, testing
from llama import User as AnyUser
from llama.http import Request, Response
from llama.http._layers.limits.concurrency_limit import ConcurrencyLimit
from tests.http.serving import hello


def tenant(request: Request) -> str | None:
    return request.headers.get("x-tenant")


def of(name: str) -> Request:
    return Request("GET", "/", {"X-Tenant": name})


class Desk:
    """Responds when the test sets the response."""

    def __init__(self) -> None:
        self.waiting: dict[str, asyncio.Future[Response]] = {}

    async def __call__(self, request: Request) -> Response:
        name = request.headers["x-tenant"]
        self.waiting[name] = asyncio.get_running_loop().create_future()
        return await self.waiting[name]


async def get(exchange: http.RequestHandler, request: Request) -> Response:
    return await exchange(request)


async def failing(exchange: http.RequestHandler) -> None:
    with pytest.raises(ValueError, match="broken"):
        await exchange(of("a"))


# limit


async def test_each_key_has_its_own_concurrency_limit() -> None:
    desk = Desk()
    service = stack(http.concurrency_limit(1, key=tenant, retry_after=7), desk)
    async with testing.clock() as clock, asyncio.TaskGroup() as group:
        first = group.create_task(get(service, of("a")))
        second = group.create_task(get(service, of("b")))
        await clock.settle()
        with pytest.raises(OverloadedError, match="limit of 1 concurrent requests for a") as caught:
            await service(of("a"))
        assert (caught.value.status, caught.value.retry_after) == (429, 7)
        for name in "ab":
            desk.waiting[name].set_result(Response())
        await clock.settle()
        with pytest.raises(OverloadedError):
            await service(of("a"))  # the first response has not ended
        await (await first).aclose()
        await (await second).aclose()
        third = group.create_task(get(service, of("a")))
        await clock.settle()
        desk.waiting["a"].set_result(Response())
        await (await third).aclose()


async def test_queued_requests_run_in_order_and_unused_keys_are_dropped() -> None:
    desk = Desk()
    service = http.concurrency_limit(1, key=tenant, queue=1)(desk)
    assert isinstance(service, ConcurrencyLimit)
    async with testing.clock() as clock, asyncio.TaskGroup() as group:
        first = group.create_task(failing(service))
        await clock.settle()
        second = group.create_task(get(service, of("a")))
        await clock.settle()
        with pytest.raises(OverloadedError, match="limit of 1 concurrent requests for a, with 1 queued"):
            await service(of("a"))
        desk.waiting["a"].set_exception(ValueError("broken"))
        await first
        await clock.settle()
        desk.waiting["a"].set_result(Response())
        await (await second).aclose()
    assert service.running == {}


async def test_the_default_key_is_the_client_address() -> None:
    service = stack(http.concurrency_limit(1), hello)
    async with testing.client(service, peer=PeerAddress("2001:db8::1", 5)) as client:
        response = await client.get("/")
        with pytest.raises(OverloadedError, match="for 2001:db8::/64"):
            await client.get("/")
        await response.aclose()
        await client.get("/")


# timeout


def patience(request: Request) -> float | None:
    return {"POST": 60.0, "GET": 5.0}.get(request.method)


async def slow(request: Request) -> Response:
    await asyncio.sleep(30)
    return Response(200, body=b"late")


async def test_the_timeout_can_be_a_function_of_the_request() -> None:
    service = stack(http.timeout(patience), slow)
    async with testing.clock(autojump=True):
        with pytest.raises(TimeoutError, match="GET request exceeded the timeout of 5 s"):
            await service(Request("GET", "/"))
        for method in ("POST", "PUT"):
            assert (await service(Request(method, "/"))).status == 200


async def test_an_exchange_that_times_out_is_504() -> None:
    async with (
        testing.clock(autojump=True),
        testing.client(stack(http.server(), http.timeout(5), slow)) as client,
    ):
        assert (await client.get("/")).status == 504


async def test_the_timeout_can_include_the_response_body() -> None:
    async def parts() -> AsyncIterator[bytes]:
        for number in range(5):
            await asyncio.sleep(2)
            yield b"%d" % number

    async def stream(request: Request) -> Response:
        return Response(200, body=parts())

    async with testing.clock(autojump=True):
        assert await (await stack(http.timeout(5), stream)(Request("GET", "/"))).body.read() == b"01234"
        whole = stack(http.timeout(11, per_exchange=True), stream)
        assert await (await whole(Request("GET", "/"))).body.read() == b"01234"
        response = await stack(http.timeout(5, per_exchange=True), stream)(Request("GET", "/"))
        with pytest.raises(TimeoutError, match="GET request exceeded the timeout of 5 s"):
            await response.body.read()
        await response.aclose()


async def test_a_timeout_of_the_handler_is_not_reported_as_the_layers() -> None:
    async def fails(request: Request) -> Response:
        raise TimeoutError("the database's own")

    with pytest.raises(TimeoutError, match="the database's own"):
        await stack(http.timeout(5), fails)(Request("GET", "/"))


# trace


async def test_a_trace_line_has_the_name_the_status_and_the_fields(caplog: pytest.LogCaptureFixture) -> None:
    service = stack(http.trace(lambda request: f"site {request.method}"), hello)
    with caplog.at_level(logging.INFO, "llama.trace"):
        async with testing.client(service) as client:
            response = await client.get("/")
            assert caplog.records == []
            await response.aclose()
    (record,) = caplog.records
    assert record.getMessage().startswith("site GET: 200 after 0.0")
    fields = vars(record)
    assert fields["http.request.method"] == "GET"
    assert fields["http.response.status_code"] == 200
    assert fields["client.address"] == "192.0.2.1"
    assert (fields["outcome"], fields["server.address"]) == ("ok", "testserver")


async def test_a_trace_line_of_a_failure_has_the_error(caplog: pytest.LogCaptureFixture) -> None:
    async def broken(request: Request) -> Response:
        raise OverloadedError("too many")

    with caplog.at_level(logging.INFO, "llama.trace"), pytest.raises(OverloadedError):
        await stack(http.trace("site"), broken)(Request("GET", "/"))
    (record,) = caplog.records
    assert record.getMessage().endswith(": too many")
    assert vars(record)["error.type"] == "OverloadedError"
    assert vars(record)["outcome"] == "error"


# auth


async def whoami(request: Request) -> Response:
    return Response(200, body=request.extensions.get(http.User) or "nobody")


async def by_cookie(request: Request) -> str | Response | None:
    match request.headers.get("cookie"):
        case "session=1":
            return "mary"
        case "session=old":
            return Response(302, {"Location": "/sign-in"})
        case _:
            return None


def by_token(request: Request) -> bool:
    return request.headers.get("authorization") == "Token 1"


async def test_auth_takes_the_user_from_a_function() -> None:
    site = stack(http.auth(by_cookie, challenge='Cookie realm="here"'), whoami)
    async with testing.client(site) as client:
        assert await (await client.get("/", {"Cookie": "session=1"})).body.read() == b"mary"
        response = await client.get("/", {"Cookie": "session=old"})
        assert (response.status, response.headers["location"]) == (302, "/sign-in")
        response = await client.get("/")
        assert (response.status, response.headers["www-authenticate"]) == (401, 'Cookie realm="here"')
    async with testing.client(stack(http.auth(by_token), whoami)) as client:
        assert await (await client.get("/", {"Authorization": "Token 1"})).body.read() == b"nobody"
        assert (await client.get("/")).status == 403


def test_http_user_is_llama_user() -> None:
    assert http.User is AnyUser
    assert socks5.User is AnyUser


# settings


def test_invalid_settings_are_rejected_when_the_layer_is_built() -> None:
    with pytest.raises(ConfigError, match=r"http\.concurrency_limit\(0\)"):
        http.concurrency_limit(0)
    with pytest.raises(ConfigError, match=r"http\.concurrency_limit\(queue=-1\)"):
        http.concurrency_limit(1, queue=-1)
    with pytest.raises(ConfigError, match=r"http\.timeout\(0\)"):
        http.timeout(0)
    with pytest.raises(ValueError, match="control"):
        http.auth(by_token, challenge="a\nb")


def test_the_layers_have_a_repr() -> None:
    layers = [
        http.concurrency_limit(3),
        http.timeout(5, per_exchange=True),
        http.timeout(patience),
        http.trace("a"),
        http.auth(by_token),
    ]
    shown = [
        "http.concurrency_limit(3)",
        "http.timeout(5, whole=True)",
        "http.timeout(function)",
        "http.trace('a')",
        "http.auth()",
    ]
    assert [repr(each) for each in layers] == shown
    assert [repr(each(hello)) for each in layers] == shown
