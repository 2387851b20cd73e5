"""Retries and rate limits."""

import asyncio
from collections.abc import Collection, Iterator

import pytest

from llama import ConfigError, OverloadedError, PeerAddress, TLSError, UnreachableError, http, stack
from llama.http import Request, RequestHandler, Response
from llama.http._h1.client import NoResponseError
from tests.http.serving import hello


class Upstream:
    """Responds or fails as scripted, and modifies the request as inner layers may."""

    def __init__(self, *ends: int | Exception) -> None:
        self.ends: Iterator[int | Exception] = iter(ends)
        self.got: list[tuple[str, str, bytes]] = []
        self.closed: list[int] = []
        self.kept: list[Response] = []  # keeps responses from being closed by garbage collection

    async def __call__(self, request: Request) -> Response:
        self.got.append((request.path, request.headers.get("x", ""), await request.body.read_chunk()))
        request.path, request.headers["X"] = "/changed", "changed"
        request.body = b""
        end = next(self.ends)
        if isinstance(end, Exception):
            raise end
        response = Response(end)
        response.on_close(lambda: self.closed.append(end))
        self.kept.append(response)
        return response


def send(
    upstream: RequestHandler, method: str = "PUT", statuses: Collection[int] = (503,), **options: float
) -> int:
    async def main() -> int:
        layer = http.retry(3, statuses=statuses, backoff=0, max_delay=0, budget=options.get("budget", 1.0))
        response = await stack(layer, upstream)(Request(method, "/a", {"X": "1"}, b"body"))
        return response.status

    return asyncio.run(main())


def test_a_retry_sends_the_original_request() -> None:
    upstream = Upstream(UnreachableError("no"), NoResponseError("gone"), 200)
    assert send(upstream) == 200
    assert upstream.got == [("/a", "1", b"body")] * 3


def test_a_status_is_retried_and_its_response_is_closed() -> None:
    upstream = Upstream(503, 200)
    assert send(upstream) == 200
    assert upstream.closed == [503]
    assert send(Upstream(503, 503, 503)) == 503
    assert send(Upstream(500)) == 500


def test_a_status_above_599_is_retried_as_500() -> None:
    assert send(Upstream(999, 600, 200), statuses={500}) == 200
    assert send(Upstream(999), statuses={502}) == 999


def test_a_request_that_may_have_been_processed_is_not_retried() -> None:
    assert send(Upstream(503), "POST") == 503
    with pytest.raises(NoResponseError):
        send(Upstream(NoResponseError("gone"), 200), "POST")
    with pytest.raises(TLSError):
        send(Upstream(TLSError("broken"), 200), "POST")
    assert send(Upstream(TLSError("broken"), 200)) == 200
    assert send(Upstream(UnreachableError("no"), 200), "POST") == 200


def test_retries_stop_after_the_last_attempt() -> None:
    with pytest.raises(UnreachableError, match="3"):
        send(Upstream(*(UnreachableError(str(number)) for number in (1, 2, 3)), 200))
    for arguments in ((0, 0.05, 0.2), (3, -1.0, 0.2), (3, 0.05, -1.0)):
        with pytest.raises(ConfigError):
            http.retry(arguments[0], backoff=arguments[1], budget=arguments[2])


def test_a_request_with_a_streaming_body_is_not_retried() -> None:
    async def main() -> None:
        upstream = Upstream(UnreachableError("no"), 200)
        with pytest.raises(UnreachableError):
            await stack(http.retry(backoff=0), upstream)(Request("PUT", "/", body=iter([b"a"])))
        assert len(upstream.got) == 1

    asyncio.run(main())


def test_each_key_has_its_own_rate_limit() -> None:
    async def main() -> None:
        site = stack(http.rate_limit(0.001, key=lambda request: request.headers.get("x")), hello)
        assert (await site(Request("GET", "/", {"x": "1"}))).status == 200
        assert (await site(Request("GET", "/", {"x": "2"}))).status == 200
        with pytest.raises(OverloadedError) as caught:
            await site(Request("GET", "/", {"x": "1"}))
        assert caught.value.status == 429

        by_client = stack(http.rate_limit(0.001), hello)
        for host, passes in (("192.0.2.1", True), ("192.0.2.2", True), ("192.0.2.1", False)):
            request = Request("GET", "/")
            request.client = PeerAddress(host, 1)
            if passes:
                assert (await by_client(request)).status == 200
            else:
                with pytest.raises(OverloadedError):
                    await by_client(request)

    asyncio.run(main())
    assert repr(http.rate_limit(5)) == "http.rate_limit(5, burst=5)"
