"""Other people's clients browse through `llama mitm`, behind an HTTP and a SOCKS5 front door."""

import asyncio
import contextlib
import importlib.util
import io
import json
import os
import ssl
import sys
import zipfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from websockets.asyncio.client import connect

from llama.http import Request, Response
from tests.cli.conftest import Start
from tests.cli.mitm.cloud import PARTS, SITE, TARBALL, WHEEL, Looked, Repository, looked_into
from tests.http.browser import chromium
from tests.http.peers import Done, digested, program
from tests.tls.programs import needs

pytestmark = [pytest.mark.peer, pytest.mark.llama_timeout(180)]
DOORS = pytest.mark.parametrize("mode", ["http", "socks5"])
DATA = os.urandom(3_000_000)


async def well(name: str | Path, *arguments: str | Path, **options: object) -> bytes:
    """What a program prints, which has to end well."""
    done: Done = await program(name, *arguments, **options)  # type: ignore[arg-type]
    assert done.code == 0, (done.out + done.err).decode(errors="replace")
    return done.out


# curl


@needs("curl")
@DOORS
@pytest.mark.parametrize("version", ["1.1", "2"])
async def test_curl(start: Start, tmp_path: Path, mode: str, version: str) -> None:
    (tmp_path / "data").write_bytes(DATA)
    async with looked_into(start, tmp_path, mode) as looked:
        way = (
            *("-qsS", "--max-time", "60", "--noproxy", "", "--cacert", tmp_path / "ca" / "ca.pem"),
            *("-x", looked.url, f"--http{version}"),
        )
        told = await well("curl", *way, "-w", "%{http_version}", f"https://{SITE}/text")
        assert told == f"{version} from the llama{version} from the llama{version}".encode()
        assert await well("curl", *way, f"http://{SITE}/text") == b"1.1 from the llama" * 2
        told = await well("curl", *way, "--data-binary", f"@{tmp_path / 'data'}", f"https://{SITE}/x")
        assert told.split()[2] == digested("POST", None, DATA).split()[2]
        pages = [f"https://{SITE}/part?{number}" for number in range(30)]
        assert len(await well("curl", *way, "-Z", "--parallel-max", "10", *pages)) == 30 * 100_000
        assert {path for seen, path in looked.cloud.seen if seen == version} >= {"/text", "/x", "/part"}
        looked.server.expect(rf" GET https://{SITE}/text 200 ")


MB = 1 << 20
WARM = 2048  # pieces until the windows of HTTP/2 are as large as they get


async def memory_of(looked: Looked, pieces: int, *way: str | Path) -> int:
    """How much the proxy grew while so much went down and up through it, after it had grown to its size."""
    data = way[-1]
    sizes: list[int] = []
    base = 0
    for count in (min(pieces, WARM), pieces):
        base = max(sizes, default=0)
        command = ("curl", "-qsS", "--noproxy", "", *map(str, way[:-1]))
        down = await asyncio.create_subprocess_exec(
            *command, "-o", "/dev/null", f"https://{SITE}/large?{count}"
        )
        up = await asyncio.create_subprocess_exec(
            *command, "-T", str(data), "-o", "/dev/null", f"https://{SITE}/x"
        )
        async with asyncio.TaskGroup() as group:
            ends = [group.create_task(down.wait()), group.create_task(up.wait())]
            while not all(end.done() for end in ends):
                sizes.append(looked.server.memory)
                await asyncio.wait(ends, timeout=0.05)
        assert [end.result() for end in ends] == [0, 0]
    return max(sizes) - base


LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
VERSIONS = pytest.mark.parametrize("version", ["1.1", "2"])


async def stays_flat(start: Start, folder: Path, mode: str, version: str, amount: int) -> None:
    with (folder / "data").open("wb") as file:
        file.truncate(amount)
    async with looked_into(start, folder, mode) as looked:
        way = ("--cacert", folder / "ca" / "ca.pem", "-x", looked.url, f"--http{version}", folder / "data")
        grown = await memory_of(looked, amount >> 16, *way)
        assert grown < 16 * MB, f"{grown / MB:.1f} MB more"


