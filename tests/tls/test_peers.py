"""OpenSSL's programs, curl and nginx at the other end."""

import asyncio
import hashlib
import os
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from llama import ConnectionHandler, Stream, Target, TLSError, serve, stack, tls
from llama.tls import CertificateAuthority
from tests.tls.clients import tell
from tests.tls.programs import Program, needs, output_of, running
from tests.tls.sessions import ca_file, pair_files

pytestmark = pytest.mark.peer

VERSIONS = pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])


@asynccontextmanager
async def s_client(handler: ConnectionHandler, *options: str) -> AsyncGenerator[Program]:
    """`openssl s_client` connected to a handler."""
    async with serve(handler, listen="127.0.0.1:0", grace=5) as server:
        to = ("-connect", server.address, "-CAfile", ca_file(), "-verify_return_error")
        async with running("openssl", "s_client", *to, *options) as program:
            yield program


def site(**options: object) -> ConnectionHandler:
    return tls.server(*pair_files("localhost"), **options)(tell)  # type: ignore[arg-type]


# OpenSSL as the client


@needs("openssl")
@VERSIONS
async def test_s_client_talks(version: str) -> None:
    async with s_client(site(alpn=["h2"]), version, "-servername", "localhost", "-alpn", "h2") as client:
        client.type("?\n")
        await client.expect(f"TLSv{version[-3:].replace('_', '.')} nobody fresh h2 localhost")
        code, _ = await client.end()
        assert code == 0


@needs("openssl")
@VERSIONS
async def test_s_client_with_certificates_good_bad_and_none(version: str, tmp_path: Path) -> None:
    cert, key = pair_files("john", client=True)
    stranger = CertificateAuthority.create(name="another").issue("jane", client=True).write(tmp_path)
    handler = site(client_ca=ca_file())
    async with s_client(handler, version, "-cert", cert, "-key", key) as client:
        client.type("?\n")
        await client.expect(" john fresh ")
    async with s_client(handler, version, "-cert", str(stranger[0]), "-key", str(stranger[1])) as client:
        await client.expect("alert unknown ca")
    async with s_client(handler, version) as client:
        expected = "certificate required" if version == "-tls1_3" else "handshake failure"
        await client.expect(f"alert {expected}")


@needs("openssl")
@pytest.mark.parametrize("version", ["-tls1", "-tls1_1"])
async def test_s_client_with_an_old_version_gets_protocol_version(version: str) -> None:
    async with s_client(site(), version, "-cipher", "DEFAULT:@SECLEVEL=0") as client:
        await client.expect("alert protocol version")


@needs("openssl")
@pytest.mark.parametrize("command", ["k", "K"])
async def test_s_client_updates_keys(command: str) -> None:
    async with s_client(site(), "-tls1_3") as client:
        for _ in range(3):
            client.type("?\n")
            await client.expect("TLSv1.3 nobody")
            client.type(f"{command}\n")
            await client.expect("KEYUPDATE")
        client.type("?\n")
        await client.expect("TLSv1.3 nobody")


@needs("openssl")
async def test_renegotiation_by_s_client_is_refused_without_effect_on_others() -> None:
    handler = site()
    async with s_client(handler, "-tls1_2") as other, s_client(handler, "-tls1_2") as client:
        for each in (other, client):
            each.type("?\n")
            await each.expect("TLSv1.2 nobody")
        client.type("R\n")
        await client.expect("no renegotiation")
        other.type("?\n")
        await other.expect("TLSv1.2 nobody")


