"""Node and Chromium, which bring WebSocket clients of their own."""

import asyncio
import shutil
import subprocess
from pathlib import Path

import pytest

from llama import http, stack, ws
from llama.http import Request, Response
from llama.ws import Message
from tests.ws.talking import echo, serving

pytestmark = pytest.mark.peer

FLAG = "--experimental-websocket"
NODE = """
const socket = new WebSocket(process.argv[1], ['chat']);
socket.binaryType = 'arraybuffer';
const heard = [];
const said = ['hello', new Uint8Array([1, 2, 3]), 'ä'.repeat(100000)];
socket.onopen = () => said.forEach((each) => socket.send(each));
socket.onmessage = ({data}) => {
  heard.push(typeof data === 'string' ? data.length : [...new Uint8Array(data)].join());
  if (heard.length === 3) socket.close(4001, 'bye');
};
socket.onclose = ({code, wasClean}) =>
  console.log(JSON.stringify([socket.protocol, heard, code, wasClean]));
socket.onerror = () => console.log('error');
"""
PAGE = """<!doctype html><p id="heard">nothing</p><script>
const socket = new WebSocket(`ws://${location.host}/`, ['chat']);
const heard = [];
socket.onopen = () => { socket.send('hello'); socket.send('x'.repeat(100000)); };
socket.onmessage = ({data}) => { heard.push(data.length); if (heard.length === 2) socket.close(4001, 'bye'); };
socket.onclose = ({code, wasClean}) => {
  const all = [socket.protocol, socket.extensions.split(';')[0], ...heard, code, wasClean];
  document.querySelector('#heard').textContent = all.join(' ');
  fetch('/done');
};
</script><img src="/wait">"""
QUIET = (
    "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-sync "
    "--disable-component-update --disable-extensions --disable-dev-shm-usage --no-proxy-server --timeout=20000"
)


def exchange(kind: str, address: str) -> http.RequestHandler:
    proxy = http.reverse_proxy(f"http://{address}")

    def same(message: Message) -> Message:
        return message

    return stack(ws.inspect(same), proxy) if kind == "inspected" else proxy


async def run(*command: str) -> str:
    """What a program prints."""
    process = await asyncio.create_subprocess_exec(*command, stdout=-1, stderr=subprocess.DEVNULL)
    async with asyncio.timeout(60):
        out, _ = await process.communicate()
    return out.decode()


def has_websocket() -> bool:
    """Node has one of its own since version 22, and behind a flag before."""
    node = shutil.which("node")
    if node is None:
        return False
    found = subprocess.run(
        [node, FLAG, "-p", "typeof WebSocket"], capture_output=True, check=False, timeout=30
    )
    return found.stdout.strip() == b"function"


@pytest.mark.skipif(not has_websocket(), reason="needs a node that has WebSocket")
@pytest.mark.parametrize("kind", ["passed on", "inspected"])
async def test_node(kind: str) -> None:
    async with (
        serving(stack(ws.server(subprotocols=["chat"]), echo)) as address,
        serving(exchange(kind, address)) as front,
    ):
        said = await run("node", FLAG, "-e", NODE, f"ws://{front}/")
    assert said == '["chat",[5,"1,2,3",100000],4001,true]\n'


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium")
@pytest.mark.parametrize("kind", ["passed on", "inspected"])
async def test_chromium(kind: str, tmp_path: Path) -> None:
    inner = stack(ws.server(subprotocols=["chat"]), echo)

    done = asyncio.Event()

    async def site(request: Request) -> Response:
        if request.upgrade_protocol:
            return await inner(request)
        if request.path == "/done":
            done.set()
        elif request.path == "/wait":  # the page counts as loaded after this
            await done.wait()
        return Response(200, {"Content-Type": "text/html"}, PAGE)

    async with serving(site) as address, serving(exchange(kind, address)) as front:
        page = await run(
            "chromium", *QUIET.split(), f"--user-data-dir={tmp_path}", "--dump-dom", f"http://{front}/"
        )
    assert "chat permessage-deflate 5 100000 4001 true" in page
