"""The same browsing through mitmproxy and through ours is recorded alike."""

import asyncio
import gzip
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from llama import Target, UnreachableError, http, mitm, serve, stack, tcp
from llama.http import Request, Response
from tests.mitm.worlds import World
from tests.tls.programs import needs, output_of, running

OF_A_CONNECTION = ("date", "transfer-encoding", "connection")
pytestmark = [pytest.mark.peer, needs("mitmdump", "curl")]


async def site(request: Request) -> Response:
    text = {"Content-Type": "text/html; charset=utf-8"}
    match request.path.partition("?")[0]:
        case "/":
            return Response(
                200, [*text.items(), ("Set-Cookie", "a=1; Path=/"), ("Set-Cookie", "b=2")], "<h1>Grüße</h1>"
            )
        case "/moved":
            return Response(302, {"Location": "/?moved=1"})
        case "/gzip":
            return Response(200, {**text, "Content-Encoding": "gzip"}, gzip.compress(b"<p>hello " * 500))
        case "/chunks":
            return Response(200, {"Content-Type": "application/octet-stream"}, [b"\x00\xff" * 500] * 5)
        case "/form":
            return Response(201, {"Content-Type": "application/json"}, await request.body.read())
        case "/nothing":
            return Response(204)
        case _:
            return Response(404, text, "not here")


def script(port: int, ca: Path, proxy: str) -> list[str]:
    """What is browsed: one curl, one request after another."""
    url = f"https://localhost:{port}"
    each = [
        "-sS",
        "--http1.1",
        "--cacert",
        str(ca),
        "--proxy",
        proxy,
        "--noproxy",
        "",
        "-o",
        "/dev/null",
        "-A",
        "test",
    ]
    steps = [
        ["-L", f"{url}/moved"],
        ["-b", "a=1; b=2", "--compressed", "-H", "Accept-Encoding: gzip", f"{url}/gzip?x=1&x=2&empty="],
        [f"{url}/chunks"],
        ["-d", "name=value&other=%C3%BC", f"{url}/form"],
        ["-X", "PUT", "-H", "Content-Type: application/octet-stream", "--data-binary", "a b", f"{url}/form"],
        ["-I", f"{url}/"],
        [f"{url}/nothing"],
        [f"{url}/missing"],
    ]
    command = ["curl"]
    for step in steps:
        command += [*(["--next"] if len(command) > 1 else []), *each, *step]
    return command


def gist(path: Path) -> list[dict[str, Any]]:
    """What both have to agree on: all that a HAR tells of messages, but for how it is written down."""
    found: list[dict[str, Any]] = []
    for entry in json.loads(path.read_text())["log"]["entries"]:
        request, response = entry["request"], entry["response"]
        found.append(
            {
                "method": request["method"],
                "url": request["url"],
                "version": request["httpVersion"],
                "sent": pairs(request["headers"]),
                "query": pairs(request["queryString"]),
                "cookies": pairs(request["cookies"]),
                "posted": request.get("postData", {}).get("text", ""),
                "status": response["status"],
                "reason": response["statusText"],
                "got": [each for each in pairs(response["headers"]) if each[0] not in OF_A_CONNECTION],
                "text": response["content"].get("text", ""),  # mitmproxy's size is that of the coded content
                "redirect": response["redirectURL"],
                "set": pairs(response["cookies"]),
            }
        )
    return found


def pairs(fields: list[dict[str, str]]) -> list[tuple[str, str]]:
    return [(each["name"].lower(), each["value"]) for each in fields]


@asynccontextmanager
async def mitmdump(world: World, har: Path) -> AsyncGenerator[tuple[str, Path]]:
    """mitmproxy, which records into a HAR when it ends; its URL and authority."""
    async with serve(_nobody, listen="127.0.0.1:0") as spare:
        port = spare.port
    folder = world.folder / "mitmproxy"
    options = {
        "confdir": str(folder),
        "hardump": str(har),
        "http2": "false",
        "ssl_verify_upstream_trusted_ca": str(world.site_pem),
    }
    settings = [part for name, value in options.items() for part in ("--set", f"{name}={value}")]
    command = ["mitmdump", "--listen-host", "127.0.0.1", "-p", str(port), *settings]
    async with running(*command) as program:
        await accepting(port)
        yield f"http://127.0.0.1:{port}", folder / "mitmproxy-ca-cert.pem"
        program._process.terminate()
        await program.end()


async def _nobody(stream: object) -> None:
    return None


async def accepting(port: int) -> None:
    """Return when something listens."""
    async with asyncio.timeout(30):
        while True:
            try:
                stream = await tcp.connect()(Target("127.0.0.1", port))
            except UnreachableError:
                await asyncio.sleep(0.05)  # another program's start tells nobody
                continue
            stream.abort()
            return


async def test_mitmproxy_and_llama_record_the_same_browsing(world: World, tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours.har", tmp_path / "theirs.har"
    upstream = world.https(site, "localhost")
    async with serve(upstream, listen="127.0.0.1:0") as served:
        proxy = mitm.proxy(world.ca, mitm.record(ours), verify=world.site_pem)
        async with serve(stack(http.server(), proxy), listen="127.0.0.1:0") as front:
            code, said = await output_of(*script(served.port, world.pem, f"http://{front.address}"))
            assert code == 0, said
        async with mitmdump(world, theirs) as (url, authority):
            code, said = await output_of(*script(served.port, authority, url))
            assert code == 0, said
    mine, other = gist(ours), gist(theirs)
    assert [each["url"] for each in mine] == [each["url"] for each in other]
    for one, two in zip(mine, other, strict=True):
        assert one == two
