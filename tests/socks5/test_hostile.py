"""A server among clients that say anything, and on a network that does anything."""

import asyncio
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from llama import (
    ConnectionHandler,
    LlamaError,
    Stream,
    Target,
    UnreachableError,
    serve,
    socks5,
    stack,
    testing,
    tls,
)
from llama.testing._transcript import converse
from tests.socks5.worlds import Fails, echo

MESSAGES = [
    b"\x05\x01\x00",
    b"\x05\x02\x00\x02",
    b"\x01\x01x\x01y",
    b"\x05\x01\x00\x03\x09a.example\x01\xbb",
    b"\x05\x02\x00\x01\0\0\0\0\0\0",
    b"\x05\x03\x00\x01\0\0\0\0\0\0",
    b"\x04\x01\x00\x50\0\0\0\x01\0a.example\0",
]
talk: st.SearchStrategy[list[bytes]] = st.lists(
    st.one_of(st.sampled_from(MESSAGES), st.binary(max_size=40)), max_size=6
)


def servers() -> list[ConnectionHandler]:
    nowhere = Fails(UnreachableError("no"))
    return [
        socks5.server(connect=nowhere, socks4=True, bind=True, udp=True, host="127.0.0.1"),
        socks5.server(connect=nowhere, auth={"x": "y"}),
    ]


@settings(deadline=None)
@given(talk)
@example([MESSAGES[0], MESSAGES[4], b"more"])
async def test_any_client_bytes_end_the_connection(messages: list[bytes]) -> None:
    for server in servers():
        async with asyncio.timeout(5), testing.connect(server) as stream:  # which raises what is a bug
            try:
                await stream.write(b"".join(messages))
                await stream.write_eof()
                while await stream.read():
                    pass
            except OSError:
                pass


class At:
    """A connector to one stream in memory."""

    def __init__(self) -> None:
        self.here, self.there = testing.memory_pair()

    async def __call__(self, target: Target, /) -> Stream:
        return self.here


@settings(deadline=None)
@given(st.binary(max_size=60))
async def test_any_proxy_bytes_are_a_reply_or_an_error(answer: bytes) -> None:
    proxy = At()
    await proxy.there.write(answer)
    await proxy.there.write_eof()
    connect = socks5.connect("proxy.example", user="x", password="y", connect=proxy)
    try:
        stream = await connect(Target("a.example", 80))
        stream.abort()
    except (LlamaError, OSError):
        pass
    proxy.there.abort()


async def test_a_cancelled_connect_leaves_nothing_open() -> None:
    proxy = At()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await socks5.connect("proxy.example", connect=proxy)(Target("a.example", 80))
    with pytest.raises(OSError):
        while await proxy.there.read():
            pass
    proxy.there.abort()


async def test_a_listener_behind_tls_on_loopback_is_on_loopback(tmp_path: Path) -> None:
    authority = tls.CertificateAuthority.create()
    authority.write_pem(tmp_path / "ca.pem")
    authority.issue("localhost").write(tmp_path)
    secure = stack(tls.server(tmp_path / "cert.pem", tmp_path / "key.pem"), socks5.server())
    async with serve(echo, listen="127.0.0.1:0") as there, serve(secure, listen="localhost:0") as server:
        connect = socks5.connect(f"localhost:{server.port}", connect=tls.connect(ca=tmp_path / "ca.pem"))
        stream = await connect(Target("127.0.0.1", there.port))
        await converse(stream, ">> hi", "<< hi", ">>", "<<")
        await stream.aclose()


async def test_many_clients_at_once() -> None:
    async def one(address: str, target: Target) -> None:
        stream = await socks5.connect(address, user="john", password="secret")(target)
        await converse(stream, ">> hi", "<< hi", ">>", "<<")
        await stream.aclose()

    async with (
        serve(echo, listen="127.0.0.1:0") as there,
        serve(socks5.server(auth={"john": "secret"}), listen="127.0.0.1:0") as server,
        asyncio.TaskGroup() as group,
    ):
        for _ in range(150):
            group.create_task(one(server.address, Target("127.0.0.1", there.port)))
