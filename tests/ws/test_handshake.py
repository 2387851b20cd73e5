"""The opening handshake, word by word."""

from collections.abc import Iterable

import pytest

from llama import http, stack, testing, ws
from llama.http import Request, Response
from llama.ws import WebSocket
from llama.ws._wire import Close
from tests.http.serving import client_of
from tests.ws.talking import ACCEPT, KEY, echo, echoing, handshake, raw, serving

SWITCH = b"HTTP/1.1 101 Switching Protocols\r\n"
BYE = b"\x88\x82\0\0\0\0\x03\xe8"  # a masked close with 1000


async def test_a_handshake_word_by_word() -> None:
    async with client_of(stack(http.server(), ws.server(subprotocols=["two", "one"]), echo)) as client:
        await client.say(handshake("Sec-WebSocket-Protocol: one, two"))
        await client.hear(
            SWITCH
            + f"Sec-WebSocket-Accept: {ACCEPT}\r\nSec-WebSocket-Protocol: two\r\n".encode()
            + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
        )
        await client.say(b"\x81\x85\0\0\0\0hello")
        await client.hear(b"\x81\x05hello")
        await client.say(b"\x89\x81\0\0\0\0p" + BYE)
        await client.hear(b"\x8a\x01p\x88\x02\x03\xe8")
        assert await client.hear_end() == b""


