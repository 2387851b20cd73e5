"""Other people's clients through the proxy that looks inside: curl, a browser, clients in Python."""

import asyncio
import ssl
from base64 import b64encode
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from llama import http, layer, mitm, serve, socks5, stack, tls
from llama.http import Request, RequestHandler, Response
from tests.mitm.worlds import HOST, To, World
from tests.tls.programs import needs, output_of

pytestmark = pytest.mark.peer
CURL = ("curl", "-sS", "--noproxy", "")
QUIET = (
    "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-extensions --disable-dev-shm-usage "
    "--virtual-time-budget=20000 --proxy-bypass-list=<-loopback>"
)
PAGE = """<!doctype html><title>page</title><p id="sum">not loaded</p><script>
Promise.all([...Array(8).keys()].map(n => fetch(`/part${n}`).then(part => part.text())))
  .then(parts => { document.querySelector("#sum").textContent = "loaded " + parts.join("").length + " cloud" })
</script>"""


@layer
async def rewrite(request: Request, inner: RequestHandler) -> Response:
    response = await inner(request)
    response.body = response.body.replace(b"cloud", b"llama")
    return response


async def site(request: Request) -> Response:
    if request.path.startswith("/part"):
        return Response(200, {"Content-Type": "text/plain"}, [b"x" * 1000] * 100)
    if request.path == "/echo":
        return Response(200, body=request.body)
    return Response(200, {"Content-Type": "text/html"}, PAGE)


@asynccontextmanager
async def doors(
    world: World, *layers: object, upstream: RequestHandler = site, **options: object
) -> AsyncGenerator[tuple[str, str], None]:
    """The URLs of an HTTP and a SOCKS5 proxy that look inside."""
    options.setdefault("verify", world.site_pem)
    async with serve(world.https(upstream), listen="127.0.0.1:0") as served:
        to = To(served.port)
        proxy = mitm.proxy(world.ca, *layers, connect=to, **options)  # type: ignore[arg-type]
        relay = mitm.relay(world.ca, *layers, **options)  # type: ignore[arg-type]
        async with (
            serve(stack(http.server(), proxy), listen="127.0.0.1:0") as plain,
            serve(socks5.server(connect=to, relay=relay), listen="127.0.0.1:0") as socks,
        ):
            yield f"http://{plain.address}", f"socks5h://{socks.address}"


@needs("curl")
async def test_curl_behind_both_front_doors(world: World) -> None:
    async with doors(world, rewrite) as proxies:
        for proxy in proxies:
            code, said = await output_of(
                *CURL, "--cacert", str(world.pem), "--proxy", proxy, f"https://{HOST}/", f"https://{HOST}/x"
            )
            assert code == 0, said
            assert said.count('+ " llama"') + said.count(" llama") >= 2 and "cloud" not in said


@needs("curl")
async def test_curl_uploads(world: World, tmp_path: Path) -> None:
    (tmp_path / "upload").write_bytes(b"a cloud " * 100_000)
    async with doors(world, rewrite) as proxies:
        for proxy in proxies:
            code, said = await output_of(
                *CURL, "--cacert", str(world.pem), "--proxy", proxy, "--data-binary",
                f"@{tmp_path / 'upload'}", "-o", str(tmp_path / "got"), f"https://{HOST}/echo",
            )  # fmt: skip
            assert code == 0, said
            assert (tmp_path / "got").read_bytes() == b"a llama " * 100_000


@needs("curl")
async def test_a_rule_passes_curl_with_a_pinned_key_through(world: World) -> None:
    pinning = mitm.Pinning(2)
    async with doors(world, rewrite, pinning=pinning) as (proxy, _):
        command = (*CURL, "--cacert", str(world.site_pem), "--proxy", proxy, f"https://{HOST}/x")
        assert [(await output_of(*command))[0] for _ in range(3)] == [60, 60, 0]
        assert [entry.learned for entry in pinning.entries()] == [True]


