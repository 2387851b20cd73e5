"""Recording: what is in a HAR file, and what comes of it when it is replayed."""

import asyncio
import gzip
import json
import logging
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from llama import ConfigError, LlamaError, RefusedError, mitm, stack, testing
from llama.http import Request, RequestHandler, Response
from llama.mitm import Recorded
from tests.mitm.worlds import HOST, World, fronted
from tests.tls.programs import needs, output_of


async def site(request: Request) -> Response:
    if request.path == "/fail":
        raise LlamaError("the upstream failed")
    if request.path.startswith("/big"):
        return Response(200, {"Content-Type": "application/octet-stream"}, [b"x" * 1000] * 10)
    if request.path == "/gzip":
        headers = {"Content-Type": "text/html", "Content-Encoding": "gzip"}
        return Response(200, headers, gzip.compress(b"<p>hello " * 1000))
    if request.path == "/broken":
        return Response(200, {"Content-Encoding": "gzip"}, b"no gzip at all")
    if request.path == "/unknown":
        return Response(200, {"Content-Encoding": "zzz"}, b"zzz")
    if request.path == "/echo":
        return Response(200, {"Content-Type": "text/plain"}, await request.body.read())
    cookies = [("Content-Type", "text/plain"), ("Set-Cookie", "a=b; Path=/; HttpOnly"), ("Set-Cookie", "c=d")]
    return Response(200, cookies, f"hello {request.query}")


async def recorded(to: object, *requests: Request, **options: Any) -> None:
    layer = mitm.record(to, **options)  # type: ignore[arg-type]
    async with testing.client(stack(layer, site)) as client:
        for request in requests:
            try:
                response = await client.send(request)
            except LlamaError:
                continue
            async for _ in response.body:
                pass
            await response.aclose()


def entries(path: Path) -> list[dict[str, Any]]:
    log = json.loads(path.read_text())["log"]
    assert log["version"] == "1.2" and log["creator"]["name"] == "llama" and log["creator"]["version"]
    found: list[dict[str, Any]] = log["entries"]
    return found


URL = "https://a.example"


async def test_an_exchange_becomes_an_entry(tmp_path: Path) -> None:
    path = tmp_path / "out.har"
    await recorded(path, Request("GET", f"{URL}/a?x=1&y=%20", {"Cookie": "s=1; t=2"}))
    (entry,) = entries(path)
    request, response = entry["request"], entry["response"]
    assert datetime.fromisoformat(entry["startedDateTime"]).tzinfo is not None
    assert entry["time"] == pytest.approx(entry["timings"]["wait"] + entry["timings"]["receive"], abs=0.01)
    assert (request["method"], request["url"], request["httpVersion"]) == (
        "GET",
        f"{URL}/a?x=1&y=%20",
        "HTTP/1.1",
    )
    assert request["queryString"] == [{"name": "x", "value": "1"}, {"name": "y", "value": " "}]
    assert request["cookies"] == [{"name": "s", "value": "1"}, {"name": "t", "value": "2"}]
    assert "postData" not in request
    assert (response["status"], response["statusText"]) == (200, "OK")
    assert response["cookies"] == [
        {"name": "a", "value": "b", "path": "/", "httpOnly": True},
        {"name": "c", "value": "d"},
    ]
    text = "hello x=1&y=%20"
    assert response["content"] == {
        "size": len(text),
        "compression": 0,
        "mimeType": "text/plain",
        "text": text,
    }
    assert {"name": "Set-Cookie", "value": "c=d"} in response["headers"]


async def test_the_file_is_valid_after_each_entry(tmp_path: Path) -> None:
    path = tmp_path / "out.har"
    async with testing.client(stack(mitm.record(path), site)) as client:
        for count in range(1, 4):
            response = await client.get(f"{URL}/{count}")
            await response.aclose()
            assert len(entries(path)) == count


async def test_content_codings_are_decoded(tmp_path: Path) -> None:
    path = tmp_path / "out.har"
    await recorded(path, *(Request("GET", f"{URL}/{each}") for each in ("gzip", "broken", "unknown")))
    known, broken, unknown = (each["response"] for each in entries(path))
    assert known["content"]["text"] == "<p>hello " * 1000
    assert known["content"]["size"] == 9000 and known["content"]["compression"] == 9000 - known["bodySize"]
    for each, data in ((broken, "bm8gZ3ppcCBhdCBhbGw="), (unknown, "enp6")):
        assert (each["content"]["text"], each["content"]["encoding"]) == (data, "base64")
        assert each["content"]["_encoded"] is True