@needs("curl")
@LINUX
@DOORS
@VERSIONS
async def test_the_command_streams_at_flat_memory(
    start: Start, tmp_path: Path, mode: str, version: str
) -> None:
    await stays_flat(start, tmp_path, mode, version, 64 * MB)


@pytest.mark.soak
@pytest.mark.llama_timeout(900)
@needs("curl")
@LINUX
@VERSIONS
async def test_the_command_streams_two_gigabytes_at_flat_memory(
    start: Start, tmp_path: Path, version: str
) -> None:
    await stays_flat(start, tmp_path, "http", version, 2048 * MB)


# a browser


@asynccontextmanager
async def browser(folder: Path, proxy: str, url: str) -> AsyncGenerator[None]:
    """Chromium at a page, with the proxy's authority in the store of its user."""
    home = folder / "home"
    store = home / ".pki" / "nssdb"
    if not store.exists():
        store.mkdir(parents=True)
        trust = ("-A", "-t", "C,,", "-n", "llama", "-i", folder / "ca" / "ca.pem")
        for command in (("-N", "--empty-password"), trust):
            await well("certutil", "-d", f"sql:{store}", *command)
    variables = {"HOME": str(home), "XDG_CONFIG_HOME": str(home / "config")}
    async with chromium(url, folder / "profile", f"--proxy-server={proxy}", variables=variables) as process:
        yield
        process.terminate()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), 10)


@needs("chromium", "certutil")
@DOORS
async def test_chromium_does_all_that_pages_do(start: Start, tmp_path: Path, mode: str) -> None:
    har = tmp_path / "out.har"
    async with looked_into(start, tmp_path, mode, "--har", str(har)) as looked:
        proxy = looked.url.replace("socks5h", "socks5")  # which resolves names too, for Chromium
        for scheme, protocol in (("https", "h2"), ("http", "http/1.1")):
            async with browser(tmp_path, proxy, f"{scheme}://{SITE}/"):
                assert await asyncio.wait_for(looked.cloud.told.get(), 60) == {
                    "page": "from the llama",
                    "parts": PARTS * 100_000,
                    "sent": digested("POST", 300_000, b"x" * 300_000).decode(),
                    "events": ["llama 0", "llama 1", "llama 2"],
                    "echo": "hi",
                    "protocol": protocol,
                }
        looked.server.expect(rf" GET https://{SITE}/part\?7 200 ")
    entries = json.loads(har.read_text())["log"]["entries"]
    sockets = [each for each in entries if each.get("_resourceType") == "websocket"]
    assert [
        [(said["type"], said["data"]) for said in each["_webSocketMessages"] if said["opcode"] == 1]
        for each in sockets
    ] == [[("send", "hi"), ("receive", "hi")]] * 2


@needs("chromium", "certutil")
async def test_what_chromium_opens_ahead_is_no_sign_of_pinning(start: Start, tmp_path: Path) -> None:
    """It shakes hands before it has anything to ask, and may leave at once."""
    async with looked_into(start, tmp_path, "http", "--pin-after", "1") as looked:
        looked.cloud.repository = ahead
        for _ in range(2):
            async with browser(tmp_path, looked.url, f"http://{SITE}/made.git/ahead"):
                await asyncio.wait_for(looked.cloud.told.get(), 60)
        assert f"{SITE}:443" in looked.roads.asked
        async with browser(tmp_path, looked.url, f"https://{SITE}/"):
            told = await asyncio.wait_for(looked.cloud.told.get(), 60)
        assert isinstance(told, dict) and told["page"] == "from the llama"


AHEAD = f"""<!doctype html><link rel=preconnect href="https://{SITE}/"><script>
setTimeout(() => fetch("/told", {{method: "POST", body: "0"}}), 3000)
</script>"""


async def ahead(request: Request) -> Response:
    """A page that asks for a connection, and for nothing over it."""
    return Response(200, {"Content-Type": "text/html"}, AHEAD)


