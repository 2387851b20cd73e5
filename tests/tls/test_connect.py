"""The TLS connector: what it trusts, what it asks for, and how it says that something is wrong."""

import asyncio
import os
import re
import ssl
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from llama import (
    ConfigError,
    ConnectionHandler,
    Connector,
    Stream,
    Target,
    TLSError,
    UnreachableError,
    serve,
    stack,
    tcp,
    testing,
    tls,
)
from llama.tls import CertificateAuthority, KeyPair, TLSInfo, TLSParams
from llama.tls._certificates.x509 import encode_key
from llama.tls._connect import MAX_CONTEXTS, TLSConnect
from llama.tls._nonblocking import open_session
from tests.tls.clients import dialled, echo, tell
from tests.tls.forged import copied
from tests.tls.sessions import Plain, authority, ca_file, in_memory, pair_files


@asynccontextmanager
async def listening(handler: ConnectionHandler, host: str = "127.0.0.1") -> AsyncGenerator[int]:
    """Serve on a free port."""
    async with serve(handler, listen=f"{host}:0", grace=5) as server:
        yield server.port


@asynccontextmanager
async def site(*names: str, **options: object) -> AsyncGenerator[int]:
    """A TLS server for names, which tells what it knows."""
    async with listening(tls.server(*pair_files(*names), **options)(tell)) as port:  # type: ignore[arg-type]
        yield port


async def told(connect: Connector, target: Target) -> str:
    """What `tell` says of a session."""
    stream = await connect(target)
    try:
        await stream.write(b"?")
        return (await stream.read()).decode()
    finally:
        await stream.aclose()


async def failure(connect: Connector, target: Target, kind: type[Exception] = TLSError) -> str:
    with pytest.raises(kind) as caught:
        await connect(target)
    return str(caught.value)


def at(host: str, port: int, wanted: TLSParams | None = None) -> Target:
    target = Target(host, port)
    if wanted is not None:
        target.extensions.set(wanted)
    return target


def to_loopback() -> Connector:
    """A connector that takes every name for 127.0.0.1."""

    async def connect(target: Target) -> Stream:
        return await tcp.connect()(Target("127.0.0.1", target.port))

    return connect


# whom it trusts


async def test_connects_to_a_verified_server() -> None:
    async with site("localhost") as port:
        stream = await tls.connect(ca=ca_file())(Target("localhost", port))
        info = stream.extensions[TLSInfo]
        assert (info.version, info.server_name, info.alpn, info.resumed) == (
            "TLSv1.3",
            "localhost",
            None,
            False,
        )
        assert info.cipher.startswith("TLS_")
        assert info.peer_certificate is not None
        assert ("DNS", "localhost") in info.peer_certificate["subjectAltName"]
        await stream.write(b"?")
        assert await stream.read() == b"TLSv1.3 nobody fresh None localhost"
        await stream.aclose()


