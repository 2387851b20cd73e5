"""What a connection begins with."""

import pytest

from llama import testing
from llama.mitm._sniff import Sniffed, is_http, sniff
from tests.tls.client_hello.hellos import client_hello, record, sni


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n",
        b"GET /a",
        b"OPTIONS * HTTP/1.1\r\n",
        b"GET http://a.example/ HTTP/1.1\r\n",
        b"POST HTTP://a",
        b"VERSION-CONTROL /x",
        b"CONNECT a.example:443 HTTP/1.1\r\n",
    ],
)
def test_a_request_is_http(data: bytes) -> None:
    assert is_http(data) is True


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"\x00\x00",
        b"EHLO a.example\r\n",
        b"HELP\r\n",
        b"GET /x\r\n",  # HTTP/0.9
        b"OPTIONS rtsp://a.example RTSP/1.0\r\n",
        b"get / HTTP/1.1\r\n",
        b"GETTINGALITTLETOOLONGHERE",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET  / HTTP/1.1",
    ],
)
def test_other_bytes_are_not_http(data: bytes) -> None:
    assert is_http(data) is False


@pytest.mark.parametrize("data", [b"G", b"GET", b"GET ", b"GET ht", b"VERSION-CONTROL"])
def test_more_bytes_are_needed_for_an_incomplete_start(data: bytes) -> None:
    assert is_http(data) is None


def test_a_preface_is_http_with_h2_enabled() -> None:
    assert is_http(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", h2=True) is True


def hello() -> bytes:
    return record(client_hello(sni(b"a.example")))


async def looked(*pieces: bytes, patience: float | None = None, end: bool = False) -> tuple[Sniffed, bytes]:
    client, server = testing.memory_pair()
    for piece in pieces:
        await client.write(piece)
    if end:
        await client.write_eof()
    start, found, data = await sniff(server, patience)
    assert (found is not None) == (start is Sniffed.TLS)
    client.abort()
    server.abort()
    return start, data


async def test_the_bytes_read_are_returned() -> None:
    whole = hello()
    assert await looked(whole) == (Sniffed.TLS, whole)
    assert await looked(*(bytes((each,)) for each in whole)) == (Sniffed.TLS, whole)
    assert await looked(b"GET", b" /", b" HTTP/1.1\r\n") == (Sniffed.HTTP, b"GET / HTTP/1.1\r\n")
    assert await looked(b"\x16\x03\x01\x00\x04abcd") == (Sniffed.OTHER, b"\x16\x03\x01\x00\x04abcd")


async def test_a_client_that_closes_is_ended() -> None:
    assert await looked(end=True) == (Sniffed.ENDED, b"")
    assert await looked(b"GE", end=True) == (Sniffed.OTHER, b"GE")
    assert await looked(hello()[:40], end=True) == (Sniffed.OTHER, hello()[:40])


async def test_a_silent_client_is_detected_with_patience() -> None:
    assert await looked(patience=0.01) == (Sniffed.SILENT, b"")
    assert await looked(b"GE", patience=0.01) == (Sniffed.OTHER, b"GE")
    assert await looked(hello()[:40], patience=0.01) == (Sniffed.OTHER, hello()[:40])