# WebSockets


@DOORS
async def test_websockets_client(start: Start, tmp_path: Path, mode: str) -> None:
    if mode == "socks5":
        pytest.importorskip("python_socks")
    async with looked_into(start, tmp_path, mode) as looked:
        context = ssl.create_default_context(cafile=tmp_path / "ca" / "ca.pem")
        for url, trust in ((f"wss://{SITE}/echo", context), (f"ws://{SITE}/echo", None)):
            async with connect(url, proxy=looked.url, ssl=trust, max_size=None) as socket:
                for message in ("hi", b"\x00" * 1_000_000):
                    await socket.send(message)
                    assert await socket.recv() == message


# packages


@DOORS
async def test_pip(start: Start, tmp_path: Path, mode: str) -> None:
    if importlib.util.find_spec("pip") is None or (
        mode == "socks5" and importlib.util.find_spec("socks") is None
    ):
        pytest.skip("not installed: pip" if mode == "http" else "not installed: pip, PySocks")
    async with looked_into(start, tmp_path, mode) as looked:
        await well(
            *(sys.executable, "-m", "pip", "--isolated", "--no-cache-dir", "--disable-pip-version-check"),
            *("download", "--no-deps", "--dest", tmp_path / "got", "--proxy", looked.url),
            *("--index-url", f"https://{SITE}/simple", "--cert", tmp_path / "ca" / "ca.pem", "cloudy"),
            variables={"REQUESTS_CA_BUNDLE": tmp_path / "ca" / "ca.pem"},
        )
        looked.server.expect(rf" GET https://{SITE}/cloudy-1.0-py3-none-any.whl 200 ")
    got = tmp_path / "got" / "cloudy-1.0-py3-none-any.whl"
    assert got.read_bytes() == WHEEL and zipfile.is_zipfile(got)


@needs("npm")
@DOORS
async def test_npm(start: Start, tmp_path: Path, mode: str) -> None:
    folder = tmp_path / "npm"
    folder.mkdir()
    async with looked_into(start, tmp_path, mode) as looked:
        await well(
            *("npm", "install", "cloudy", f"--registry=https://{SITE}/", f"--https-proxy={looked.url}"),
            *(f"--proxy={looked.url}", f"--cafile={tmp_path / 'ca' / 'ca.pem'}", "--noproxy="),
            *(f"--cache={folder / 'cache'}", "--no-audit", "--no-fund", "--no-update-notifier"),
            folder=folder,
            variables={"HOME": folder},
        )
        looked.server.expect(rf" GET https://{SITE}/cloudy-1.0.0.tgz 200 {len(TARBALL)} B")
    made = json.loads((folder / "node_modules" / "cloudy" / "package.json").read_text())
    assert made == {"name": "cloudy", "version": "1.0.0"}


# git


async def repository(folder: Path) -> Path:
    """A repository with one commit of some size."""
    where, bare = folder / "made", folder / "made.git"
    where.mkdir()
    (where / "data").write_bytes(DATA)
    for command in (
        ("init", "-q", "-b", "main", where),
        ("-C", where, "add", "data"),
        ("-C", where, *WHO, "commit", "-q", "-m", "first"),
        ("clone", "-q", "--bare", where, bare),
    ):
        await well("git", *command)
    return bare


WHO = ("-c", "user.name=a", "-c", "user.email=a@b.example")


@needs("git")
@DOORS
async def test_git_clones_and_pushes(start: Start, tmp_path: Path, mode: str) -> None:
    bare, got = await repository(tmp_path), tmp_path / "got"
    async with looked_into(start, tmp_path, mode) as looked:
        looked.cloud.repository = Repository(bare)
        variables = {"GIT_TERMINAL_PROMPT": "0", "GIT_SSL_CAINFO": tmp_path / "ca" / "ca.pem"}
        way = ("-c", f"http.proxy={looked.url}", "-c", "http.postBuffer=100000")
        await well("git", *way, "clone", "-q", f"https://{SITE}/made.git", got, variables=variables)
        assert (got / "data").read_bytes() == DATA
        (got / "more").write_bytes(DATA[::-1])
        await well("git", "-C", got, "add", "more")
        await well("git", "-C", got, *WHO, "commit", "-q", "-m", "second")
        await well("git", "-C", got, *way, "push", "-q", variables=variables)
    assert await well("git", "-C", bare, "log", "--format=%s") == b"second\nfirst\n"
    versions = {version for version, path in looked.cloud.seen if path.startswith("/made.git/")}
    assert versions == {"2"}


