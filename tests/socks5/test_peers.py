"""With other people's programs: clients of llama's server, and proxies for llama's connectors."""

import getpass
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from llama import (
    PeerAddress,
    RefusedError,
    Serving,
    Stream,
    Target,
    UnreachableError,
    http,
    serve,
    socks5,
    stack,
    tcp,
    tls,
    udp,
)
from llama.testing._transcript import converse
from tests.socks5.programs import dante, free_port, installed, microsocks, pproxy, program, running
from tests.socks5.worlds import echo
from tests.tls.sessions import ca_file, pair_files

pytestmark = pytest.mark.peer


async def page(stream: Stream) -> None:
    await stream.read()
    await stream.write(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\nhello\n")


class Names:
    """Resolves one name, and keeps what was asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int) -> list[str]:
        self.asked.append(host)
        return ["127.0.0.1"]


@asynccontextmanager
async def proxy(**settings: object) -> AsyncGenerator[tuple[Serving, int, Names]]:
    """A server that knows one name, and a page behind it."""
    names = Names()
    handler = socks5.server(connect=tcp.connect(resolver=names), **settings)  # type: ignore[arg-type]
    async with serve(page, listen="127.0.0.1:0") as site, serve(handler, listen="127.0.0.1:0") as server:
        yield server, site.port, names


@pytest.mark.parametrize(
    ("option", "host", "resolved"),
    [
        ("--socks5", "localhost", []),
        ("--socks5-hostname", "a.example", ["a.example"]),
        ("--socks4", "127.0.0.1", []),
        ("--socks4a", "a.example", ["a.example"]),
    ],
)
async def test_curl(option: str, host: str, resolved: list[str]) -> None:
    async with proxy(socks4=True) as (server, port, names):
        done = await program("curl", "-4sS", option, server.address, f"http://{host}:{port}/")
    assert (done.code, done.out) == (0, "hello\n"), done.err
    assert names.asked == resolved


async def test_curl_to_an_ipv6_address() -> None:
    async with (
        serve(page, listen="[::1]:0") as site,
        serve(socks5.server(), listen="[::1]:0") as server,
    ):
        done = await program(
            "curl", "-gsS", "--proxy", f"socks5h://[::1]:{server.port}", f"http://[::1]:{site.port}/"
        )
    assert (done.code, done.out) == (0, "hello\n"), done.err


async def test_curl_with_a_password() -> None:
    async with proxy(auth={"john": "secret"}) as (server, port, _):
        url = f"http://a.example:{port}/"
        for user, code in (("john:secret", 0), ("john:wrong", 97)):
            done = await program("curl", "-sS", "--proxy", f"socks5h://{user}@{server.address}", url)
            assert done.code == code, done.err
        done = await program("curl", "-sS", "--proxy", f"socks5h://{server.address}", url)
        assert done.code == 97, done.err


async def test_curl_names_its_user_apart() -> None:
    async with proxy(auth={"john": "secret"}) as (server, port, names):
        url, user = f"http://a.example:{port}/", ("--socks5-basic", "--proxy-user", "john:secret")
        for option in ("--socks5-hostname", "--preproxy", "-x"):
            done = await program("curl", "-qsS", *user, option, f"socks5h://{server.address}", url)
            assert (done.code, done.out) == (0, "hello\n"), done.err
    assert names.asked == ["a.example"] * 3


@pytest.mark.parametrize("scheme", ["socks4", "socks4a", "socks5", "socks5h"])
async def test_curl_takes_its_proxy_from_the_environment(
    scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "all_proxy", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    is_remote = scheme in ("socks4a", "socks5h")
    async with proxy(socks4=True) as (server, port, names):
        monkeypatch.setenv("ALL_PROXY", f"{scheme}://{server.address}")
        host = "a.example" if is_remote else "127.0.0.1"
        done = await program("curl", "-qsS", f"http://{host}:{port}/", f"http://{host}:{port}/again")
    assert (done.code, done.out) == (0, "hello\n" * 2), done.err
    assert names.asked == (["a.example"] * 2 if is_remote else [])


async def test_curl_speaks_tls_through_it_and_sends_much(tmp_path: Path) -> None:
    upload = tmp_path / "upload"
    upload.write_bytes(os.urandom(2_000_000))
    site = stack(tls.server(*pair_files("localhost")), http.server(), back)
    async with (
        serve(site, listen="127.0.0.1:0") as there,
        serve(socks5.server(), listen="127.0.0.1:0") as server,
    ):
        for option in ("--socks5", "--socks5-hostname"):
            received = tmp_path / option
            trust = ("--cacert", ca_file(), "-H", "Expect:", option, server.address)
            url = f"https://localhost:{there.port}/"
            done = await program("curl", "-qsS", *trust, "-T", upload, "-o", received, url)
            assert done.code == 0, done.err
            assert received.read_bytes() == upload.read_bytes()


async def back(request: http.Request) -> http.Response:
    return http.Response(body=request.body)


async def test_curl_reports_the_reply_code() -> None:
    async with proxy(rules=socks5.deny("*:25")) as (server, _, _):
        refused = await program("curl", "-sSv", "--socks5", server.address, "http://127.0.0.1:1/")
        denied = await program("curl", "-sSv", "--socks5", server.address, "http://127.0.0.1:25/")
    assert "(5)" in refused.err
    assert "(2)" in denied.err


@pytest.mark.parametrize("version", ["4", "5"])
async def test_netcat(version: str) -> None:
    async with proxy(socks4=True) as (server, port, _):
        done = await program(
            "nc", "-X", version, "-x", server.address, "127.0.0.1", str(port), stdin="GET / HTTP/1.0\r\n\r\n"
        )
    assert done.out.endswith("\n\nhello\n"), done.err


async def test_ssh(tmp_path: Path) -> None:
    if os.getuid() == 0 and not Path("/run/sshd").is_dir():
        pytest.skip("sshd has no directory for its privilege separation")
    for key in ("host", "user"):
        done = await program("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / key)
        assert done.code == 0, done.err
    port = free_port()
    settings = {
        "HostKey": tmp_path / "host",
        "AuthorizedKeysFile": tmp_path / "user.pub",
        "StrictModes": "no",
        "UsePAM": "no",
        "PidFile": "none",
        "ListenAddress": "127.0.0.1",
    }
    options = [part for name, value in settings.items() for part in ("-o", f"{name}={value}")]
    with running(port, installed("sshd"), "-D", "-e", "-f", os.devnull, "-p", str(port), *options):
        async with proxy(auth=None) as (server, _, names):
            client = {
                "ProxyCommand": f"{installed('nc')} -X 5 -x {server.address} %h %p",
                "IdentityFile": tmp_path / "user",
                "IdentitiesOnly": "yes",
                "BatchMode": "yes",
                "StrictHostKeyChecking": "no",
                "UserKnownHostsFile": os.devnull,
            }
            flags = [part for name, value in client.items() for part in ("-o", f"{name}={value}")]
            where = f"{getpass.getuser()}@there.example"
            done = await program("ssh", "-F", os.devnull, *flags, "-p", str(port), where, "echo through ssh")
    assert (done.code, done.out) == (0, "through ssh\n"), done.err
    assert names.asked == ["there.example"]


async def test_chromium(tmp_path: Path) -> None:
    async with proxy() as (server, port, names):
        done = await program(
            "chromium",
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-background-networking",
            f"--user-data-dir={tmp_path}",
            f"--proxy-server=socks5://{server.address}",
            "--dump-dom",
            f"http://a.example:{port}/",
        )
    assert "hello" in done.out, done.err
    assert "a.example" in names.asked


async def test_microsocks() -> None:
    with microsocks() as address:
        async with serve(echo, listen="127.0.0.1:0") as there:
            stream = await socks5.connect(address)(Target("localhost", there.port))
            await converse(stream, ">> hi", "<< hi")
            await stream.aclose()
        with pytest.raises(UnreachableError, match="connection refused"):
            await socks5.connect(address)(Target("127.0.0.1", 1))


async def test_microsocks_with_a_password() -> None:
    with microsocks("-u", "john", "-P", "secret") as address:
        async with serve(echo, listen="127.0.0.1:0") as there:
            connect = socks5.connect(address, user="john", password="secret")
            stream = await connect(Target("127.0.0.1", there.port))
            await converse(stream, ">> hi", "<< hi")
            await stream.aclose()
        with pytest.raises(RefusedError, match="does not accept the name and password"):
            await socks5.connect(address, user="john", password="wrong")(Target("127.0.0.1", 1))
        with pytest.raises(RefusedError, match="wants a name and password"):
            await socks5.connect(address)(Target("127.0.0.1", 1))


async def test_dante(tmp_path: Path) -> None:
    with dante(tmp_path) as address:
        async with serve(echo, listen="127.0.0.1:0") as there:
            stream = await socks5.connect(address)(Target("127.0.0.1", there.port))
            await converse(stream, ">> hi", "<< hi", ">>", "<<")
            await stream.aclose()
        with pytest.raises(UnreachableError, match="connection refused"):
            await socks5.connect(address)(Target("127.0.0.1", 1))


async def test_bind_at_dante(tmp_path: Path) -> None:
    with dante(tmp_path) as address:
        binding = await socks5.bind(address)(Target("127.0.0.1", 0))
        peer = await tcp.connect()(Target(*binding.address))
        stream = await binding.accept()
        assert stream.extensions[PeerAddress].host == "127.0.0.1"
        await converse(peer, ">> hi")
        await converse(stream, "<< hi")
        await stream.aclose()
        await peer.aclose()


async def test_datagrams_through_dante(tmp_path: Path) -> None:
    there = await udp.bind("127.0.0.1:0")
    assert there.address is not None
    with dante(tmp_path) as address:
        packets = await socks5.associate(address)(Target(*there.address))
        await packets.send(b"hi")
        data, peer = await there.receive()
        assert data == b"hi"
        await there.send(b"and you", Target(*peer))
        assert (await packets.receive()).data == b"and you"
        await packets.aclose()
    await there.aclose()


async def test_pproxy() -> None:
    with pproxy() as address:
        async with serve(echo, listen="127.0.0.1:0") as there:
            stream = await socks5.connect(address)(Target("127.0.0.1", there.port))
            await converse(stream, ">> hi", "<< hi")
            await stream.aclose()


async def test_a_chain_through_all_of_them(tmp_path: Path) -> None:
    """Ours, microsocks, dante, ours."""
    with microsocks() as second, dante(tmp_path) as third:
        async with (
            serve(echo, listen="127.0.0.1:0") as there,
            serve(socks5.server(), listen="127.0.0.1:0") as first,
            serve(socks5.server(), listen="127.0.0.1:0") as fourth,
        ):
            connect = socks5.connect(first.address)
            for address in (second, third, fourth.address):
                connect = socks5.connect(address, connect=connect)
            stream = await connect(Target("127.0.0.1", there.port))
            await converse(stream, ">> hi", "<< hi", ">>", "<<")
            await stream.aclose()