async def test_large_bodies_are_written_to_files_as_they_pass(tmp_path: Path) -> None:
    path = tmp_path / "out.har"
    await recorded(path, Request("GET", f"{URL}/big"), memory_limit=4096)
    content = entries(path)[0]["response"]["content"]
    assert content["size"] == 10_000 and "text" not in content
    assert (tmp_path / content["_file"]).read_bytes() == b"x" * 10_000


async def test_recorded_bodies_are_truncated_at_the_limit(tmp_path: Path) -> None:
    found: list[Recorded] = []
    await recorded(found.append, Request("GET", f"{URL}/big"), Request("GET", f"{URL}/a"), max_body=3)
    assert [(each.response_body.data, each.response_body.size) for each in found] == [
        (b"xxx", 10_000),
        (b"hel", 6),
    ]


async def test_recording_to_a_function_leaves_no_files(tmp_path: Path) -> None:
    found: list[Recorded] = []
    await recorded(found.append, Request("GET", f"{URL}/big"), memory_limit=10)
    file = found[0].response_body.file
    assert file is not None and not file.exists()


async def test_bodies_of_requests_are_recorded(tmp_path: Path) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"a=1&"
        yield b"b=2"

    path = tmp_path / "out.har"
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    await recorded(
        path,
        Request("POST", f"{URL}/echo", form, b"a=1"),
        Request("POST", f"{URL}/echo", form, pieces()),
        Request("POST", f"{URL}/echo", {}, b"\xff\x00"),
    )
    posted = [each["request"]["postData"] for each in entries(path)]
    assert [each["text"] for each in posted] == ["a=1", "a=1&b=2", "/wA="]
    assert posted[2]["encoding"] == "base64"


async def test_a_failed_exchange_has_the_status_of_its_error_page(tmp_path: Path) -> None:
    path = tmp_path / "out.har"
    await recorded(path, Request("GET", f"{URL}/fail"))
    (entry,) = entries(path)
    assert (entry["response"]["status"], entry["_error"]) == (500, "the upstream failed")


async def test_a_body_that_was_not_read_to_its_end_is_marked(tmp_path: Path) -> None:
    path = tmp_path / "out.har"
    async with testing.client(stack(mitm.record(path), site)) as client:
        response = await client.get(f"{URL}/big")
        assert await response.body.read_chunk() == b"x" * 1000
        await response.aclose()
    content = entries(path)[0]["response"]["content"]
    assert content["size"] == 1000 and content["comment"] == "broken off"


async def test_a_failing_sink_does_not_affect_exchanges(caplog: pytest.LogCaptureFixture) -> None:
    def sink(recorded: Recorded) -> None:
        raise OSError("the disk is full")

    async with testing.client(stack(mitm.record(sink), site)) as client:
        assert (await client.get(f"{URL}/a")).status == 200
    assert "the disk is full" in caplog.text


async def test_recording_behind_interception_names_the_target(world: World) -> None:
    found: list[Recorded] = []
    async with fronted(world, world.https(site), mitm.record(found.append)) as front:
        assert await front.get() == (200, "hello ")
    assert (found[0].server, found[0].url) == (f"{HOST}:443", f"https://{HOST}/a")
    assert found[0].client.startswith("127.0.0.1:")


# replay


async def test_a_server_replay_returns_the_recorded_responses(tmp_path: Path) -> None:
    path = tmp_path / "out.har"
    asked = [
        Request("GET", f"{URL}/gzip"),
        Request("GET", f"{URL}/big"),
        Request("GET", f"{URL}/unknown"),
        Request("POST", f"{URL}/echo", {}, b"one"),
        Request("POST", f"{URL}/echo", {}, b"two"),
    ]
    await recorded(path, *asked, memory_limit=4096)
    async with testing.client(mitm.replay_server(path)) as client:
        answers = [
            await client.get(f"{URL}:443/gzip"),
            await client.get(f"{URL}/big"),
            await client.get(f"{URL}/unknown"),
            await client.post(f"{URL}/echo", b"two"),
            await client.post(f"{URL}/echo", b"one"),
        ]
        bodies = [await each.body.read() for each in answers]
        bodies[0] = gzip.decompress(bodies[0])
        assert bodies == [b"<p>hello " * 1000, b"x" * 10_000, b"zzz", b"two", b"one"]
        assert answers[0].headers["content-encoding"] == "gzip"
        assert answers[2].headers["content-encoding"] == "zzz"
        for wrong in (("GET", f"{URL}/other", b""), ("POST", f"{URL}/echo", b"three")):
            with pytest.raises(RefusedError, match="nothing was recorded for") as refused:
                await client.request(wrong[0], wrong[1], (), wrong[2])
            assert refused.value.status == 502