# clients in Python

URLLIB = """
import sys, urllib.request
for scheme in ("https", "http"):
    with urllib.request.urlopen(f"{scheme}://site.example/text") as answer:
        print(answer.status, answer.read().decode())
"""


async def test_urllib(start: Start, tmp_path: Path) -> None:
    async with looked_into(start, tmp_path, "http") as looked:
        told = await well(
            *(sys.executable, "-c", URLLIB),
            variables={
                "https_proxy": looked.url,
                "http_proxy": looked.url,
                "SSL_CERT_FILE": tmp_path / "ca" / "ca.pem",
            },
        )
    assert told.decode().splitlines() == ["200 1.1 from the llama1.1 from the llama"] * 2


async def test_aiohttp(start: Start, tmp_path: Path) -> None:
    aiohttp = pytest.importorskip("aiohttp")
    async with looked_into(start, tmp_path, "http") as looked:
        context = ssl.create_default_context(cafile=tmp_path / "ca" / "ca.pem")
        async with aiohttp.ClientSession() as session:
            for scheme in ("https", "http"):
                url = f"{scheme}://{SITE}"
                async with session.get(f"{url}/text", proxy=looked.url, ssl=context) as answer:
                    assert await answer.read() == b"1.1 from the llama" * 2
                async with session.post(
                    f"{url}/x", data=io.BytesIO(DATA), proxy=looked.url, ssl=context
                ) as answer:
                    assert await answer.read() == digested("POST", len(DATA), DATA)
                async with session.ws_connect(f"{url}/echo", proxy=looked.url, ssl=context) as socket:
                    await socket.send_str("hi")
                    assert await socket.receive_str() == "hi"


@DOORS
@pytest.mark.parametrize("version", ["1.1", "2"])
async def test_httpx2(start: Start, tmp_path: Path, mode: str, version: str) -> None:
    httpx = pytest.importorskip("httpx2")
    for name in ("socksio", "h2"):
        pytest.importorskip(name)
    async with looked_into(start, tmp_path, mode) as looked:
        context = ssl.create_default_context(cafile=tmp_path / "ca" / "ca.pem")
        options = {"proxy": looked.url, "verify": context, "http2": version == "2", "timeout": 60}
        async with httpx.AsyncClient(**options) as client:
            answers = await asyncio.gather(*(client.get(f"https://{SITE}/text") for _ in range(20)))
            assert {(each.http_version, each.text) for each in answers} == {
                (f"HTTP/{version}", f"{version} from the llama" * 2)
            }
            answer = await client.post(f"https://{SITE}/x", content=DATA)
            assert answer.content.split()[2] == digested("POST", None, DATA).split()[2]


NIQUESTS = """
import sys, niquests
with niquests.Session() as session:
    session.proxies = {"https": sys.argv[1], "http": sys.argv[1]}
    for url in ("https://site.example/text", "http://site.example/text"):
        answer = session.get(url, verify=sys.argv[2])
        print(answer.http_version, answer.text)
"""


@DOORS
async def test_niquests(start: Start, tmp_path: Path, mode: str) -> None:
    for name in ("niquests", "python_socks"):
        pytest.importorskip(name)
    async with looked_into(start, tmp_path, mode) as looked:
        told = await well(sys.executable, "-c", NIQUESTS, looked.url, tmp_path / "ca" / "ca.pem")
    assert told.decode().splitlines() == [
        "20 2 from the llama2 from the llama",
        "11 1.1 from the llama1.1 from the llama",
    ]
