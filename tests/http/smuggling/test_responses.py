"""Responses that servers may parse differently: the client's view, and the response to its next request."""

import asyncio
from collections.abc import Callable

import pytest

from llama import Stream, Target, layer
from llama.http import Headers, Request, RequestHandler, Response, client, reverse_proxy, server
from llama.http import connect as http_connect
from tests.http.serving import client_of, get, talk
from tests.http.smuggling.cases import (
    LAST,
    RESET,
    Backend,
    Seen,
    forward,
    heard_of,
    ok,
    reverse,
    statuses,
    take_request,
    through,
)
from tests.http.upstreams import Upstream, tcp_pair

Make = Callable[[Upstream], RequestHandler]
proxies = pytest.mark.parametrize("make", [reverse, forward])
READ = 65536
POISON = b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nsmuggled"
FIRST = b"GET /first HTTP/1.1\r\nHost: a\r\n\r\n"


def answer(*lines: str, status: str = "200 OK", version: str = "1.1", body: bytes = b"") -> bytes:
    head = "".join(f"{each}\r\n" for each in (f"HTTP/{version} {status}", *lines, ""))
    return head.encode("latin-1") + body


def first_of(raw: bytes) -> Backend:
    """An upstream that sends this for the first request, and valid responses for all others."""

    def make(seen: Seen) -> bytes:
        return raw if seen.target == "/first" else ok(seen)

    return Backend(make)


def labels(table: dict[str, bytes]) -> list[str]:
    return [name.replace(" ", "_") for name in table]


TE = "Transfer-Encoding: chunked"
ONE = b"1\r\na\r\n0\r\n\r\n"

# heads that are refused: the client gets 502, and its next request a connection of its own

REFUSED: dict[str, bytes] = {
    "CL and TE": answer("Content-Length: 1", TE, body=ONE + POISON),
    "TE and CL": answer(TE, "Content-Length: 1", body=ONE + POISON),
    "CL twice, differing": answer("Content-Length: 1", "Content-Length: 2", body=b"ab" + POISON),
    "CL list, differing": answer("Content-Length: 1, 2", body=b"ab" + POISON),
    "CL list with an empty value": answer("Content-Length: 1,,1", body=b"a" + POISON),
    "CL list, equal but for a zero": answer("Content-Length: 1, 01", body=b"a" + POISON),
    "CL list of signs": answer("Content-Length: +1, +1", body=b"a" + POISON),
    "CL +": answer("Content-Length: +1", body=b"a" + POISON),
    "CL -": answer("Content-Length: -1", body=b"a" + POISON),
    "CL hex": answer("Content-Length: 0x1", body=b"a" + POISON),
    "CL octal": answer("Content-Length: 01", body=b"a" + POISON),
    "CL empty": answer("Content-Length:", body=POISON),
    "CL over 64 bits": answer("Content-Length: 18446744073709551617", body=b"a" + POISON),
    "CL space before colon": answer("Content-Length : 1", body=b"a" + POISON),
    "CL folded": answer("Content-Length:\r\n 1", body=b"a" + POISON),
    "TE: identity": answer("Transfer-Encoding: identity", body=POISON),
    "TE: gzip, chunked": answer("Transfer-Encoding: gzip, chunked", body=ONE + POISON),
    "TE: chunked, gzip": answer("Transfer-Encoding: chunked, gzip", body=ONE + POISON),
    "TE twice": answer(TE, TE, body=ONE + POISON),
    "TE empty": answer("Transfer-Encoding:", body=ONE + POISON),
    "TE vertical tab": answer("Transfer-Encoding: \x0bchunked", body=ONE + POISON),
    "TE in HTTP/1.0": answer(TE, version="1.0", body=ONE + POISON),
    "bare LF": b"HTTP/1.1 200 OK\nContent-Length: 1\n\na" + POISON,
    "bare LF after the first line": b"HTTP/1.1 200 OK\nContent-Length: 1\r\n\r\na" + POISON,
    "bare CR": answer("X: a\rContent-Length: 1", body=b"a"),
    "NUL": answer("X: a\x00", "Content-Length: 1", body=b"a"),
    "obs-fold": answer("X: a", " b", "Content-Length: 1", body=b"a"),
    "space before colon": answer("X : a", "Content-Length: 1", body=b"a"),
    "space before the first field": answer(" X: a", "Content-Length: 1", body=b"a"),
    "a line without a colon": answer("X", "Content-Length: 1", body=b"a"),
    "an odd name": answer("X\xff: a", "Content-Length: 1", body=b"a"),
    "a head without an end": answer("X: " + "a" * 70_000),
    "HTTP/2": answer("Content-Length: 1", version="2", body=b"a"),
    "HTTP/1.2": answer("Content-Length: 1", version="1.2", body=b"a"),
    "HTTP/0.9": b"hello\r\n\r\n",
    "status of four digits": answer("Content-Length: 1", status="2000 OK", body=b"a"),
    "status of two digits": answer("Content-Length: 1", status="20 OK", body=b"a"),
    "status 099": answer("Content-Length: 1", status="099 OK", body=b"a"),
    "two spaces": answer("Content-Length: 1", status=" 200 OK", body=b"a"),
    "NUL in the reason": answer("Content-Length: 1", status="200 \x00", body=b"a"),
    "CR in the reason": answer("Content-Length: 1", status="200 O\rK", body=b"a"),
    "101 unasked": answer("Connection: Upgrade", "Upgrade: websocket", status="101 Switching Protocols"),
    "101 and nothing else": answer(status="101 Switching Protocols", body=POISON),
    "100 with a length": answer("Content-Length: 1", status="100 Continue", body=b"a" + POISON),
    "103 in chunks": answer(TE, status="103 Early Hints", body=ONE + POISON),
    "a flood of 1xx": answer(status="103 Early Hints") * 40,
}