@needs("curl")
async def test_curl_that_trusts_the_ca_and_pins_a_key_is_passed_through(world: World) -> None:
    """It looks at the key once hands are shaken."""
    pinning = mitm.Pinning(2, early_close_window=60)
    async with doors(world, rewrite, pinning=pinning) as proxies:
        trusted = world.folder / "both.pem"
        trusted.write_bytes(world.pem.read_bytes() + world.site_pem.read_bytes())
        pin = spki(world.folder / "site" / "cert.pem")
        for proxy in proxies:
            command = (
                *CURL,
                "--cacert",
                str(trusted),
                "--pinnedpubkey",
                pin,
                "--proxy",
                proxy,
                f"https://{HOST}/x",
            )
            told = [await output_of(*command) for _ in range(3)]
            assert [code for code, _ in told] == [90, 90, 0], told
            pinning.clear()


@needs("wget")
@pytest.mark.parametrize("trusts", [True, False])
async def test_wget_that_checks_the_certificate_after_the_handshake(world: World, trusts: bool) -> None:
    """As GnuTLS does it: without an alert that says what is wrong."""
    pinning = mitm.Pinning(2, early_close_window=60)
    async with doors(world, rewrite, pinning=pinning) as (proxy, _):
        trusted = world.pem if trusts else world.site_pem
        command = (
            *("wget", "-qO-", "--no-hsts", "--tries=1", f"--ca-certificate={trusted}", "-e", "use_proxy=yes"),
            *("-e", f"https_proxy={proxy}", f"https://{HOST}/x"),
        )
        codes = [(await output_of(*command))[0] for _ in range(3)]
        assert codes == ([0, 0, 0] if trusts else [5, 5, 0])


def spki(cert: Path) -> str:
    """What curl calls the key of a certificate."""
    key = x509.load_pem_x509_certificate(cert.read_bytes()).public_key()
    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return f"sha256//{b64encode(sha256(der).digest()).decode()}"


@needs("curl")
async def test_curl_gets_the_certificate_from_the_magic_host(world: World, tmp_path: Path) -> None:
    async with doors(world) as (proxy, _):
        code, said = await output_of(*CURL, "--proxy", proxy, "http://llama.internal/ca.pem")
        assert (code, said) == (0, world.ca.pem.decode())


@needs("chromium", "certutil")
async def test_chromium_with_the_authority_in_its_store(world: World, tmp_path: Path) -> None:
    home = tmp_path / "home"
    store = home / ".pki" / "nssdb"
    store.mkdir(parents=True)
    for command in (
        ("certutil", "-d", f"sql:{store}", "-N", "--empty-password"),
        ("certutil", "-d", f"sql:{store}", "-A", "-t", "C,,", "-n", "llama", "-i", str(world.pem)),
    ):
        assert (await output_of(*command))[0] == 0
    hellos: list[tls.ClientHello] = []

    @layer
    async def note(request: Request, inner: RequestHandler) -> Response:
        if (
            hello := request.extensions.get(tls.ClientHello)
        ) is not None:  # it asks for some things without TLS
            hellos.append(hello)
        return await inner(request)

    async with doors(world, note, rewrite) as (proxy, socks):
        for door in (proxy, socks.replace("socks5h", "socks5")):
            code, said = await output_of(
                "env", f"HOME={home}", f"XDG_CONFIG_HOME={home}/config", "chromium", *QUIET.split(),
                f"--user-data-dir={tmp_path / 'profile'}", f"--proxy-server={door}", "--dump-dom",
                f"https://{HOST}/",
            )  # fmt: skip
            assert "loaded 800000 llama" in said, (code, said)
    assert hellos and all(
        hello.grease and hello.ech for hello in hellos
    )  # it makes believe that it hides the name


async def test_aiohttp(world: World) -> None:
    aiohttp = pytest.importorskip("aiohttp")
    context = ssl.create_default_context(cafile=world.pem)
    async with doors(world, rewrite) as (proxy, _), aiohttp.ClientSession() as session:
        for _ in range(2):
            async with session.get(f"https://{HOST}/", proxy=proxy, ssl=context) as answer:
                assert answer.status == 200 and "llama" in await answer.text()


async def test_httpx2(world: World) -> None:
    httpx = pytest.importorskip("httpx2")
    context = ssl.create_default_context(cafile=world.pem)
    async with doors(world, rewrite) as (proxy, _), httpx.AsyncClient(proxy=proxy, verify=context) as client:
        answers = await asyncio.gather(*(client.get(f"https://{HOST}/part1") for _ in range(10)))
        assert {(each.status_code, len(each.content)) for each in answers} == {(200, 100_000)}
