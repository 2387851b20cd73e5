"""Generic layers around an exchange: a call ends when the body of its response has ended."""

import pytest

from llama import OverloadedError, concurrency_limit, describe, rate_limit, stack, testing, timeout, trace
from llama.http import Request, Response


async def respond(request: Request) -> Response:
    return Response(200, body=[b"one", b"two"])


async def test_a_response_keeps_its_slot_until_it_is_closed(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    service = stack(trace("answer"), concurrency_limit(1), timeout(5), respond)
    async with testing.clock() as clock:
        response = await service(Request("GET", "http://a.example/"))
        with pytest.raises(OverloadedError):
            await service(Request("GET", "http://a.example/"))
        caplog.clear()
        await clock.advance(2)
        assert await response.body.read() == b"onetwo"
        await response.aclose()
    assert [record.getMessage() for record in caplog.records] == ["answer: ok after 2.000000 s"]
    await (await service(Request("GET", "http://a.example/"))).aclose()


async def test_requests_can_be_limited_by_a_key_of_the_request() -> None:
    def api_key(request: Request) -> str:
        return request.headers.get("x-key", "")

    service = stack(rate_limit(1, key=api_key), respond)
    async with testing.clock():
        for key in ("a", "b"):
            await (await service(Request("GET", "/", [("X-Key", key)]))).aclose()
        with pytest.raises(OverloadedError, match="a: more than 1 calls a second"):
            await service(Request("GET", "/", [("X-Key", "a")]))
    assert describe(service) == "rate_limit(1, burst=1) > respond"
