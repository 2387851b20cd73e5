"""Other people's programs through the proxies: curl in front, nginx and a websocket server behind."""

import asyncio
import hashlib
import shutil
import subprocess
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection
from websockets.asyncio.server import serve as serve_websocket

from llama import http, serve, stack, tls
from llama.http import Request, Response
from tests.tls.sessions import ca_file, pair_files

pytestmark = pytest.mark.peer
needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
needs_nginx = pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed")
CURL = ("curl", "-sS", "--max-time", "20")
NGINX = """
daemon off; pid %(folder)s/pid; error_log %(folder)s/error.log; worker_processes 1;
events { worker_connections 64; }
http {
  access_log off; client_body_temp_path %(folder)s; client_max_body_size 100m;
  server { listen unix:%(folder)s/sock; root %(folder)s; location /told { return 200 "$host $http_x_forwarded_for"; } }
}
"""


async def curl(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    return await asyncio.to_thread(subprocess.run, [*CURL, *arguments], capture_output=True, timeout=30)


@contextmanager
def nginx() -> Generator[Path]:
    """nginx on the socket `sock` in a folder, which it serves."""
    with TemporaryDirectory(prefix="llama-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "conf").write_text(NGINX % {"folder": folder})
        process = subprocess.Popen(["nginx", "-c", str(folder / "conf")], stderr=subprocess.DEVNULL)
        try:
            yield folder
        finally:
            process.terminate()
            process.wait(10)


@asynccontextmanager
async def reverse(to: str) -> AsyncGenerator[str]:
    handler = stack(http.server(), http.reverse_proxy(to))
    async with serve(handler, listen="127.0.0.1:0") as serving:
        yield f"http://{serving.address}"


@needs_curl
@needs_nginx
async def test_curl_gets_files_ranges_and_headers_of_nginx() -> None:
    data = bytes(range(256)) * 40_000
    with nginx() as folder:
        (folder / "file").write_bytes(data)
        async with reverse(f"unix:{folder / 'sock'}") as url:
            retry = ("--retry", "20", "--retry-delay", "0", "--retry-all-errors", "--fail")
            assert (await curl(*retry, f"{url}/told")).stdout == b"127.0.0.1 127.0.0.1"
            assert (await curl(f"{url}/file")).stdout == data
            assert (await curl("-r", "100-199", f"{url}/file")).stdout == data[100:200]
            assert (await curl("--http1.0", f"{url}/file")).stdout == data
            head = (await curl("-I", f"{url}/file", f"{url}/file")).stdout
            assert head.count(b"Content-Length: %d\r\n" % len(data)) == 2
            assert (await curl("-o", "/dev/null", "-w", "%{http_code}", f"{url}/none")).stdout == b"404"


@needs_curl
@pytest.mark.parametrize(
    "how", [(), ("-H", "Transfer-Encoding: chunked"), ("-H", "Expect: 100-continue"), ("--http1.0",)]
)
async def test_curl_uploads_through_both_proxies(how: tuple[str, ...], tmp_path: Path) -> None:
    async def digest(request: Request) -> Response:
        total = hashlib.sha256()
        async for chunk in request.body:
            total.update(chunk)
        return Response(body=total.hexdigest())

    data = bytes(range(256)) * 20_000
    upload = tmp_path / "upload"
    upload.write_bytes(data)
    async with (
        serve(stack(http.server(), digest), listen="127.0.0.1:0") as origin,
        reverse(f"http://{origin.address}") as url,
        serve(stack(http.server(), http.proxy()), listen="127.0.0.1:0") as gate,
    ):
        for way in (("--noproxy", "*"), ("-x", gate.address), ("-p", "-x", gate.address)):
            done = await curl(*way, *how, "-T", str(upload), url)
            assert done.stdout.decode() == hashlib.sha256(data).hexdigest(), done.stderr


@needs_curl
async def test_curl_through_a_proxy_behind_tls_to_a_site_behind_tls() -> None:
    async def app(request: Request) -> Response:
        return Response(body=b"hello")

    keys = pair_files("localhost")
    site = stack(tls.server(*keys), http.server(), app)
    guarded = stack(tls.server(*keys), http.server(), http.proxy_auth({"john": "secret"}), http.proxy())
    async with serve(site, listen="127.0.0.1:0") as origin, serve(guarded, listen="127.0.0.1:0") as gate:
        trust = ("--cacert", ca_file(), "--proxy-cacert", ca_file())
        way = ("-x", f"https://localhost:{gate.port}", *trust)
        url = f"https://localhost:{origin.port}/"
        assert (await curl(*way, "-U", "john:secret", url)).stdout == b"hello"
        refused = await curl(*way, "-U", "john:guess", url)
        assert refused.stdout == b"" and b"407" in refused.stderr


async def test_websockets_pass_the_reverse_proxy_and_the_forward_proxy() -> None:
    async def echo(socket: ServerConnection) -> None:
        async for message in socket:
            await socket.send(message)

    messages: list[str | bytes] = ["hi", b"\x00" * 300_000, "x" * 100_000]
    async with serve_websocket(echo, "127.0.0.1", 0) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        async with (
            reverse(f"http://127.0.0.1:{port}") as url,
            serve(stack(http.server(), http.proxy()), listen="127.0.0.1:0") as gate,
        ):
            ws = url.replace("http", "ws")
            for proxy in (None, f"http://{gate.address}"):
                async with connect(ws, proxy=proxy) as socket:
                    for message in messages:
                        await socket.send(message)
                        assert await socket.recv() == message