@proxies
@pytest.mark.parametrize("name", REFUSED, ids=labels(REFUSED))
async def test_an_ambiguous_head_is_502(name: str, make: Make) -> None:
    backend = first_of(REFUSED[name])
    heard = await through(FIRST + LAST, backend, make)
    final = [each for each in statuses(heard) if each != 103]
    assert final == [502, 200] and heard.endswith(b"</last>")
    assert b"smuggled" not in heard


# what is more than the response: it reaches nobody

MORE: dict[str, bytes] = {
    "after a length": answer("Content-Length: 1", body=b"a" + POISON),
    "after no length": answer("Content-Length: 0", body=POISON),
    "after chunks": answer(TE, body=ONE + POISON),
    "after trailers": answer(TE, body=b"1\r\na\r\n0\r\nX: 1\r\n\r\n" + POISON),
    "after 204": answer(status="204 No Content", body=POISON),
    "after 204 with a length": answer("Content-Length: 8", status="204 No Content", body=b"smuggled"),
    "after 204 with a response as its body": answer(
        f"Content-Length: {len(POISON)}", status="204 No Content", body=POISON
    ),
    "after 204 in chunks": answer(TE, status="204 No Content", body=ONE + POISON),
    "after equal lengths": answer("Content-Length: 1", "Content-Length: 1", body=b"a" + POISON),
    "after a list of equal lengths": answer("Content-Length: 1, 1", body=b"a" + POISON),
    "after status 999": answer("Content-Length: 1", status="999 Denied", body=b"a" + POISON),
    "after 304": answer("Content-Length: 8", status="304 Not Modified", body=b"smuggled" + POISON),
    "after HTTP/1.0": answer(
        "Content-Length: 1", "Connection: keep-alive", version="1.0", body=b"a" + POISON
    ),
    "after close": answer("Content-Length: 1", "Connection: close", body=b"a" + POISON),
    "no response": answer("Content-Length: 1", body=b"asmuggled"),
    "an empty line": answer("Content-Length: 1", body=b"a\r\n"),
}


@proxies
@pytest.mark.parametrize("name", MORE, ids=labels(MORE))
async def test_bytes_after_a_response_are_discarded(name: str, make: Make) -> None:
    heard = await through(FIRST + LAST, first_of(MORE[name]), make)
    assert statuses(heard)[1:] == [200] and heard.endswith(b"</last>")
    assert b"smuggled" not in heard


@pytest.mark.parametrize("name", ["a body", "no body"])
async def test_a_response_to_head_has_no_body(name: str) -> None:
    raw = answer("Content-Length: 8", body=b"smuggled" + POISON if name == "a body" else b"")
    heard = await through(FIRST.replace(b"GET", b"HEAD") + LAST, first_of(raw))
    assert b"\r\nContent-Length: 8\r\n" in heard and b"smuggled" not in heard
    assert heard.endswith(b"</last>")


PIECES = pytest.mark.parametrize("piece", [POISON, b"smuggled", b"\r\n", b"H"])