@needs("openssl")
@VERSIONS
async def test_s_client_resumes_its_session_only_at_its_own_site(version: str, tmp_path: Path) -> None:
    session = str(tmp_path / "session")
    free = tls.Certificate(*pair_files("localhost"))
    closed = tls.Certificate(*pair_files("closed.example"), client_ca=ca_file())
    async with serve(tls.server(free, None, closed)(tell), listen="127.0.0.1:0", grace=5) as server:
        to = ("openssl", "s_client", "-connect", server.address, "-CAfile", ca_file(), version)
        async with running(*to, "-servername", "localhost", "-sess_out", session) as client:
            client.type("?\n")
            await client.expect(" fresh ")
            await client.end()
        async with running(*to, "-servername", "localhost", "-sess_in", session) as client:
            client.type("?\n")
            await client.expect(" resumed ")
        async with running(*to, "-servername", "closed.example", "-sess_in", session) as client:
            expected = "certificate required" if version == "-tls1_3" else "handshake failure"
            await client.expect(f"alert {expected}")


@needs("openssl")
async def test_s_client_with_a_wrong_name_gets_the_first_certificate() -> None:
    first, second = (tls.Certificate(*pair_files(name)) for name in ("localhost", "a.example"))
    wrong = ("-servername", "wrong.example", "-verify_hostname", "localhost")
    async with s_client(tls.server(first, None, second)(tell), *wrong) as client:
        client.type("?\n")
        await client.expect(" wrong.example")


# curl


