"""Upstreams that are not to be trusted, and clients that pin: what curl gets through `llama mitm`."""

import asyncio
from base64 import b64encode
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from llama import http, serve, stack, tls
from llama.http import Request, Response
from tests.cli.conftest import Start
from tests.http.peers import Done, Roads, program
from tests.mitm.worlds import self_signed
from tests.tls.forged import copied
from tests.tls.programs import needs

pytestmark = [pytest.mark.peer, needs("curl"), pytest.mark.llama_timeout(120)]
DOORS = pytest.mark.parametrize("mode", ["http", "socks5"])
WORDS = {
    "expired.example": "certificate has expired",
    "self.example": "self-signed certificate",
    "misnamed.example": "not valid for 'misnamed.example'",
    "revoked.example": "revoked by a rule",
}


def certificates(folder: Path) -> dict[str, tuple[Path, Path]]:
    """The files of each host; `site-ca.pem` is to be trusted."""
    authority = tls.CertificateAuthority.create(name="site")
    authority.write_pem(folder / "site-ca.pem")
    found = {
        "expired.example": authority.issue("expired.example").write(folder / "expired"),
        "self.example": self_signed(folder / "self", "self.example"),
        "misnamed.example": authority.issue("other.example").write(folder / "misnamed"),
        "revoked.example": authority.issue("revoked.example").write(folder / "revoked_fingerprints"),
        "good.example": authority.issue("good.example").write(folder / "good"),
    }
    cert, _ = found["expired.example"]
    now = datetime.now(UTC)
    dates = (now - timedelta(30), now - timedelta(1))
    old = copied(x509.load_pem_x509_certificate(cert.read_bytes()), authority, dates=dates)
    cert.write_bytes(old.public_bytes(Encoding.PEM))
    return found


async def page(request: Request) -> Response:
    return Response(200, {"Content-Type": "text/plain"}, f"{request.authority} itself")


class Front:
    """`llama mitm` before these hosts, and curl."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.url = url

    async def curl(self, host: str, *options: str | Path) -> Done:
        way = ("-qsS", "--max-time", "30", "--noproxy", "", "-x", self.url)
        return await program("curl", *way, *options, "-w", " %{http_code}", f"https://{host}/")

    async def trusting(self, host: str, *options: str) -> str:
        done = await self.curl(host, "--cacert", self.folder / "ca" / "ca.pem", *options)
        assert done.code == 0, done.err
        return done.out.decode()


@asynccontextmanager
async def front(start: Start, folder: Path, mode: str, *options: str) -> AsyncGenerator[Front]:
    async with AsyncExitStack() as exits:
        ways: dict[str, str] = {}
        for host, files in certificates(folder).items():
            site = stack(tls.server(*files), http.server(), page)
            ways[f"{host}:443"] = (await exits.enter_async_context(serve(site, listen="127.0.0.1:0"))).address
        proxy = stack(http.server(), http.proxy(connect=Roads(ways)))
        via = await exits.enter_async_context(serve(proxy, listen="127.0.0.1:0"))
        leaf = x509.load_pem_x509_certificate((folder / "revoked_fingerprints" / "cert.pem").read_bytes())
        server = await asyncio.to_thread(
            start,
            *("mitm", "--mode", mode, "--ca", str(folder / "ca"), "--via", f"http://{via.address}"),
            *("--upstream-ca", str(folder / "site-ca.pem")),
            *("--revoke", sha256(leaf.public_bytes(Encoding.DER)).hexdigest(), *options),
        )
        scheme = {"http": "http", "socks5": "socks5h"}[mode]
        yield Front(folder, f"{scheme}://{server.address}")
        await asyncio.to_thread(server.stop)


@DOORS
@pytest.mark.parametrize("options", [(), ("--lazy-upstream",)], ids=["first", "late"])
async def test_a_page_says_why(start: Start, tmp_path: Path, mode: str, options: tuple[str, ...]) -> None:
    async with front(start, tmp_path, mode, *options) as proxy:
        assert await proxy.trusting("good.example") == "good.example itself 200"
        for version in ("--http1.1", "--http2"):
            for host, words in WORDS.items():
                text = await proxy.trusting(host, version)
                assert text.endswith(" 502") and words in text and host in text, text
            text = await proxy.trusting("nowhere.example", version)
            assert text.endswith(" 502") and "nowhere.example" in text, text


@DOORS
async def test_clients_are_passed_through_when_told(start: Start, tmp_path: Path, mode: str) -> None:
    async with front(start, tmp_path, mode, "--pass-untrusted") as proxy:
        assert await proxy.trusting("good.example") == "good.example itself 200"
        for host in WORDS:
            done = await proxy.curl(host, "--insecure")
            assert done.out.decode() == f"{host} itself 200"
        codes = [
            (await proxy.curl(host, "--cacert", tmp_path / "site-ca.pem")).code
            for host in ("expired.example", "self.example", "misnamed.example", "revoked.example")
        ]
        assert codes == [60, 60, 60, 0]  # who looks for itself sees the site's own


@DOORS
async def test_clients_that_pin_are_passed_through_after_the_rule_says_so(
    start: Start, tmp_path: Path, mode: str
) -> None:
    async with front(start, tmp_path, mode, "--pin-after", "2") as proxy:
        own = ("--cacert", tmp_path / "site-ca.pem")
        assert [(await proxy.curl("good.example", *own)).code for _ in range(3)] == [60, 60, 0]
    both = tmp_path / "both.pem"
    async with front(start, tmp_path, mode, "--pin-after", "2") as proxy:
        both.write_bytes(b"".join((tmp_path / each).read_bytes() for each in ("site-ca.pem", "ca/ca.pem")))
        key = x509.load_pem_x509_certificate((tmp_path / "good" / "cert.pem").read_bytes()).public_key()
        der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        pin = f"sha256//{b64encode(sha256(der).digest()).decode()}"
        told = [
            (await proxy.curl("good.example", "--cacert", both, "--pinnedpubkey", pin)).code for _ in range(3)
        ]
        assert told == [90, 90, 0]  # after the handshake


@DOORS
async def test_clients_that_pin_are_refused_when_told(start: Start, tmp_path: Path, mode: str) -> None:
    async with front(start, tmp_path, mode, "--pin-after", "1", "--pinned-action", "block") as proxy:
        for code in (60, 35, 35):
            assert (await proxy.curl("good.example", "--cacert", tmp_path / "site-ca.pem")).code == code
