"""Clients that break off while nobody reads from them: their exchange ends at once all the same."""

import asyncio

import pytest

from llama import Stream, Target, serve, stack, tcp, tls
from llama.http import Request, Response, proxy, reverse_proxy, server
from llama.http._messages.message import RequestHandler
from tests.tcp.relay.test_resets import Stalled, fill
from tests.tls.sessions import ca_file, pair_files

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.mark.parametrize("framing", [b"Content-Length: 1000000000", b"Transfer-Encoding: chunked"])
@pytest.mark.parametrize("kind", ["reverse", "reverse, over TLS", "forward"])
async def test_an_upload_that_an_upstream_does_not_take(kind: str, framing: bytes) -> None:
    stalled, left = Stalled(), asyncio.Event()
    async with asyncio.timeout(10), serve(stalled, listen="127.0.0.1:0") as there:
        exchange: RequestHandler = proxy() if kind == "forward" else reverse_proxy(f"http://{there.address}")

        async def watched(request: Request) -> Response:
            try:
                return await exchange(request)
            finally:
                left.set()

        handler = stack(server(), watched)
        connect = tcp.connect()
        if kind == "reverse, over TLS":
            handler = tls.server(*pair_files("localhost"))(handler)
            connect = tls.connect(connect=connect, ca=ca_file())
        async with serve(handler, listen="127.0.0.1:0") as serving:
            stream = await connect(Target("localhost", serving.port))
            url = f"http://{there.address}/" if kind == "forward" else "/"
            await stream.write(f"POST {url} HTTP/1.1\r\nHost: {there.address}\r\n".encode() + framing)
            await stream.write(b"\r\n\r\n")
            if b"chunked" in framing:
                await stream.write(b"3b9aca00\r\n")
            await fill(stream)
            assert not left.is_set()
            stream.abort()
            await left.wait()
            stalled.go.set()
            assert await stalled.ended is not None


@pytest.mark.parametrize("at_once", [False, True])
async def test_a_request_that_was_followed_by_another_too_early(at_once: bool) -> None:
    begun, left = asyncio.Event(), asyncio.Event()

    async def slow(request: Request) -> Response:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            left.set()
        return Response()

    async with asyncio.timeout(10), serve(stack(server(), slow), listen="127.0.0.1:0") as serving:
        stream: Stream = await tcp.connect()(Target.parse(serving.address))
        await stream.write(GET * 2 if at_once else GET)
        await begun.wait()
        if not at_once:
            await stream.write(GET)
        await asyncio.sleep(0.2)  # until it is in, and the first has been found to take its time
        stream.abort()
        await left.wait()
