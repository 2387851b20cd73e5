"""Whatever passes, its recording is a HAR 1.2 document: by its schema, and by what the schema leaves to its text."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from llama import TruncatedError, http, mitm, stack, testing, tls, ws
from llama.http import Request, Response
from llama.mitm._har.file import HarFile
from tests.mitm.worlds import HOST, World, fronted

jsonschema = pytest.importorskip("jsonschema")
referencing = pytest.importorskip("referencing")
SCHEMA = Path(__file__).with_name("har_schema")
DRAFT = "http://json-schema.org/draft-06/schema#"
URL = f"https://{HOST}"


def validator() -> Any:
    """Checks a document; what the schema asks for by format is asked for too."""
    loaded = {path.name: json.loads(path.read_text()) for path in SCHEMA.glob("*.json")}
    resources = [
        (f"{name}{end}", referencing.Resource.from_contents(each, default_specification=_draft()))
        for name, each in loaded.items()
        for end in ("", "#")
    ]
    registry = referencing.Registry().with_resources(resources)
    formats = jsonschema.FormatChecker()
    formats.checks("date-time", raises=ValueError)(_is_time)
    return jsonschema.Draft6Validator(loaded["har.json"], registry=registry, format_checker=formats)


def _draft() -> Any:
    return referencing.jsonschema.specification_with(DRAFT)


def _is_time(value: object) -> bool:
    return value is None or datetime.fromisoformat(str(value)).tzinfo is not None


VALIDATOR = validator()


def checked(path: Path) -> list[dict[str, Any]]:
    """The entries of a file that is what it should be."""
    document = json.loads(path.read_text())
    errors = [
        f"{'/'.join(map(str, each.absolute_path))}: {each.message}"
        for each in VALIDATOR.iter_errors(document)
    ]
    assert not errors, "\n".join(errors)
    entries: list[dict[str, Any]] = document["log"]["entries"]
    for entry in entries:
        check_text_of_the_standard(entry)
    return entries


def check_text_of_the_standard(entry: dict[str, Any]) -> None:
    timings = entry["timings"]
    for name, value in timings.items():
        assert value >= 0 or (value == -1 and name not in ("send", "wait", "receive")), f"{name}: {value}"
    took = sum(value for name, value in timings.items() if value >= 0 and name != "ssl")
    assert entry["time"] == pytest.approx(took, abs=0.01)
    assert timings["ssl"] <= max(timings["connect"], -1)
    content = entry["response"]["content"]
    if "text" in content and "encoding" not in content and "comment" not in content:
        assert content["size"] == len(content["text"].encode())
    for pair in entry["request"].get("postData", {}).get("params", []):
        assert set(pair) == {"name", "value"}


async def echo(socket: ws.WebSocket) -> None:
    async for message in socket:
        await socket.send(message)


speak = stack(ws.server(), echo)
COOKIES = [
    ("Set-Cookie", "a=b; Path=/; Domain=site.example; HttpOnly; Secure; SameSite=Lax"),
    ("Set-Cookie", "c=d; Expires=Wed, 21 Oct 2037 07:28:00 GMT"),
    ("Set-Cookie", "e=f; Max-Age=60; Expires=Wed, 21 Oct 2015 07:28:00 GMT"),
    ("Set-Cookie", "g=h; Expires=never; Max-Age=99999999999999999999"),
    ("Set-Cookie", "odd"),
    ("Set-Cookie", ""),
]


async def site(request: Request) -> Response:
    match request.path:
        case "/ws":
            return await speak(request)
        case "/binary":
            return Response(200, {"Content-Type": "image/png"}, bytes(range(256)))
        case "/huge":
            return Response(200, {"Content-Type": "application/octet-stream"}, [b"x" * 5000] * 5)
        case "/gzip":
            headers = {"Content-Type": "text/html", "Content-Encoding": "gzip"}
            return Response(200, headers, gzip.compress(b"<p>" * 1000))
        case "/zzz":
            return Response(200, {"Content-Encoding": "zzz"}, b"zzz")
        case "/latin":
            return Response(
                200, {"Content-Type": "text/plain; charset=iso-8859-1"}, "Grüße".encode("latin-1")
            )
        case "/moved":
            return Response(302, {"Location": "/"})
        case "/nothing":
            return Response(204)
        case "/echo":
            return Response(200, {"Content-Type": "text/plain"}, await request.body.read())
        case "/breaks":
            return Response(200, {"Content-Type": "text/plain"}, breaking())
        case _:
            return Response(
                200, [("Content-Type", "text/plain"), *COOKIES], f"{request.method} {request.path}"
            )


async def breaking() -> AsyncIterator[bytes]:
    yield b"first"
    raise ConnectionResetError("the site broke")


FORM = {"Content-Type": "application/x-www-form-urlencoded"}
REQUESTS: list[Callable[[], Request]] = [
    lambda: Request("GET", f"{URL}/?x=1&y&z=%C3%BC", {"Cookie": "a=b; c; =d; e=f=g", "X-Odd": "\xff"}),
    lambda: Request("HEAD", f"{URL}/"),
    lambda: Request("OPTIONS", f"{URL}/"),
    lambda: Request("POST", f"{URL}/echo", FORM, b"name=john&empty=&u=%C3%BC"),
    lambda: Request("POST", f"{URL}/echo", {"Content-Type": "application/json"}, b'{"a": 1}'),
    lambda: Request("PUT", f"{URL}/echo", {}, bytes(range(256))),
    lambda: Request("PUT", f"{URL}/echo", {}, [b"piece"] * 3),
    lambda: Request("POST", f"{URL}/echo", FORM, b"name=" + b"x" * 10_000),
    *(
        lambda path=path: Request("GET", f"{URL}/{path}")
        for path in ("binary", "huge", "gzip", "zzz", "latin", "moved", "nothing")
    ),
]


@pytest.mark.parametrize("version", ["1.1", "2"])
async def test_every_kind_of_exchange_over_tls(world: World, tmp_path: Path, version: str) -> None:
    path = tmp_path / "out.har"
    alpn = ("h2", "http/1.1") if version == "2" else ("http/1.1",)
    upstream = stack(tls.server(*world.files(), alpn=alpn), http.server(), site)
    async with fronted(world, upstream, mitm.record(path, memory_limit=4096)) as front:
        for make in REQUESTS:
            response = await front.client(make())
            async for _ in response.body:
                pass
            await response.aclose()
    entries = checked(path)
    assert len(entries) == len(REQUESTS)
    assert {each["request"]["httpVersion"] for each in entries} == {
        "HTTP/2.0" if version == "2" else "HTTP/1.1"
    }
    first, form = entries[0], entries[3]
    assert [each.get("expires", "")[:4] for each in first["response"]["cookies"]][:2] == ["", "2037"]
    assert first["response"]["cookies"][0]["sameSite"] == "Lax"
    assert form["request"]["postData"]["params"][:2] == [
        {"name": "name", "value": "john"},
        {"name": "empty", "value": ""},
    ]
    assert first["serverIPAddress"] == "127.0.0.1" and first["timings"]["ssl"] > 0
    assert "_file" in entries[9]["response"]["content"]


async def test_plain_and_replayed_exchanges(world: World, tmp_path: Path) -> None:
    first, second = tmp_path / "first.har", tmp_path / "second.har"
    requests = [make() for make in REQUESTS]
    async with testing.client(stack(mitm.record(first, memory_limit=4096), site)) as client:
        for request in requests:
            response = await client.send(request)
            async for _ in response.body:
                pass
            await response.aclose()
    checked(first)
    exchange = stack(mitm.record(second), mitm.replay_server(first))
    async with testing.client(exchange) as client:
        for make in REQUESTS:
            request = make()
            await (await client.send(request)).aclose()
    assert checked(second)


async def test_failures_and_blocked_requests(world: World, tmp_path: Path) -> None:
    path = tmp_path / "out.har"

    async def refusing(request: Request) -> Response:
        raise ConnectionRefusedError(111, "Connection refused")

    async with testing.client(stack(mitm.record(path), refusing)) as client:
        with pytest.raises(ConnectionRefusedError):
            await client.get(f"{URL}/a")
    async with fronted(world, world.https(site), mitm.record(path), verify=True) as front:
        assert (await front.get())[0] == 502
    async with fronted(world, world.https(site), mitm.record(path), mitm.faults(errors=1)) as front:
        assert (await front.get())[0] == 503
    async with fronted(world, world.https(site), mitm.record(path)) as front:
        response = await front.client(Request("GET", f"{URL}/breaks"))
        with pytest.raises(TruncatedError):
            await response.body.read()
        await response.aclose()
        response = await front.client(Request("GET", f"{URL}/huge"))
        await response.aclose()
    entries = checked(path)
    broken = entries[-2]
    assert "broke the response off" in broken["_error"]
    assert broken["response"]["content"]["comment"] == "broken off"


async def test_websockets(world: World, tmp_path: Path) -> None:
    path = tmp_path / "out.har"
    async with fronted(world, world.https(site), mitm.record(path)) as front:
        async with ws.connect(f"wss://{HOST}/ws", client=front.client) as socket:
            for data in ("Grüße", b"\xff\x00", ""):
                await socket.send(data)
                assert await socket.receive() == data
        async with ws.connect(f"wss://{HOST}/ws", client=front.client):
            pass
    spoken, silent = checked(path)
    assert [each["data"] for each in spoken["_webSocketMessages"]] == [
        "Grüße",
        "Grüße",
        "/wA=",
        "/wA=",
        "",
        "",
    ]
    assert silent["_webSocketMessages"] == [] and silent["_webSocketClose"] == {"type": "send", "code": 1000}


async def test_many_at_once_over_one_connection(world: World, tmp_path: Path) -> None:
    path = tmp_path / "out.har"
    upstream = stack(tls.server(*world.files()), http.server(), site)
    async with fronted(world, upstream, mitm.record(path)) as front:

        async def get(number: int) -> None:
            await front.get(f"{URL}/{number}")

        async with asyncio.TaskGroup() as group:
            for number in range(20):
                group.create_task(get(number))
    entries = checked(path)
    opened = [each for each in entries if each["timings"]["connect"] >= 0]
    assert len(entries) == 20
    assert len(opened) == len({each["_connectionId"] for each in entries})


def test_a_file_without_an_entry(tmp_path: Path) -> None:
    HarFile(tmp_path / "out.har").create()
    assert checked(tmp_path / "out.har") == []
