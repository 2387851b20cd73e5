"""What is around a proxy that looks inside, in these tests: an upstream, its authority, and clients."""

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from llama import ConnectionHandler, Stream, Target, http, mitm, serve, stack, tcp, tls
from llama.http import Request, RequestHandler, Response
from llama.tls import CertificateAuthority
from llama.tls._certificates.x509 import encode_key

HOST = "site.example"


def self_signed(
    folder: Path, name: str, *, since: timedelta = timedelta(-1), until: timedelta = timedelta(1)
) -> tuple[Path, Path]:
    """A certificate that no authority stands for, valid between two times from now: its files."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + since)
        .not_valid_after(now + until)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cert.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
    (folder / "key.pem").write_bytes(encode_key(key))
    return folder / "cert.pem", folder / "key.pem"


@dataclass
class To:
    """A connector that reaches one port of this machine, whatever the target."""

    port: int
    targets: list[Target] = field(default_factory=list[Target])

    async def __call__(self, target: Target, /) -> Stream:
        self.targets.append(target)
        return await tcp.connect()(Target("127.0.0.1", self.port))


async def page(request: Request) -> Response:
    """A page that says what was asked for."""
    return Response(200, {"Content-Type": "text/plain"}, f"{request.method} {request.path} from the cloud")


@dataclass
class World:
    """Authorities and their files: the site's, and the proxy's own."""

    folder: Path
    site_ca: CertificateAuthority
    ca: CertificateAuthority

    @classmethod
    def make(cls, folder: Path) -> "World":
        world = cls(
            folder, CertificateAuthority.create(name="site"), CertificateAuthority.create(name="ours")
        )
        world.site_ca.write_pem(world.site_pem)
        world.ca.write_pem(world.pem)
        return world

    @property
    def site_pem(self) -> Path:
        """The site's authority, for the proxy."""
        return self.folder / "site-ca.pem"

    @property
    def pem(self) -> Path:
        """The proxy's authority, for clients."""
        return self.folder / "ca.pem"

    def files(self, *names: str) -> tuple[Path, Path]:
        """A certificate of the site's authority."""
        return self.site_ca.issue(*(names or (HOST,))).write(self.folder / "site")

    def https(self, exchange: RequestHandler = page, *names: str) -> ConnectionHandler:
        """A site."""
        return stack(tls.server(*self.files(*names)), http.server(), exchange)


@dataclass
class Front:
    """A front door that is open, and what it reached."""

    port: int
    to: To
    client: http.RequestHandler

    async def get(self, url: str = f"https://{HOST}/a", **headers: str) -> tuple[int, str]:
        """Status and text of an answer."""
        response = await self.client(Request("GET", url, headers))
        try:
            return response.status, (await response.body.read()).decode()
        finally:
            await response.aclose()

    async def whole(self, url: str) -> tuple[int, str]:
        """Status and text of an answer to a request with a whole URL."""
        host = url.split("/")[2]
        stream = await tcp.connect()(Target("127.0.0.1", self.port))
        try:
            await stream.write(f"GET {url} HTTP/1.0\r\nHost: {host}\r\n\r\n".encode())
            got = b""
            while data := await stream.read():
                got += data
        finally:
            stream.abort()
        head, _, body = got.partition(b"\r\n\r\n")
        return int(head.split()[1]), body.decode()


@asynccontextmanager
async def fronted(
    world: World, upstream: ConnectionHandler, *layers: object, **options: object
) -> AsyncGenerator[Front, None]:
    """An HTTP proxy that looks inside, before an upstream, with a client that trusts its authority."""
    async with AsyncExitStack() as exits:
        served = await exits.enter_async_context(serve(upstream, listen="127.0.0.1:0"))
        to = To(served.port)
        options.setdefault("verify", world.site_pem)
        proxy = mitm.proxy(world.ca, *layers, connect=to, **options)  # type: ignore[arg-type]
        front = await exits.enter_async_context(serve(stack(http.server(), proxy), listen="127.0.0.1:0"))
        over = http.connect(f"127.0.0.1:{front.port}")
        client = http.client(over, tls=tls.connect(over, ca=world.pem))
        await exits.enter_async_context(client)
        yield Front(front.port, to, client)