async def page(stream: Stream) -> None:
    """One answer of HTTP, whatever was asked."""
    await stream.read()
    await stream.write(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\nhello\n")


@needs("curl")
@pytest.mark.parametrize("options", [["--tls-max", "1.2"], ["--tlsv1.3"], ["--http1.1"]], ids=" ".join)
async def test_curl_fetches_a_page(options: list[str]) -> None:
    handler = tls.server(*pair_files("localhost"), alpn=["http/1.1"])(page)
    async with serve(handler, listen="127.0.0.1:0", grace=5) as server:
        to = (f"localhost:{server.port}:127.0.0.1", f"https://localhost:{server.port}/")
        code, said = await output_of("curl", "-sS", "--cacert", ca_file(), *options, "--resolve", *to)
    assert (code, said) == (0, "hello\n")


@needs("curl")
async def test_curl_follows_a_route_by_name() -> None:
    route = tls.route({"a.example": stack(tls.server(*pair_files("a.example")), page)})
    async with serve(route, listen="127.0.0.1:0", grace=5) as server:
        answers = []
        for name in ("a.example", "b.example"):
            to = (f"{name}:{server.port}:127.0.0.1", f"https://{name}:{server.port}/")
            answers.append(await output_of("curl", "-sS", "--cacert", ca_file(), "--resolve", *to))
    assert answers[0] == (0, "hello\n")
    assert answers[1][0] == 35
    assert "unrecognized name" in answers[1][1]


# servers behind `tls.connect`


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@needs("openssl")
@VERSIONS
async def test_a_page_from_s_server(version: str) -> None:
    cert, key = pair_files("localhost")
    own_cert, own_key = pair_files("john", client=True)
    port = free_port()
    to = ("-accept", f"127.0.0.1:{port}", "-cert", cert, "-key", key, "-CAfile", ca_file(), "-Verify", "1")
    async with running("openssl", "s_server", *to, "-www", "-alpn", "http/1.1", version) as server:
        await server.expect("ACCEPT")
        connect = tls.connect(ca=ca_file(), cert=own_cert, key=own_key, alpn=["h2", "http/1.1"])
        stream = await connect(Target("localhost", port))
        info = stream.extensions[tls.TLSInfo]
        assert (info.alpn, info.version) == ("http/1.1", f"TLSv{version[-3:].replace('_', '.')}")
        await stream.write(b"GET / HTTP/1.0\r\n\r\n")
        answer = await everything(stream)
        await stream.aclose()
    assert b"200 ok" in answer
    assert b"CN = john" in answer or b"CN=john" in answer


async def everything(stream: Stream) -> bytes:
    parts: list[bytes] = []
    while data := await stream.read():
        parts.append(data)
    return b"".join(parts)


@needs("openssl")
@pytest.mark.parametrize("command", ["k", "K"])
async def test_s_server_updates_keys(command: str) -> None:
    cert, key = pair_files("localhost")
    port = free_port()
    to = ("-accept", f"127.0.0.1:{port}", "-cert", cert, "-key", key, "-tls1_3", "-msg")
    async with running("openssl", "s_server", *to) as server:
        await server.expect("ACCEPT")
        stream = await tls.connect(ca=ca_file())(Target("localhost", port))
        for number in range(3):
            await stream.write(b"line %d\n" % number)
            await server.expect(f"line {number}")
            server.type(f"{command}\n")
            await server.expect(", KeyUpdate")
            server.type(f"answer {number}\n")
            assert await stream.read() == b"answer %d\n" % number
        await stream.aclose()


@needs("openssl")
async def test_renegotiation_by_s_server_is_refused() -> None:
    cert, key = pair_files("localhost")
    port = free_port()
    to = ("-accept", f"127.0.0.1:{port}", "-cert", cert, "-key", key, "-tls1_2")
    async with running("openssl", "s_server", *to) as server:
        await server.expect("ACCEPT")
        stream = await tls.connect(ca=ca_file())(Target("localhost", port))
        await stream.write(b"hello\n")
        await server.expect("hello")
        server.type("r\n")
        async with asyncio.timeout(20):  # it insists, and hears no_renegotiation
            with pytest.raises((OSError, EOFError)):
                await stream.read()
        await stream.aclose()


NGINX = """
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log stderr warn;
{user}
events {{ }}
http {{
  access_log off;
  client_max_body_size 0;
  client_body_temp_path {folder}/temp;
  proxy_temp_path {folder}/temp2;
  fastcgi_temp_path {folder}/temp3;
  uwsgi_temp_path {folder}/temp4;
  scgi_temp_path {folder}/temp5;
  server {{
    listen unix:{folder}/web ssl;
    ssl_protocols TLSv1.2 TLSv1.3;
    ssl_certificate {cert};
    ssl_certificate_key {key};
    ssl_client_certificate {ca};
    ssl_verify_client optional;
    location / {{ root {folder}; }}
    location = /who {{ return 200 "$ssl_protocol $ssl_server_name $ssl_client_verify $ssl_client_s_dn\\n"; }}
  }}
}}
"""


@asynccontextmanager
async def nginx(folder: Path) -> AsyncGenerator[Target]:
    """nginx with TLS on a path in a folder, whose files it serves."""
    cert, key = pair_files("localhost")
    user = "user root;" if os.geteuid() == 0 else ""
    config = folder / "nginx.conf"
    config.write_text(NGINX.format(folder=folder, cert=cert, key=key, ca=ca_file(), user=user))
    async with running("nginx", "-e", "stderr", "-p", str(folder), "-c", str(config)):
        for _ in range(1000):
            with socket.socket(socket.AF_UNIX) as probe:
                if not probe.connect_ex(f"{folder}/web"):
                    break
            await asyncio.sleep(0.01)
        yield Target(f"unix:{folder}/web", 0)


@needs("nginx")
async def test_pages_from_nginx(tmp_path: Path) -> None:
    data = os.urandom(5_000_000)
    (tmp_path / "data").write_bytes(data)
    cert, key = pair_files("john", client=True)
    connect = tls.connect(ca=ca_file(), server_name="localhost", cert=cert, key=key)
    async with nginx(tmp_path) as target:
        stream = await connect(target)
        await stream.write(b"GET /who HTTP/1.0\r\n\r\n")
        assert (await everything(stream)).endswith(b"TLSv1.3 localhost SUCCESS CN=john\n")
        await stream.aclose()
        stream = await connect(target)
        await stream.write(b"GET /data HTTP/1.0\r\n\r\n")
        _, _, body = (await everything(stream)).partition(b"\r\n\r\n")
        await stream.aclose()
        mistrusting = tls.connect(ca=ca_file(), server_name="a.example")
        with pytest.raises(TLSError, match="Hostname mismatch"):
            await mistrusting(target)
    assert hashlib.sha256(body).digest() == hashlib.sha256(data).digest()
