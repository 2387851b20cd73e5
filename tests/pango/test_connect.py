"""CONNECT, extended CONNECT, Upgrade and Expect through pango, in front of an HTTP target."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest

import pango
from llama import ConnectionHandler, Shutdown, Stream, Target, serve, tcp
from llama.http._limits import H2Limits
from tests.http.h2.raw_client import Talk
from tests.http.proxy.test_connect_and_upgrade import (
    BODIES,
    H2C,
    MALFORMED,
    SMUGGLED,
    SWITCHED,
    TAKEN,
    requesting,
)
from tests.http.upstreams import OK, head_of


@asynccontextmanager
async def proxied(upstream: ConnectionHandler) -> AsyncGenerator[Stream]:
    """A connection to pango in front of an upstream."""
    async with (
        asyncio.timeout(10),
        serve(upstream, listen="127.0.0.1:0") as served,
        pango.serve(to=f"http://127.0.0.1:{served.port}", listen="127.0.0.1:0", plain=True) as server,
    ):
        stream = await tcp.connect()(Target("127.0.0.1", server.port))
        try:
            yield stream
        finally:
            stream.abort()


def keeping(heard: list[bytes]) -> ConnectionHandler:
    """An upstream that keeps what it receives and answers each read with 200."""

    async def upstream(stream: Stream) -> None:
        while data := await stream.read():
            heard.append(data)
            await stream.write(OK)

    return upstream


async def read_until(stream: Stream, part: bytes) -> bytes:
    got = b""
    while part not in got and (data := await stream.read()):
        got += data
    return got


@pytest.mark.parametrize("upgrade", ["", *TAKEN, *H2C, *MALFORMED])
async def test_connect_is_405_whatever_upgrade_says(upgrade: str) -> None:
    heard: list[bytes] = []
    async with proxied(keeping(heard)) as stream:
        await stream.write(requesting("CONNECT", "t.example:80", upgrade) + SMUGGLED.encode())
        got = await read_until(stream, b"never")
    assert got.startswith(b"HTTP/1.1 405 ") and got.count(b"HTTP/1.1 ") == 1
    assert heard == []


@pytest.mark.parametrize(
    ("protocol", "status"),
    [("", 405), ("h2c", 501), ("foo", 501), ("connect-udp", 501), ("websocket", 502)],
)
async def test_connect_over_http_2(protocol: str, status: int) -> None:
    heard: list[bytes] = []
    async with proxied(keeping(heard)) as stream:
        talk = Talk(stream, Shutdown.current(), H2Limits())
        head = [(":method", "CONNECT"), (":authority", "t.example:80")]
        if protocol:
            head += [(":protocol", protocol), (":scheme", "http"), (":path", "/p")]
        await talk.flush()
        request = await talk.ask(head, end=False)
        await talk.send(request, SMUGGLED.encode())
        assert (await talk.until("end"))[0].startswith(f"1 response {status}")
    if protocol == "websocket":
        assert heard[0].startswith(b"GET /p HTTP/1.1\r\n") and b"\r\nUpgrade: websocket\r\n" in heard[0]
        assert b"smuggled" not in b"".join(heard)
    else:
        assert heard == []


@pytest.mark.parametrize(
    ("upgrade", "passes"),
    [*[(each, True) for each in TAKEN], *[(each, False) for each in (*H2C, *MALFORMED)]],
)
async def test_an_upgrade_that_carries_http_or_is_malformed_is_dropped(upgrade: str, passes: bool) -> None:
    heard: list[bytes] = []
    async with proxied(keeping(heard)) as stream:
        await stream.write(requesting("GET", "/", upgrade))
        assert (await read_until(stream, b"ok")).startswith(b"HTTP/1.1 200 ")
    said = b"".join(heard).decode("latin-1")
    assert (f"\r\nUpgrade: {upgrade}\r\n" in said) is passes and ("pgrade" in said) is passes


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("is_early", [False, True])
async def test_an_upgrade_with_a_body_switches_after_the_body(body: str, is_early: bool) -> None:
    fields, sent, passed = BODIES[body]
    got = b""

    async def upstream(stream: Stream) -> None:
        nonlocal got
        await head_of(stream)
        if is_early:
            await stream.write(SWITCHED)
        while len(got) < len(passed):
            got += await stream.read(len(passed) - len(got))
        if not is_early:
            await stream.write(SWITCHED)
        await stream.write(b"after " + got[:3])
        while await stream.read():
            pass

    async with proxied(upstream) as stream:
        await stream.write(requesting("POST", "/", "foo", *fields) + sent)
        answer = await read_until(stream, b"after")
    assert answer.startswith(b"HTTP/1.1 101 ") and got == passed


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("is_held", [False, True])
async def test_expect_holds_a_body_only_until_it_arrives(body: str, is_held: bool) -> None:
    fields, sent, passed = BODIES[body]
    heard = b""

    async def upstream(stream: Stream) -> None:
        nonlocal heard
        assert b"Expect: 100-continue" in await head_of(stream)
        if is_held:
            await stream.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        while not heard.endswith(passed[-5:]):
            heard += await stream.read()
        await stream.write(OK)

    async with proxied(upstream) as stream, asyncio.timeout(0.9):
        await stream.write(requesting("POST", "/", "", "Expect: 100-continue", *fields))
        if is_held:
            assert (await read_until(stream, b"\r\n\r\n")) == b"HTTP/1.1 100 Continue\r\n\r\n"
        await stream.write(sent)
        assert (await read_until(stream, b"ok")).startswith(b"HTTP/1.1 200 ")
    assert heard == passed


@pytest.mark.parametrize("value", ["100-continue", "money", ""])
async def test_expect_of_http_1_0_is_ignored(value: str) -> None:
    heard: list[bytes] = []
    async with proxied(keeping(heard)) as stream, asyncio.timeout(0.9):
        head = f"POST / HTTP/1.0\r\nHost: a\r\nExpect: {value}\r\nContent-Length: 5\r\n\r\n"
        await stream.write(head.encode() + b"hello")
        assert (await read_until(stream, b"ok")).startswith(b"HTTP/1.1 200 ")
    said = b"".join(heard)
    assert b"xpect" not in said and said.endswith(b"\r\n\r\nhello")
