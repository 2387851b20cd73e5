"""The key log: what it holds, who may read it, and that nothing else makes one."""

from __future__ import annotations

import ssl
import stat
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from llama import ConfigError, Extensions, Stream, Target, http, mitm, serve, stack, tcp, tls, via
from llama.http import Request, Response
from llama.mitm._certificate_cache import CertificateCache
from llama.tls._keylog import CONTEXTS, KeyLog
from tests.leaks import descriptors
from tests.tls.sessions import authority, ca_file, pair_files

LABELS = {
    "TLSv1.2": {"CLIENT_RANDOM"},
    "TLSv1.3": {
        "CLIENT_HANDSHAKE_TRAFFIC_SECRET",
        "SERVER_HANDSHAKE_TRAFFIC_SECRET",
        "CLIENT_TRAFFIC_SECRET_0",
        "SERVER_TRAFFIC_SECRET_0",
        "EXPORTER_SECRET",
    },
}


def secrets(path: Path) -> set[tuple[str, ...]]:
    """The lines of a key log: label, client random, secret."""
    lines = path.read_text().splitlines()
    found = {tuple(line.split(" ")) for line in lines if line and not line.startswith("#")}
    assert all(len(each) == 3 and len(each[1]) == 64 for each in found)
    return found


async def echo(stream: Stream) -> None:
    await stream.write(await stream.read())


async def greet(request: Request) -> Response:
    return Response(200, body=b"hello")


async def exchange_bytes(version: str, *, server: Path | None, client: Path | None) -> None:
    """One session, with a key log on either side."""
    layer = tls.server(*pair_files("localhost"), keylog=server)
    async with serve(stack(layer, echo), listen="127.0.0.1:0") as site:
        connect = tls.connect(ca=ca_file(), keylog=client)
        contexts: dict[Any, ssl.SSLContext] = connect.contexts  # type: ignore[attr-defined]
        for each in contexts.values():
            each.maximum_version = ssl.TLSVersion[version.replace(".", "_")]
        stream = await connect(Target("localhost", site.port))
        await stream.write(b"a")
        assert await stream.read() == b"a"
        await stream.aclose()


@pytest.mark.parametrize("version", LABELS)
async def test_both_sides_write_the_same_secrets(tmp_path: Path, version: str) -> None:
    server, client = tmp_path / "server", tmp_path / "client"
    await exchange_bytes(version, server=server, client=client)
    assert secrets(server) == secrets(client)
    assert {label for label, _, _ in secrets(server)} == LABELS[version]
    assert stat.S_IMODE(server.stat().st_mode) == stat.S_IMODE(client.stat().st_mode) == 0o600


