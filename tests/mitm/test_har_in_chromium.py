"""Chromium's own importer reads what is recorded: the module of its developer tools, run by itself."""

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect

from llama import TruncatedError, http, mitm, stack, tls, ws
from llama.http import Request
from tests.http.browser import QUIET
from tests.mitm.test_har_schema import REQUESTS, URL, site
from tests.mitm.worlds import HOST, World, fronted
from tests.tls.programs import needs

pytestmark = [pytest.mark.peer, needs("chromium")]
TOOLS = "devtools://devtools/bundled/devtools_app.html"
PATIENCE = 60
IMPORT = """(async () => {
  const har = await import("./models/har/har.js");
  const log = new har.HARFormat.HARRoot(JSON.parse(%s)).log;
  const requests = har.Importer.Importer.requestsFromHARLog(log);
  return Promise.all(requests.map(async each => {
    const content = await each.requestContentData();
    return {
      method: each.requestMethod, url: each.url(), status: each.statusCode, protocol: each.protocol,
      kind: each.resourceType().name(), remote: each.remoteAddress(), connection: each.connectionId,
      timing: each.timing, size: each.resourceSize, posted: await each.requestFormData(),
      form: (await each.formParameters() ?? []).map(pair => [pair.name, pair.value]),
      cookies: each.responseCookies.map(cookie => cookie.name()),
      frames: each.frames().map(frame => [frame.type, frame.opCode, frame.text]),
      content: content.error ?? (content.isTextContent ? content.text : content.base64),
    };
  }));
})()"""


@asynccontextmanager
async def tools(profile: Path) -> AsyncGenerator[ClientConnection]:
    """What drives a Chromium without a window."""
    options = ("--remote-allow-origins=*", f"--user-data-dir={profile}", "about:blank")
    process = await asyncio.create_subprocess_exec(
        "chromium",
        *QUIET,
        *options,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stderr is not None
    try:
        async with asyncio.timeout(PATIENCE):
            while b"DevTools listening on" not in (line := await process.stderr.readline()):
                assert line, "Chromium has left"
        async with connect(line.split()[-1].decode(), max_size=None, proxy=None) as socket:
            yield socket
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.communicate()


class Session:
    """A page of it."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.number = 0
        self.id: str | None = None

    async def call(self, method: str, **parameters: object) -> dict[str, Any]:
        self.number += 1
        asked: dict[str, object] = {"id": self.number, "method": method, "params": parameters}
        await self.socket.send(json.dumps(asked | ({"sessionId": self.id} if self.id else {})))
        async with asyncio.timeout(PATIENCE):
            while (said := json.loads(await self.socket.recv())).get("id") != self.number:
                pass
        result: dict[str, Any] = said["result"]
        assert "exceptionDetails" not in result, result
        return result

    async def evaluate(self, expression: str) -> Any:
        said = await self.call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        return said["result"].get("value")


async def imported(har: Path, profile: Path) -> list[dict[str, Any]]:
    """The requests that the developer tools make of a file."""
    async with tools(profile) as socket:
        session = Session(socket)
        target = (await session.call("Target.createTarget", url=TOOLS))["targetId"]
        session.id = (await session.call("Target.attachToTarget", targetId=target, flatten=True))["sessionId"]
        ready = (
            "new Promise(done => document.readyState == 'complete' ? done() : addEventListener('load', done))"
        )
        await session.evaluate(f"{ready}.then(() => true)")
        found: list[dict[str, Any]] = await session.evaluate(IMPORT % json.dumps(har.read_text()))
        return found


async def test_chromium_imports_a_recorded_file(world: World, tmp_path: Path) -> None:
    path = tmp_path / "out.har"
    upstream = stack(tls.server(*world.files()), http.server(), site)
    async with fronted(world, upstream, mitm.record(path, memory_limit=4096)) as front:
        for make in REQUESTS:
            response = await front.client(make())
            async for _ in response.body:
                pass
            await response.aclose()
        async with ws.connect(f"wss://{HOST}/ws", client=front.client) as socket:
            for data in ("Grüße", b"\xff\x00"):
                await socket.send(data)
                assert await socket.receive() == data
        response = await front.client(Request("GET", f"{URL}/breaks"))
        with pytest.raises(TruncatedError):
            await response.body.read()
        await response.aclose()
    found = await imported(path, tmp_path / "profile")
    assert [each["method"] for each in found[: len(REQUESTS)]] == [make().method for make in REQUESTS]
    first, form, spoken = found[0], found[3], found[len(REQUESTS)]
    assert (first["url"], first["status"], first["protocol"]) == (f"{URL}/?x=1&y&z=%C3%BC", 200, "h2")
    assert first["remote"].startswith("127.0.0.1:") and first["connection"] == found[1]["connection"] != ""
    assert first["timing"]["sslEnd"] > first["timing"]["sslStart"] >= 0 > found[1]["timing"]["connectStart"]
    assert first["content"] == "GET /?x=1&y&z=%C3%BC" and first["cookies"][:2] == ["a", "c"]
    assert form["form"] == [["name", "john"], ["empty", ""], ["u", "%C3%BC"]]  # as it was sent
    assert (spoken["kind"], spoken["status"]) == ("websocket", 101)
    assert spoken["frames"] == [
        ["send", 1, "Grüße"],
        ["receive", 1, "Grüße"],
        ["send", 2, "/wA="],
        ["receive", 2, "/wA="],
    ]
    assert found[-1]["url"] == f"{URL}/breaks"