async def test_an_unknown_authority_is_refused_with_an_alert(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with site("localhost") as port:
        said = await failure(tls.connect(), Target("localhost", port))
        assert said == (
            f"TLS handshake with localhost:{port} failed: "
            "the peer's certificate is not trusted: unable to get local issuer certificate"
        )
    assert "the peer sent the alert unknown_ca" in caplog.text


async def test_another_name_is_refused() -> None:
    async with site("other.example") as port:
        said = await failure(tls.connect(ca=ca_file()), Target("localhost", port))
        assert said == (
            f"TLS handshake with localhost:{port} failed: the peer's certificate is not trusted: "
            "Hostname mismatch, certificate is not valid for 'localhost'."
        )


async def test_an_expired_certificate_is_refused(tmp_path: Path) -> None:
    made = authority().issue("localhost")
    now = datetime.now(UTC)
    past = (now - timedelta(days=2), now - timedelta(days=1))
    expired = copied(x509.load_pem_x509_certificate(made.cert_pem), authority(), dates=past)
    files = KeyPair(expired.public_bytes(Encoding.PEM), made.key_pem).write(tmp_path)
    async with listening(tls.server(*files)(echo)) as port:
        said = await failure(tls.connect(ca=ca_file()), Target("localhost", port))
        assert said.endswith("the peer's certificate is not trusted: certificate has expired")


async def test_a_self_signed_certificate_is_refused(tmp_path: Path) -> None:
    own = CertificateAuthority.create(name="localhost")
    (tmp_path / "own.pem").write_bytes(own.pem + encode_key(own._key))
    async with listening(tls.server(tmp_path / "own.pem")(echo)) as port:
        said = await failure(tls.connect(ca=ca_file()), Target("localhost", port))
        assert said.endswith("the peer's certificate is not trusted: self-signed certificate")


async def test_insecure_disables_verification() -> None:
    async with site("other.example") as port:
        connect = tls.connect(insecure=True)
        assert repr(connect) == "tls.connect(insecure=True)"
        stream = await connect(Target("localhost", port))
        info = stream.extensions[TLSInfo]
        assert info.peer_certificate is None
        assert info.peer_certificate_der is not None
        await stream.aclose()


async def test_ca_may_be_a_directory(tmp_path: Path) -> None:
    hashed = subprocess.run(
        ["openssl", "x509", "-hash", "-noout", "-in", ca_file()], capture_output=True, text=True, check=True
    ).stdout.strip()
    (tmp_path / f"{hashed}.0").write_bytes(authority().pem)
    async with site("localhost") as port:
        assert "nobody" in await told(tls.connect(ca=tmp_path), Target("localhost", port))


PROGRAM = """
import asyncio, sys
from llama import Target, tls
async def main():
    stream = await tls.connect()(Target("localhost", int(sys.argv[1])))
    await stream.write(b"?")
    print((await stream.read()).decode())
    await stream.aclose()
asyncio.run(main())
"""


@pytest.mark.parametrize("given", [True, False])
async def test_the_environment_names_the_authorities(given: bool) -> None:
    environment = {
        **os.environ,
        "SSL_CERT_FILE": ca_file() if given else os.devnull,
        "SSL_CERT_DIR": "/nowhere",
    }
    async with site("localhost") as port:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-c", PROGRAM, str(port)),
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        output, errors = await process.communicate()
    assert (b"TLSv1.3 nobody" in output) == given
    assert (b"unable to get local issuer certificate" in errors) != given


# what it asks for


@pytest.mark.parametrize("ended", ["localhost.", "LocalHost"])
async def test_the_server_name_is_sent_normalized(ended: str) -> None:
    async with site("localhost") as port:
        connect = tls.connect(to_loopback(), ca=ca_file())
        assert (await told(connect, Target(ended, port))).endswith(" localhost")


async def test_a_name_may_be_internationalized() -> None:
    async with site("xn--bcher-kva.example") as port:
        connect = tls.connect(to_loopback(), ca=ca_file())
        assert (await told(connect, Target("bücher.example", port))).endswith(" xn--bcher-kva.example")


@pytest.mark.parametrize(("host", "listen"), [("127.0.0.1", "127.0.0.1"), ("::1", "[::1]")])
async def test_an_address_is_verified_and_not_sent_as_server_name(host: str, listen: str) -> None:
    server = tls.server(*pair_files(host))(tell)
    async with listening(server, listen) as port:
        assert (await told(tls.connect(ca=ca_file()), Target(host, port))).endswith(" None")
    async with site("localhost") as port:
        said = await failure(tls.connect(ca=ca_file()), Target("127.0.0.1", port))
        assert said.endswith("IP address mismatch, certificate is not valid for '127.0.0.1'.")


async def test_server_name_overrides_the_host_and_a_target_overrides_both() -> None:
    async with site("a.example", "b.example") as port:
        connect = tls.connect(ca=ca_file(), server_name="a.example")
        assert (await told(connect, Target("127.0.0.1", port))).endswith(" a.example")
        wanting = at("127.0.0.1", port, TLSParams(server_name="b.example"))
        assert (await told(connect, wanting)).endswith(" b.example")
        other = at("127.0.0.1", port, TLSParams(server_name="c.example"))
        assert "not valid for 'c.example'" in await failure(connect, other)


async def test_alpn_is_offered_and_a_target_overrides_it() -> None:
    async with site("localhost", alpn=["h2", "http/1.1", "own"]) as port:
        connect = tls.connect(ca=ca_file(), alpn=["http/1.1", "h2"])
        assert " h2 " in await told(connect, at("localhost", port))
        assert " own " in await told(connect, at("localhost", port, TLSParams(alpn=("own",))))
        assert " None " in await told(connect, at("localhost", port, TLSParams(alpn=())))
        said = await failure(connect, at("localhost", port, TLSParams(alpn=("smtp",))))
        assert said.endswith("the peer sent the alert no_application_protocol")


async def test_a_client_certificate_is_sent(tmp_path: Path) -> None:
    cert, key = pair_files("john", client=True)
    async with site("localhost", client_ca=ca_file(), minimum_version="TLSv1.3") as port:
        connect = tls.connect(ca=ca_file(), cert=cert, key=key)
        assert " john " in await told(connect, Target("localhost", port))
        stream = await tls.connect(ca=ca_file())(Target("localhost", port))
        with pytest.raises(TLSError, match="the peer sent the alert certificate_required"):
            await stream.read()
        await stream.aclose()
    async with site("localhost", client_ca=ca_file()) as port:
        combined = tmp_path / "john.pem"
        combined.write_bytes(Path(cert).read_bytes() + Path(key).read_bytes())
        assert " john " in await told(tls.connect(ca=ca_file(), cert=combined), Target("localhost", port))


async def test_no_common_version_is_reported() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*pair_files("localhost"))
    context.maximum_version = ssl.TLSVersion.TLSv1_2

    async def old_server(stream: Stream) -> None:
        session = open_session(stream, context, server_side=True)
        with pytest.raises(ssl.SSLError):
            await session.handshake()
        await session.send_alert()

    async with listening(old_server) as port:
        said = await failure(tls.connect(ca=ca_file(), minimum_version="TLSv1.3"), Target("localhost", port))
        assert said.endswith("failed: the peer sent the alert protocol_version")