async def test_layers_append_to_one_file(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    for sessions in (1, 2):
        await exchange_bytes("TLSv1.3", server=path, client=path)
        assert len({random for _, random, _ in secrets(path)}) == sessions


async def test_a_file_that_replaced_the_key_log_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    keylog = KeyLog(path)
    path.rename(tmp_path / "old")
    path.write_text("")
    keylog.attach(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
    keylog.write("line\n")
    assert path.read_text() == ""
    assert (tmp_path / "old").read_text().endswith("line\n")


async def test_http3_writes_the_secrets_of_both_sides(tmp_path: Path) -> None:
    pytest.importorskip("qh3")
    server, client, other = (tmp_path / name for name in ("server", "client", "other"))
    site = http.h3_server("127.0.0.1:0", greet, *pair_files("localhost"), keylog=server)
    async with serve(site) as serving:
        address = f"localhost:{serving.addresses[0].rpartition(':')[2]}"
        async with http.h3_client(ca=ca_file(), keylog=client) as ask:
            await (await ask(Request("GET", f"https://{address}/"))).aclose()
        assert secrets(server) == secrets(client)
        assert {label for label, _, _ in secrets(server)} == LABELS["TLSv1.3"] - {"EXPORTER_SECRET"}
        async with http.client(tls=tls.connect(ca=ca_file(), keylog=other)) as ask:
            await (await ask(Request("GET", f"h3://{address}/"))).aclose()
    assert secrets(server) == secrets(client) | secrets(other)
    assert {stat.S_IMODE(each.stat().st_mode) for each in (server, client, other)} == {0o600}


async def intercept(keylog: Path | None, client: Path | None, upstream: Path | None) -> None:
    """One intercepted request, with a key log of each part."""
    layer = tls.server(*pair_files("localhost"), keylog=upstream)
    async with serve(stack(layer, http.server(), greet), listen="127.0.0.1:0") as site:
        proxy = mitm.proxy(authority(), private=True, verify=ca_file(), keylog=keylog)
        async with serve(stack(http.server(), proxy), listen="127.0.0.1:0") as front:
            through = tls.connect(http.connect(front.address), ca=ca_file(), keylog=client)
            async with http.client(tls=through) as ask:
                response = await ask(Request("GET", f"https://localhost:{site.port}/"))
                assert (response.status, await response.body.read()) == (200, b"hello")


async def test_interception_writes_the_secrets_of_clients_and_upstreams(tmp_path: Path) -> None:
    keys, client, upstream = (tmp_path / name for name in ("keys", "client", "upstream"))
    await intercept(keys, client, upstream)
    assert secrets(keys) == secrets(client) | secrets(upstream)
    assert len({random for _, random, _ in secrets(keys)}) == 2


async def test_the_environment_variable_alone_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "keys"
    monkeypatch.setenv("SSLKEYLOGFILE", str(path))
    await exchange_bytes("TLSv1.3", server=None, client=None)
    await intercept(None, None, None)
    assert not path.exists()


async def test_keys_of_an_https_proxy_are_logged(tmp_path: Path) -> None:
    proxy, client = tmp_path / "proxy", tmp_path / "client"
    layer = tls.server(*pair_files("localhost"), keylog=proxy)
    async with AsyncExitStack() as stacked:
        site = await stacked.enter_async_context(serve(echo, listen="127.0.0.1:0"))
        inner = stack(layer, http.server(), http.proxy(private=True))
        front = await stacked.enter_async_context(serve(inner, listen="127.0.0.1:0"))
        connect = via(f"https://localhost:{front.port}", ca=ca_file(), keylog=client)
        stream = await connect(Target("127.0.0.1", site.port, Extensions()))
        await stream.write(b"a")
        assert await stream.read() == b"a"
        await stream.aclose()
    assert secrets(proxy) == secrets(client) != set()


async def test_many_certificates_need_few_descriptors(tmp_path: Path) -> None:
    before = len(descriptors())
    leaves = CertificateCache(authority(), 1024, KeyLog(tmp_path / "keys"))
    for number in range(CONTEXTS + 20):
        await leaves.context(f"{number}.example", None, ())
    assert len(descriptors()) - before <= CONTEXTS + 3  # the log's own, and what runs the event loop's thread
    await leaves._close()


@pytest.mark.parametrize(
    "name", ["tls.server", "tls.connect", "mitm.relay", "http.h3_server", "http.h3_client"]
)
def test_a_file_that_cannot_be_written_is_an_error(tmp_path: Path, name: str) -> None:
    path = tmp_path / "missing" / "keys"
    pair = pair_files("localhost")
    with pytest.raises(
        ConfigError, match="missing/keys: cannot write the key log: No such file or directory"
    ):
        match name:
            case "tls.server":
                tls.server(*pair, keylog=path)
            case "tls.connect":
                tls.connect(keylog=path)
            case "mitm.relay":
                tcp.forward("a:1", relay=mitm.relay(authority(), keylog=path))
            case "http.h3_server":
                http.h3_server(":443", greet, *pair, keylog=path)
            case _:
                http.h3_client(keylog=path)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_does_not_end_quic_connections(caplog: pytest.LogCaptureFixture) -> None:
    assert KeyLog("/dev/full").write("line\n") == 5
    assert "/dev/full: cannot write the key log: No space left on device" in caplog.text