async def test_bytes_after_the_handshake_are_frames() -> None:
    async with client_of(stack(http.server(), ws.server(), echo)) as client:
        await client.say(handshake() + b"\x81\x85\0\0\0\0hello")
        answer = SWITCH + f"Sec-WebSocket-Accept: {ACCEPT}\r\n".encode()
        await client.hear(answer + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n\x81\x05hello")
        await client.say(BYE)
        assert await client.hear_end() == b"\x88\x02\x03\xe8"


async def test_the_subprotocol_is_none_if_none_is_offered() -> None:
    seen: list[str | None] = []

    async def note(socket: WebSocket) -> None:
        seen.append(socket.subprotocol)

    async with serving(stack(ws.server(subprotocols=["b"]), note)) as address:
        for lines in (
            [],
            ["Sec-WebSocket-Protocol: a"],
            ["Sec-WebSocket-Protocol: a", "Sec-WebSocket-Protocol:b"],
        ):
            async with raw(address) as client:
                head = await client.open(*lines)
                assert (b"Sec-WebSocket-Protocol" in head) is (len(lines) == 2)
                assert await client.hear() == Close(1000, "")
    assert seen == [None, None, "b"]


async def test_a_request_without_a_handshake_gets_426() -> None:
    async with client_of(stack(http.server(), ws.server(), echo)) as client:
        await client.say(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        heard = await client.hear_end()
    head = heard.partition(b"\r\n\r\n")[0].split(b"\r\n")
    assert head[0] == b"HTTP/1.1 426 Upgrade Required"
    assert b"Upgrade: websocket" in head and b"Sec-WebSocket-Version: 13" in head


VERSION, GOOD_KEY = "Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {KEY}"
BAD: list[tuple[str, list[str], int]] = [
    ("GET", ["Sec-WebSocket-Version: 12", GOOD_KEY], 426),
    ("GET", [VERSION, VERSION, GOOD_KEY], 426),
    ("GET", [GOOD_KEY], 426),
    ("GET", [VERSION], 400),
    ("GET", [VERSION, GOOD_KEY, GOOD_KEY], 400),
    ("GET", [VERSION, "Sec-WebSocket-Key: AAAA"], 400),
    ("GET", [VERSION, "Sec-WebSocket-Key: \xe4"], 400),
    ("GET", [VERSION, GOOD_KEY, "Sec-WebSocket-Extensions: ;;"], 400),
    ("GET", [VERSION, GOOD_KEY, "Origin: https://evil.example"], 403),
    ("GET", [VERSION, GOOD_KEY, "Origin: https://a.example", "Origin: https://a.example"], 400),
    ("POST", [VERSION, GOOD_KEY, "Content-Length: 0"], 405),
]


@pytest.mark.parametrize(("method", "lines", "status"), BAD)
async def test_a_bad_handshake_is_refused(method: str, lines: list[str], status: int) -> None:
    head = [
        f"{method} / HTTP/1.1",
        "Host: a",
        "Connection: Upgrade, close",
        "Upgrade: websocket",
        *lines,
        "",
        "",
    ]
    async with client_of(
        stack(http.server(), ws.server(origins=["https://a.example", None]), echo)
    ) as client:
        await client.say("\r\n".join(head).encode("latin-1"))
        assert (await client.hear_end()).startswith(b"HTTP/1.1 %d " % status)


@pytest.mark.parametrize(
    ("origins", "origin", "status"),
    [
        (["https://a.example"], "https://A.example", 101),
        (["https://a.example"], "https://a.example.evil", 403),
        (["https://a.example"], "null", 403),
        (["https://a.example"], None, 403),
        (["https://a.example", None], None, 101),
        (None, "https://evil.example", 101),
    ],
)
async def test_origins(origins: Iterable[str | None] | None, origin: str | None, status: int) -> None:
    async with echoing(origins=origins) as address, raw(address) as client:
        head = await client.open(*([f"Origin: {origin}"] if origin else []))
        assert head.startswith(b"HTTP/1.1 %d " % status)


OFFERS = [
    ("client_max_window_bits", "server_max_window_bits=12; client_max_window_bits=12"),
    ("server_max_window_bits=10", "server_max_window_bits=10"),
    ("server_no_context_takeover", "server_no_context_takeover; server_max_window_bits=12"),
    ("what=1, permessage-deflate", "server_max_window_bits=12"),
    ("client_max_window_bits, x-unknown", "server_max_window_bits=12; client_max_window_bits=12"),
    ("server_max_window_bits=8", None),
    ("what=1", None),
]


@pytest.mark.parametrize(("offer", "answer"), OFFERS)
async def test_negotiation_of_compression(offer: str, answer: str | None) -> None:
    async with echoing() as address, raw(address) as client:
        head = (await client.open(f"Sec-WebSocket-Extensions: permessage-deflate; {offer}")).decode()
        line = f"\r\nSec-WebSocket-Extensions: permessage-deflate; {answer}\r\n"
        assert line in head if answer else "Extensions" not in head
    async with echoing(compression=False) as address, raw(address) as client:
        assert b"Extensions" not in await client.open(
            f"Sec-WebSocket-Extensions: permessage-deflate; {offer}"
        )


async def test_an_extended_connect_has_no_key() -> None:
    """As HTTP/2 and 3 ask for it (RFC 8441 section 5)."""
    request = Request("CONNECT", "a", {"Sec-WebSocket-Version": "13", "Sec-WebSocket-Protocol": "chat"})
    request.upgrade_protocol = "websocket"
    response = await stack(ws.server(subprotocols=["chat"]), echo)(request)
    assert list(response.headers) == [("Sec-WebSocket-Protocol", "chat")]
    assert response.upgrade is not None
    async with testing.connect(response.upgrade) as stream:
        await stream.write(b"\x81\x81\0\0\0\0a")
        assert await stream.read() == b"\x81\x01a"
        await stream.write(BYE)
        assert await stream.read() == b"\x88\x02\x03\xe8"


async def test_an_upstream_of_http2_answers_no_key() -> None:
    inner = stack(ws.server(), echo)

    async def upstream(request: Request) -> Response:
        response = await inner(request)
        response.status = 200
        del response.headers["Sec-WebSocket-Accept"]
        return response

    async with client_of(stack(http.server(), ws.inspect(lambda message: message), upstream)) as client:
        await client.say(handshake())
        answer = SWITCH + f"Sec-WebSocket-Accept: {ACCEPT}\r\n".encode()
        await client.hear(answer + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        await client.say(b"\x81\x81\0\0\0\0a")
        await client.hear(b"\x81\x01a")
        await client.say(BYE)
        await client.hear(b"\x88\x02\x03\xe8")