# over other connectors


async def test_tls_in_tls_in_tls() -> None:
    chain = stack(
        tls.server(*pair_files("outer.example")),
        tls.server(*pair_files("middle.example")),
        tls.server(*pair_files("inner.example")),
        tell,
    )
    connect = to_loopback()
    for name in ("outer.example", "middle.example", "inner.example"):
        connect = tls.connect(connect, ca=ca_file(), server_name=name)
    async with listening(chain) as port:
        assert (
            await told(connect, Target("whoever.example", port)) == "TLSv1.3 nobody fresh None inner.example"
        )


async def test_over_a_stream_in_memory() -> None:
    async with dialled(tls.server(*pair_files("a.example"))(tell), in_memory) as (stream, _):

        async def over(target: Target) -> Stream:
            return stream

        assert (await told(tls.connect(over, ca=ca_file()), Target("a.example", 443))).endswith("a.example")


async def test_errors_of_the_connector_below_propagate() -> None:
    async def over(target: Target) -> Stream:
        raise UnreachableError(f"no way to {target}")

    assert (
        await failure(tls.connect(over), Target("a.example", 443), UnreachableError)
        == "no way to a.example:443"
    )


# peers that misbehave


async def test_a_silent_server_times_out() -> None:
    client, server = testing.memory_pair()

    async def over(target: Target) -> Stream:
        return client

    async with testing.clock(autojump=True):
        connect = tls.connect(over, handshake_timeout=2.5)
        said = await failure(connect, Target("a.example", 443), TimeoutError)
        assert said == "TLS handshake with a.example:443 timed out after 2.5 s"
        with pytest.raises(ConnectionResetError):
            while await server.read():
                pass


