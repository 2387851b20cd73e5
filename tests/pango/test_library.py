"""pango as a library."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

import pytest

import pango
from llama import ConfigError, Target, http, tls
from tests.pango.process import ROOT

Event = MutableMapping[str, Any]


class App:
    """An ASGI application that notes its lifespan and echoes a request's body."""

    def __init__(self) -> None:
        self.life: list[str] = []

    async def __call__(
        self,
        scope: Event,
        receive: Callable[[], Awaitable[Event]],
        send: Callable[[Event], Awaitable[None]],
    ) -> None:
        if scope["type"] == "lifespan":
            for stage in ("startup", "shutdown"):
                await receive()
                self.life.append(stage)
                await send({"type": f"lifespan.{stage}.complete"})
            return
        body = (await receive())["body"]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": scope["scheme"].encode() + b" " + body})


async def post(port: int, ca: Path | None) -> bytes:
    stream = await tls.connect(ca=ca)(Target("localhost", port))
    await stream.write(
        b"POST / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi"
    )
    said = b""
    while data := await stream.read():
        said += data
    await stream.aclose()
    return said


async def test_an_application_is_served_over_tls(files: Path) -> None:
    app = App()
    async with pango.serve(app, listen="127.0.0.1:0", cert="c.pem", key="k.pem") as server:
        assert app.life == ["startup"]
        said = await post(server.port, files / "ca.pem")
        assert said.startswith(b"HTTP/1.1 200 ")
        assert b"https hi" in said
    assert app.life == ["startup", "shutdown"]


async def test_targets_are_served_as_the_command_does(files: Path, echo: str) -> None:
    async with pango.serve(to=echo, listen=["127.0.0.1:0"], cert="c.pem", key="k.pem") as server:
        stream = await tls.connect(ca=files / "ca.pem")(Target("localhost", server.port))
        await stream.write(b"through")
        assert await stream.read() == b"through"
        await stream.aclose()


async def opens(*arguments: Any, **options: Any) -> None:
    async with pango.serve(*arguments, **options):
        pytest.fail("it was served")


async def test_everything_that_is_wrong_is_said_at_once(files: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        await opens(
            to=["app", "b:1"],
            listen=[":1", "x"],
            idle_timeout=0,
            max_connections=0,
            cert="c.pem",
            key="none.pem",
        )
    assert str(caught.value).splitlines() == [
        "listen: 'x' is no address to listen on: expected HOST:PORT, [IPV6]:PORT, :PORT, PORT, unix:PATH or fd:NUMBER",
        "to: 'app' is no target: expected HOST:PORT, tls://HOST:PORT, unix:PATH, http://HOST:PORT or https://HOST:PORT",
        "idle_timeout: 0 is no length of time: expected seconds above 0, or None",
        "max_connections: 0 is no count: expected a whole number from 1 up",
        "key: none.pem: no such file or directory",
    ]


async def test_without_a_certificate_it_says_so() -> None:
    with pytest.raises(ConfigError, match="cert: missing: expected a PEM file, or plain for no TLS"):
        await opens(App())


@pytest.mark.parametrize(
    ("arguments", "options", "words"),
    [
        ((), {}, "expected an ASGI application or to=, one of the two"),
        ((App(),), {"to": "a:1"}, "expected an ASGI application or to=, one of the two"),
        (("127.0.0.1:80",), {}, "a target is given as to='127.0.0.1:80'"),
        (
            (App(),),
            {"certificate": "c.pem"},
            "unknown keyword 'certificate': expected one of to, listen, cert",
        ),
    ],
)
async def test_wrong_calls_are_type_errors(
    arguments: tuple[object, ...], options: dict[str, object], words: str
) -> None:
    with pytest.raises(TypeError, match=words):
        await opens(*arguments, **options)


PROGRAM = """
import pango
from tests.pango.test_library import App
pango.run(App(), listen="127.0.0.1:0", cert="c.pem", key="k.pem", workers=WORKERS)
"""


@pytest.mark.parametrize("workers", [None, 2])
async def test_run_serves_until_a_signal(files: Path, workers: int | None) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        PROGRAM.replace("WORKERS", str(workers)),
        cwd=files,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"},
    )
    assert process.stderr is not None
    try:
        async with asyncio.timeout(30):
            line = b""
            while not (found := re.search(rb"listening on 127\.0\.0\.1:(\d+)", line)):
                line = await process.stderr.readline()
                assert line
            said = await post(int(found[1]), files / "ca.pem")
            assert b"https hi" in said
            process.send_signal(signal.SIGTERM)
            await process.stderr.read()
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def test_it_leaves_logging_alone() -> None:
    assert all(isinstance(each, logging.NullHandler) for each in logging.getLogger("pango").handlers)


async def tell_host(
    scope: Event, receive: Callable[[], Awaitable[Event]], send: Callable[[Event], Awaitable[None]]
) -> None:
    """An ASGI application that answers with the Host that it sees."""
    host = dict(scope["headers"])[b"host"]
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": host})


async def test_an_application_sees_the_host_that_a_trusted_proxy_tells() -> None:
    async with (
        pango.serve(
            tell_host,
            listen="127.0.0.1:0",
            plain=True,
            forwarded_from="127.0.0.1",
            forwarded_header="forwarded",
        ) as server,
        http.client() as client,
    ):
        fields = {"Forwarded": 'for=192.0.2.1;host="a.example:8"', "X-Forwarded-Host": "b.example"}
        response = await client(http.Request("GET", f"http://{server.address}/", fields))
        assert await response.body.read() == b"a.example:8"
