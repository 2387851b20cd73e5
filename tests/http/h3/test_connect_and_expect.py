"""Extended CONNECT and Expect over HTTP/3."""

import pytest

from llama import http
from llama.http import Request, Response, reverse_proxy
from tests.http.h3.fixtures import h3, raw
from tests.http.upstreams import OK, Upstream, answering

pytest.importorskip("qh3")


@pytest.mark.parametrize("protocol", [b"websocket", b"h2c", b"connect-udp"])
async def test_an_extended_connect_is_501(protocol: bytes) -> None:
    upstream = Upstream(answering(OK))
    async with http.client(upstream) as client:
        front = reverse_proxy("http://a.example", client=client)
        async with h3(front) as port, raw(port) as talk:
            answer = talk.ask(
                (b":method", b"CONNECT"),
                (b":protocol", protocol),
                (b":scheme", b"https"),
                (b":authority", b"localhost"),
                (b":path", b"/p"),
            )
            await answer.ends(talk)
    assert answer.heads[0][0] == (b":status", b"501")
    assert not upstream.targets


@pytest.mark.parametrize(
    ("value", "heads"),
    [(b"100-continue", [b"100", b"200"]), (b"money", [b"417"]), (b"100-continue, x", [b"417"])],
)
async def test_expect_is_checked_and_a_client_that_waits_gets_100(value: bytes, heads: list[bytes]) -> None:
    async def app(request: Request) -> Response:
        return Response(200, body=await request.body.read())

    async with h3(app) as port, raw(port) as talk:
        answer = talk.ask(
            (b":method", b"POST"),
            (b":scheme", b"https"),
            (b":authority", b"localhost"),
            (b":path", b"/"),
            (b"expect", value),
            end=False,
        )
        if len(heads) == 2:
            await answer.informed.wait()
            talk.http.send_data(min(talk.answers), b"x", end_stream=True)
            talk.transmit()
        await answer.ends(talk)
    assert [head[0][1] for head in answer.heads] == heads