async def test_a_dead_connection_is_not_reported_as_a_handshake_timeout() -> None:
    class Dead(Plain):
        async def read(self, limit: int = 65536, /) -> bytes:
            raise TimeoutError(110, "Connection timed out")

    async def over(target: Target) -> Stream:
        return Dead(testing.memory_pair()[0])

    said = await failure(tls.connect(over), Target("a.example", 443))
    assert said == "TLS handshake with a.example:443 failed: [Errno 110] Connection timed out"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"", "the peer closed the connection during the handshake"),
        (
            b"HTTP/1.1 400 Bad Request\r\n\r\n",
            "the peer does not speak TLS, or none of the enabled versions",
        ),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "the peer does not speak TLS, or none of the enabled versions"),
        (b"\x15\x03\x03\x00\x02\x02\x70", "the peer sent the alert unrecognized_name"),
        (b"\x15\x03\x03\x00\x02\x02\x28", "the peer sent the alert handshake_failure"),
        (b"\x15\x03\x03\x00\x02\x02\x46", "the peer sent the alert protocol_version"),
        (b"\x15\x03\x03\x00\x02\x02\x74", "the peer sent the alert certificate_required"),
        (b"\x16\x03\x03\x00\x04\x02\x00\x00\x10", "the peer closed the connection during the handshake"),
    ],
)
async def test_a_server_that_does_not_answer_with_tls_is_reported(answer: bytes, reason: str) -> None:
    async def odd(stream: Stream) -> None:
        await stream.read()
        await stream.write(answer)

    async with listening(odd) as port:
        said = await failure(tls.connect(ca=ca_file()), Target("localhost", port))
        assert said == f"TLS handshake with localhost:{port} failed: {reason}"


async def test_a_reset_during_the_handshake_is_reported() -> None:
    async def rude(stream: Stream) -> None:
        await stream.read(1)
        stream.abort()

    async with listening(rude) as port:
        said = await failure(tls.connect(ca=ca_file()), Target("localhost", port))
        assert re.fullmatch(rf"TLS handshake with localhost:{port} failed: .*reset.*", said)


# settings


def test_invalid_settings_are_rejected_at_once(tmp_path: Path) -> None:
    cert, key = pair_files("john", client=True)
    _, other_key = pair_files("localhost")
    with pytest.raises(ConfigError, match=r"none\.pem: No such file"):
        tls.connect(ca=tmp_path / "none.pem")
    with pytest.raises(ConfigError, match="the key does not match the certificate in"):
        tls.connect(cert=cert, key=other_key)
    with pytest.raises(ConfigError, match="expected a private key in PEM"):
        tls.connect(cert=cert)
    with pytest.raises(ConfigError, match=r"minimum_version='SSLv3': expected one of"):
        tls.connect(minimum_version="SSLv3")
    with pytest.raises(ConfigError, match="mutually exclusive"):
        tls.connect(insecure=True, ca=ca_file())
    with pytest.raises(ConfigError, match="key needs cert"):
        tls.connect(key=key)
    with pytest.raises(TypeError, match="takes Stream"):
        tls.connect(tls.server(cert, key)(echo))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "host", ["a b.example", "-a.example", "a..example", "x" * 64 + ".example", "a\0.example"]
)
async def test_an_invalid_name_is_rejected_before_connecting(host: str) -> None:
    async def never(target: Target) -> Stream:
        raise AssertionError("it was opened")

    said = await failure(tls.connect(never), Target(host, 443))
    assert "is not a host name" in said


async def test_a_unix_socket_needs_server_name(tmp_path: Path) -> None:
    where = f"unix:{tmp_path}/s"
    said = await failure(tls.connect(ca=ca_file()), Target(where, 0), ConfigError)
    assert said == f"{where} has no host name to verify: give server_name"


async def test_the_number_of_cached_contexts_is_bounded() -> None:
    connect = tls.connect(ca=ca_file())
    assert isinstance(connect, TLSConnect)
    first = connect._context(("h2",))
    assert connect._context(("h2",)) is first
    for number in range(3 * MAX_CONTEXTS):
        connect._context((f"p{number}",))
        assert len(connect.contexts) <= MAX_CONTEXTS