async def test_responses_replay_in_order_and_the_last_repeats(tmp_path: Path) -> None:
    found: list[Recorded] = []
    count = 0

    async def counting(request: Request) -> Response:
        nonlocal count
        count += 1
        return Response(200, body=str(count))

    async with testing.client(stack(mitm.record(found.append), counting)) as client:
        for _ in range(2):
            await (await client.get(f"{URL}/")).aclose()
    async with testing.client(mitm.replay_server(found)) as client:
        got = [await (await client.get(f"{URL}/")).body.read() for _ in range(3)]
    assert got == [b"1", b"2", b"2"]


async def test_a_replay_layer_forwards_unknown_requests(tmp_path: Path) -> None:
    found: list[Recorded] = []
    await recorded(found.append, Request("GET", f"{URL}/a"))

    async def upstream(request: Request) -> Response:
        return Response(200, body=b"fresh")

    async with testing.client(stack(mitm.replay_layer(found), upstream)) as client:
        assert await (await client.get(f"{URL}/a")).body.read() == b"hello "
        assert await (await client.get(f"{URL}/b")).body.read() == b"fresh"
    async with testing.client(stack(mitm.replay_layer(found, strict=True), upstream)) as client:
        with pytest.raises(RefusedError):
            await client.get(f"{URL}/b")


async def test_replay_behind_interception_needs_no_upstream(world: World) -> None:
    found: list[Recorded] = []
    async with fronted(world, world.https(site), mitm.record(found.append)) as front:
        await front.get()
    async with fronted(
        world, world.https(site), mitm.replay_layer(found, strict=True), connect_upstream_first=False
    ) as front:
        assert await front.get() == (200, "hello ")
        assert (await front.get("https://site.example/b"))[0] == 502
        assert front.to.targets == []


async def test_a_client_replay_resends_the_requests(tmp_path: Path) -> None:
    path = tmp_path / "out.har"
    await recorded(path, Request("POST", f"{URL}/echo", {"X-A": "1"}, b"one"), Request("GET", f"{URL}/fail"))
    seen: list[tuple[str, str | None, bytes]] = []

    async def upstream(request: Request) -> Response:
        seen.append((request.url, request.headers.get("x-a"), await request.body.read()))
        return await site(request)

    went = [each async for each in mitm.replay_client(path, upstream)]
    assert seen == [(f"{URL}/echo", "1", b"one"), (f"{URL}/fail", None, b"")]
    assert [(each.status, each.error) for each in went] == [(200, ""), (0, "the upstream failed")]
    assert went[0].before.status == 200


def test_an_invalid_har_file_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "x.har"
    for text in ("", "[]", '{"log": {}}', '{"log": {"entries": [{}]}}', '{"log": {"entries": 3}}'):
        path.write_text(text)
        with pytest.raises(ConfigError, match="is no HAR file"):
            mitm.replay_server(path)
    with pytest.raises(ConfigError, match="No such file"):
        mitm.replay_server(tmp_path / "none.har")
    with pytest.raises(ConfigError):
        mitm.record(path, memory_limit=-1)


@needs("mitmdump")
@pytest.mark.peer
async def test_mitmproxy_reads_the_file(tmp_path: Path) -> None:
    path = tmp_path / "out.har"
    await recorded(
        path,
        Request("GET", f"{URL}/gzip"),
        Request("POST", f"{URL}/echo", {}, b"one"),
        Request("GET", f"{URL}/a"),
    )
    code, said = await output_of("mitmdump", "-n", "-r", str(path), "--set", f"confdir={tmp_path}")
    assert code == 0 and said.count("<< 200 OK") == 3, said


def test_many_exchanges_at_once_are_all_written(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    path = tmp_path / "out.har"

    async def main() -> None:
        exchange: RequestHandler = stack(mitm.record(path), site)
        async with testing.client(exchange) as client, asyncio.TaskGroup() as group:
            for number in range(50):
                group.create_task(client.get(f"{URL}/{number}"))

    asyncio.run(main())
    assert {each["request"]["url"] for each in entries(path)} == {f"{URL}/{number}" for number in range(50)}