@PIECES
async def test_bytes_on_an_idle_connection_reach_no_client(piece: bytes) -> None:
    idle, told = asyncio.Event(), asyncio.Event()

    async def origin(stream: Stream) -> None:
        while found := take_request(await stream.read()):
            await stream.write(ok(found[0]))
            if found[0].target == "/first":
                await idle.wait()
                await stream.write(piece)
                told.set()

    exchange = reverse_proxy("http://b", client=client(Upstream(origin, tcp_pair), max_connections=1))
    async with client_of(server()(exchange)) as browser:
        await browser.say(FIRST)
        await browser.hear(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\nVia: 1.1 llama\r\n\r\n</first>")
        idle.set()
        await told.wait()
        await asyncio.sleep(0.01)  # time for the kernel to deliver
        await browser.say(LAST)
        heard = await heard_of(browser)
    assert heard.endswith(b"</last>") and statuses(heard) == [200]


@PIECES
async def test_bytes_on_a_connection_with_a_waiter_reach_no_client(piece: bytes) -> None:
    async def origin(stream: Stream) -> None:
        while found := take_request(await stream.read()):
            if found[0].target == "/last":
                await stream.write(ok(found[0]))
                continue
            await second.wait()
            raw = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"
            length = 2 * READ - len(raw % 100_000)  # so that the last read ends with the response
            await stream.write(raw % length + bytes(length) + piece)

    second = asyncio.Event()
    fetcher = client(Upstream(origin, tcp_pair), max_connections=1)
    async with fetcher, asyncio.TaskGroup() as group:
        first = await fetcher_task(group, fetcher, "/first")
        last = await fetcher_task(group, fetcher, "/last")
        second.set()
        assert len(await first) == 2 * READ - 43
        assert await last == b"</last>"
        assert fetcher.state.open().count == 1


async def fetcher_task(group: asyncio.TaskGroup, fetcher: RequestHandler, path: str) -> asyncio.Task[bytes]:
    async def fetch() -> bytes:
        response = await fetcher(Request("GET", f"http://a{path}"))
        return await response.body.read()

    task = group.create_task(fetch())
    for _ in range(10):
        await asyncio.sleep(0)
    return task


# bodies that break off: never one that looks whole

BROKEN: dict[str, bytes] = {
    "CL short": answer("Content-Length: 10", "Connection: close", body=b"a"),
    "chunks without an end": answer(TE, "Connection: close", body=b"1\r\na\r\n"),
    "half a chunk": answer(TE, "Connection: close", body=b"1\r\na\r\n5\r\nab"),
    "half an end": answer(TE, "Connection: close", body=b"1\r\na\r\n0\r\n"),
    "size +": answer(TE, body=b"1\r\na\r\n+1\r\na\r\n0\r\n\r\n"),
    "size ended by LF": answer(TE, body=b"1\r\na\r\n1\na\r\n0\r\n\r\n"),
    "size of 64 bits": answer(TE, body=b"1\r\na\r\n10000000000000001\r\na\r\n0\r\n\r\n"),
    "chunk larger than its size": answer(TE, body=b"1\r\na\r\n1\r\nab\r\n0\r\n\r\n"),
    "extension with LF": answer(TE, body=b"1\r\na\r\n1;a\nb\r\na\r\n0\r\n\r\n"),
    "trailer Content-Length": answer(TE, body=b"1\r\na\r\n0\r\nContent-Length: 8\r\n\r\n" + POISON),
    "end ended by LF": answer(TE, body=b"1\r\na\r\n0\r\n\n" + POISON),
}


@proxies
@pytest.mark.parametrize("version", ["1.1", "1.0"])
@pytest.mark.parametrize("name", BROKEN, ids=labels(BROKEN))
async def test_a_malformed_body_is_visibly_truncated(name: str, version: str, make: Make) -> None:
    raw = BROKEN[name]

    async def origin(stream: Stream) -> None:
        await stream.read()
        head, _, body = raw.partition(b"\r\n\r\n")
        await stream.write(head + b"\r\n\r\n" + body[: 1 if b"Length: 10" in head else 6])
        await asyncio.sleep(0.01)  # so that the beginning has been forwarded
        await stream.write(body[1 if b"Length: 10" in head else 6 :])

    said = FIRST.replace(b"HTTP/1.1", f"HTTP/{version}".encode())
    heard = await through(said, origin, make)
    assert statuses(heard) == [200] and heard.endswith(RESET)
    assert b"0\r\n\r\n" not in heard and b"smuggled" not in heard


# what passes, in one framing

PASSED: dict[str, tuple[bytes, bytes]] = {
    "a length": (answer("Content-Length: 1", body=b"a"), b"Content-Length: 1\r\nVia: 1.1 llama\r\n\r\na"),
    "chunks": (answer(TE, body=b"1;x=y\r\na\r\n00\r\n\r\n"), b"Via: 1.1 llama\r\nContent-Length: 1\r\n\r\na"),
    "Connection: Content-Length": (
        answer("Connection: Content-Length", "Content-Length: 1", body=b"a"),
        b"Content-Length: 1\r\nVia: 1.1 llama\r\n\r\na",
    ),
    "103 first": (
        answer("Link: </a>", status="103 Early Hints") + answer("Content-Length: 1", body=b"a"),
        b"Content-Length: 1\r\nVia: 1.1 llama\r\n\r\na",
    ),
    "100 first, unasked": (
        answer(status="100 Continue") + answer("Content-Length: 1", body=b"a"),
        b"Content-Length: 1\r\nVia: 1.1 llama\r\n\r\na",
    ),
    "304 with a length": (
        answer("Content-Length: 8", status="304 Not Modified"),
        b"Content-Length: 8\r\nVia: 1.1 llama\r\n\r\n",
    ),
    "equal lengths": (
        answer("Content-Length: 1", "X: a", "content-length: 1", body=b"a"),
        b"OK\r\nContent-Length: 1\r\nX: a\r\nVia: 1.1 llama\r\n\r\na",
    ),
    "a list of equal lengths": (
        answer("Content-Length: 1, 1,\t1", body=b"a"),
        b"OK\r\nContent-Length: 1\r\nVia: 1.1 llama\r\n\r\na",
    ),
    "status 600": (
        answer("Content-Length: 1", status="600 Odd", body=b"a"),
        b"HTTP/1.1 600 Odd\r\nContent-Length: 1\r\nVia: 1.1 llama\r\n\r\na",
    ),
    "status 999": (
        answer("Content-Length: 1", status="999 Denied", body=b"a"),
        b"HTTP/1.1 999 Denied\r\nContent-Length: 1\r\nVia: 1.1 llama\r\n\r\na",
    ),
    "103 with a length": (
        answer("Link: </a>", "Content-Length: 4", status="103 Early Hints") + answer(TE, body=ONE),
        (
            b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
            b"HTTP/1.1 200 OK\r\nVia: 1.1 llama\r\nContent-Length: 1\r\n\r\na"
        ),
    ),
    "103 in chunks": (
        answer(TE, status="103 Early Hints") + answer("Content-Length: 1", body=b"a"),
        b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\nVia: 1.1 llama\r\n\r\na",
    ),
    **{
        f"204 with {fields}": (
            answer(*fields, status="204 No Content"),
            b"HTTP/1.1 204 No Content\r\nVia: 1.1 llama\r\n\r\n",
        )
        for fields in (["Content-Length: 0"], ["Content-Length: 2"], [TE], [TE, "Content-Length: 2"])
    },
}


@proxies
@pytest.mark.parametrize("name", PASSED)
async def test_unambiguous_responses_pass(name: str, make: Make) -> None:
    raw, expected = PASSED[name]
    heard = await through(FIRST + LAST, first_of(raw), make)
    assert expected + b"HTTP/1.1 200 OK\r\n" in heard and heard.endswith(b"</last>")


NO_CONTENT = "204 No Content"
HINTS = "103 Early Hints"
END = answer("Content-Length: 1", body=b"a")


@pytest.mark.parametrize(
    ("raw", "connections"),
    [
        pytest.param(answer(status=NO_CONTENT), 1, id="204"),
        pytest.param(answer("Content-Length: 0", status=NO_CONTENT), 1, id="204, length 0"),
        pytest.param(answer("Content-Length: 2", status=NO_CONTENT), 2, id="204, length 2"),
        pytest.param(answer("Content-Length: x", status=NO_CONTENT), 2, id="204, length x"),
        pytest.param(answer(TE, status=NO_CONTENT), 2, id="204, chunked"),
        pytest.param(answer(status=HINTS) + END, 1, id="103"),
        pytest.param(answer("Content-Length: 2", status=HINTS) + END, 2, id="103, length 2"),
        pytest.param(answer(TE, status=HINTS) + END, 2, id="103, chunked"),
        pytest.param(answer("Connection: close", status=HINTS) + END, 2, id="103, close"),
        pytest.param(answer("Content-Length: 2", status="100 Continue") + END, 2, id="100, length 2"),
        pytest.param(answer("Content-Length: 1, 1", body=b"a"), 1, id="equal lengths"),
    ],
)
async def test_a_connection_that_announced_a_body_where_none_can_be_is_not_reused(
    raw: bytes, connections: int
) -> None:
    upstream = Upstream(first_of(raw))
    async with client(upstream) as fetcher:
        await (await fetcher(Request("GET", "http://a/first"))).body.read()
        response = await fetcher(Request("GET", "http://a/last"))
        assert await response.body.read() == b"</last>"
    assert upstream.opened == connections


async def test_a_tunnel_begins_after_the_head_regardless_of_framing_fields() -> None:
    async def proxy_of(stream: Stream) -> None:
        await stream.read()
        await stream.write(answer("Content-Length: 1", TE) + b"tunnelled")
        await stream.aclose()

    connect = http_connect("proxy:80", connect=Upstream(proxy_of))
    stream = await connect(Target("a.example", 443))
    assert await stream.read() == b"tunnelled"
    await stream.aclose()


async def test_a_connection_is_not_reused_after_a_close_delimited_body() -> None:
    async def origin(stream: Stream) -> None:
        found = take_request(await stream.read())
        assert found is not None
        if found[0].target == "/first":
            await stream.write(
                answer("Connection: keep-alive", "Keep-Alive: timeout=5", body=b"until the end")
            )
        else:
            await stream.write(ok(found[0]))

    heard = await through(FIRST + LAST, origin)
    assert b"\r\n\r\nd\r\nuntil the end\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n" in heard and heard.endswith(
        b"</last>"
    )


async def test_a_response_before_the_end_of_the_request_closes_the_connection() -> None:
    async def origin(stream: Stream) -> None:
        await stream.read()
        seen.append(stream)
        await stream.write(answer("Content-Length: 0"))
        while await stream.read():
            pass

    seen: list[Stream] = []
    said = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 70000\r\n\r\nabc"
    heard = await through(said, origin)
    assert statuses(heard) == [200] and b"\r\nConnection: close\r\n" in heard


# what layers may set: nothing that they are given ends a line

SPLIT = ["a\r\nSet-Cookie: b", "a\nb", "a\rb", "a\x00b", "a\x0bb", "\u010d\u010a", "a\x7fb"]


@pytest.mark.parametrize("value", SPLIT)
def test_a_field_value_cannot_contain_line_breaks(value: str) -> None:
    headers = Headers({"X": "a"})
    for attempt in (
        lambda: headers.add("Y", value),
        lambda: headers.__setitem__("X", value),
        lambda: headers.insert(0, "Y", value),
        lambda: headers.setdefault("Y", value),
        lambda: headers.extend([("Y", value)]),
        lambda: headers.add(value, "Y"),
        lambda: Headers({"Y": value}),
        lambda: Response(200, {"Location": value}),
        lambda: Request("GET", "http://a/", {"X": value}),
    ):
        with pytest.raises(ValueError, match="header"):
            attempt()
    assert list(headers) == [("X", "a")]


@pytest.mark.parametrize("value", SPLIT)
@pytest.mark.parametrize("part", ["reason", "trailers", "upgrade"])
def test_other_parts_of_a_response_cannot_contain_line_breaks(part: str, value: str) -> None:
    async def app(request: Request) -> Response:
        response = Response(200, body=[b"a"])
        if part == "reason":
            response.reason = value
        elif part == "trailers":
            response.trailers = Headers({"X": value})
        else:
            response.headers["Upgrade"] = value
        return response

    heard = talk(server()(app), get("/", "Connection: close"))
    assert statuses(heard) == [500] and b"Set-Cookie" not in heard


@pytest.mark.parametrize("value", SPLIT)
@pytest.mark.parametrize("part", ["method", "path", "protocol", "authority"])
async def test_the_parts_of_a_request_cannot_contain_line_breaks(part: str, value: str) -> None:
    @layer
    async def change(request: Request, inner: RequestHandler) -> Response:
        setattr(request, part, value)
        return await inner(request)

    backend = Backend()
    said = get("/", "Connection: close")
    heard = await through(said, backend, lambda upstream: change(reverse(upstream)))
    assert statuses(heard) == [500]
    assert backend.seen == [] and set(backend.rests) <= {b""}
