"""HTTP/3 behind `http.client` and the reverse proxy: `h3://` in a URL."""

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("qh3")

from llama import (
    ConfigError,
    ProtocolError,
    RefusedError,
    TLSError,
    UnreachableError,
    http,
    serve,
    socks5,
    stack,
    tcp,
    tls,
    udp,
)
from llama.http import Request, Response
from tests.http.h3.fixtures import h3
from tests.tls.sessions import ca_file, pair_files


def ask(**options: Any) -> Any:
    """A client that trusts the tests' authority, for https and h3 alike."""
    return http.client(tls=tls.connect(ca=ca_file()), **options)


async def told(request: Request) -> Response:
    """Tells how it was asked, and what for."""
    size = len(await request.body.read(1 << 24))
    names = f"{request.headers.get('via')} {request.headers.get('x-forwarded-for')}"
    return Response(200, {"alt-svc": 'h3=":1"'}, f"{request.version} {request.url} {size} {names}")


async def text(exchange: Any, url: str, **options: Any) -> str:
    response = await exchange(Request("GET", url, **options))
    body: bytes = await response.body.read()
    return body.decode()


async def test_a_url_of_h3_is_asked_over_http3() -> None:
    async with h3(told) as port, ask() as client:
        found = [await text(client, f"h3://localhost:{port}/a?b") for _ in range(2)]
        assert found == [f"3 https://localhost:{port}/a?b 0 None None"] * 2


async def test_an_origin_in_the_extensions_goes_before_the_url() -> None:
    async with h3(told) as port, ask() as client:
        request = Request("GET", "http://site.example/")
        request.extensions.set(http.Origin.parse(f"h3://localhost:{port}"))
        response = await client(request)
        assert await response.body.read() == b"3 https://site.example/ 0 None None"


async def test_the_certificate_is_verified_as_for_https(tmp_path: Path) -> None:
    async with h3(told) as port:
        async with http.client() as client:
            with pytest.raises(TLSError, match="QUIC handshake failed"):
                await client(Request("GET", f"h3://localhost:{port}/"))
        async with ask() as client:
            with pytest.raises(TLSError, match="QUIC handshake failed"):
                await client(Request("GET", f"h3://127.0.0.1:{port}/"))
        url = f"h3://127.0.0.1:{port}/"
        async with http.client(tls=tls.connect(ca=ca_file(), server_name="localhost")) as client:
            assert (await text(client, url))[0] == "3"
        async with http.client(tls=tls.connect(insecure=True)) as client:
            assert (await text(client, url))[0] == "3"
        async with http.client(tls=tls.connect(ca=hashed(tmp_path), server_name="localhost")) as client:
            assert (await text(client, url))[0] == "3"


def hashed(folder: Path) -> Path:
    """A directory of authorities, as OpenSSL wants it."""
    (folder / "0a1b2c3d.0").write_bytes(Path(ca_file()).read_bytes())
    return folder


async def test_the_systems_authorities_are_those_of_https(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", ca_file())
    async with h3(told) as port, http.client() as client:
        assert (await text(client, f"h3://localhost:{port}/"))[0] == "3"


async def test_the_client_ends_with_its_connections() -> None:
    async with h3(told) as port:
        client = ask()
        async with client:
            await text(client, f"h3://localhost:{port}/")
            state = client.state.h3._own.state
            assert state.connections == 1
        assert state.connections == 0
        async with client:
            assert (await text(client, f"h3://localhost:{port}/"))[0] == "3"


async def test_the_settings_of_the_client_hold() -> None:
    async def never(request: Request) -> Response:
        await asyncio.Event().wait()
        raise AssertionError

    async with h3(never) as port, ask(response_header_timeout=0.05) as client:
        with pytest.raises(TimeoutError, match=r"no response within 0\.05 s"):
            await client(Request("GET", f"h3://localhost:{port}/"))
    packets = await udp.bind("127.0.0.1:0")  # where nobody answers
    assert packets.address is not None
    try:
        async with ask(connect_timeout=0.05) as client:
            with pytest.raises(UnreachableError, match=r"within 0\.05 s") as caught:
                await client(Request("GET", f"h3://localhost:{packets.address.port}/"))
            assert caught.value.status == 504
    finally:
        packets.abort()


async def test_an_upload_that_goes_on_is_not_late() -> None:
    go = asyncio.Event()

    async def parts() -> AsyncIterator[bytes]:
        yield b"a" * 1000
        await go.wait()
        yield b"b" * 1000

    async with h3(told) as port, ask(response_header_timeout=2.0) as client, asyncio.TaskGroup() as group:
        asking = group.create_task(client(Request("POST", f"h3://localhost:{port}/", body=parts())))
        done, _ = await asyncio.wait((asking,), timeout=2.5)
        assert not done
        go.set()
        assert b" 2000 " in await (await asking).body.read()


async def test_an_answer_before_the_end_of_the_upload_is_an_answer() -> None:
    async def refuse(request: Request) -> Response:
        return Response(413, body=b"too much")

    async def parts() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield bytes(100_000)

    async with h3(refuse) as port, ask() as client:
        response = await client(Request("POST", f"h3://localhost:{port}/", body=parts()))
        assert (response.status, await response.body.read()) == (413, b"too much")


async def test_a_silent_answer_does_not_make_the_connection_idle() -> None:
    go = asyncio.Event()

    async def slow(request: Request) -> Response:
        await go.wait()
        return Response(200, body=b"late")

    async with (
        h3(slow, idle_timeout=2.0) as port,
        ask(idle_timeout=2.0) as client,
        asyncio.TaskGroup() as group,
    ):
        asking = group.create_task(text(client, f"h3://localhost:{port}/"))
        done, _ = await asyncio.wait((asking,), timeout=3.5)
        assert not done
        go.set()
        assert await asking == "late"


async def test_answers_that_are_forgotten_free_their_streams() -> None:
    async def long(request: Request) -> Response:
        return Response(200, body=bytes(200_000))

    async with h3(long) as port, ask(max_per_host=1, pool_timeout=10) as client:
        for _ in range(300):  # more than the server takes at a time
            response = await client(Request("GET", f"h3://localhost:{port}/"))
            assert response.status == 200
            del response
        assert client.state.h3._own.state.connections == 1


async def test_a_request_that_is_cancelled_is_cancelled_there_too() -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def never(request: Request) -> Response:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        raise AssertionError

    async with h3(never) as port, ask() as client, asyncio.TaskGroup() as group:
        asking = group.create_task(client(Request("GET", f"h3://localhost:{port}/")))
        await begun.wait()
        asking.cancel()
        await ended.wait()


@pytest.mark.parametrize("family", ["both", "ours alone"])
async def test_all_addresses_of_a_name_are_tried(family: str) -> None:
    async def resolve(host: str, port: int) -> list[str]:
        return ["127.0.0.9", "127.0.0.1"] if family == "both" else ["127.0.0.1"]

    async with h3(told) as port:
        way = tcp.connect(resolver=resolve)
        async with http.client(way, tls=tls.connect(ca=ca_file(), server_name="localhost")) as client:
            assert (await text(client, f"h3://site.example:{port}/"))[0] == "3"


async def test_a_forward_proxy_guards_what_is_not_public_here_too() -> None:
    async def resolve(host: str, port: int) -> list[str]:
        return ["127.0.0.1"]

    async with h3(told) as port, ask() as client:
        proxy = http.proxy(client=client, private=False)
        for host in ("localhost", "127.0.0.1"):
            with pytest.raises(RefusedError, match="only public addresses"):
                await proxy(Request("GET", f"h3://{host}:{port}/"))
        async with http.client(tcp.connect(resolver=resolve)) as resolving:
            proxy = http.proxy(client=resolving, private=False)
            with pytest.raises(RefusedError, match="only public addresses"):
                await proxy(Request("GET", f"h3://site.example:{port}/"))
        assert (await text(http.proxy(client=client, private=True), f"h3://localhost:{port}/"))[0] == "3"


async def test_an_upgrade_is_refused_before_it_is_sent() -> None:
    async with h3(told) as port, ask() as client:
        request = Request("GET", f"h3://localhost:{port}/", {"connection": "upgrade", "upgrade": "websocket"})
        request.upgrade_protocol = "websocket"
        with pytest.raises(ProtocolError, match="HTTP/3 has no upgrade to websocket") as caught:
            await client(request)
        assert caught.value.status == 502


async def test_a_reverse_proxy_has_upstreams_of_all_kinds() -> None:
    over_tls = stack(tls.server(*pair_files("localhost")), http.server(), told)
    plain = stack(http.server(), told)
    async with (
        h3(told) as one,
        serve(tcp.server("127.0.0.1:0", over_tls), tcp.server("127.0.0.1:0", plain)) as server,
    ):
        two, three = (each.rpartition(":")[2] for each in server.addresses)
        to = [
            f"h3://localhost:{one}",
            f"https://localhost:{two}",
            f"h2c://localhost:{three}",
            f"http://localhost:{three}",
        ]
        async with ask() as client:
            front = http.reverse_proxy(to, client=client)
            answers = [await front(Request("GET", "http://site.example/")) for _ in to]
            assert [(await each.body.read())[:1] for each in answers] == [b"3", b"2", b"2", b"1"]
            assert all("alt-svc" not in each.headers for each in answers)


async def test_an_upgrade_goes_to_who_takes_it() -> None:
    async def accept(request: Request) -> Response:
        return Response(
            101, {"connection": "upgrade", "upgrade": "chat"}, upgrade=lambda stream: stream.aclose()
        )

    def wanting() -> Request:
        headers = {"connection": "upgrade", "upgrade": "chat"}
        request = Request("GET", "http://site.example/", headers)
        request.upgrade_protocol = "chat"
        return request

    async with (
        h3(told) as port,
        serve(tcp.server("127.0.0.1:0", stack(http.server(), accept))) as server,
        ask() as client,
    ):
        first = f"h3://localhost:{port}"
        proxy = http.reverse_proxy([first, f"http://{server.address}"], client=client)
        for _ in range(4):
            response = await proxy(wanting())
            assert response.status == 101
            await response.aclose()
        alone = http.reverse_proxy(first, client=client, max_failures=1)
        with pytest.raises(ProtocolError, match="cannot upgrade to chat"):
            await alone(wanting())
        assert (await text(alone, "http://site.example/"))[0] == "3"


async def test_an_upstream_is_told_that_http3_came_by_tls() -> None:
    async def seen(request: Request) -> Response:
        return Response(200, body=f"{request.headers['x-forwarded-proto']} {request.headers['via']}")

    async with (
        serve(tcp.server("127.0.0.1:0", stack(http.server(), seen))) as server,
        h3(http.reverse_proxy(f"http://{server.address}")) as port,
        ask() as client,
    ):
        assert await text(client, f"h3://localhost:{port}/") == "https 3 llama"


async def test_without_a_port_alt_svc_tells_the_one_that_was_asked() -> None:
    async def page(request: Request) -> Response:
        return Response(200)

    site = stack(tls.server(*pair_files("localhost")), http.server(), http.alt_svc(max_age=60), page)
    async with serve(tcp.server("127.0.0.1:0", site)) as server, ask() as client:
        response = await client(Request("GET", f"https://localhost:{server.port}/"))
        assert response.headers["alt-svc"] == f'h3=":{server.port}"; ma=60'
        await response.aclose()


async def test_an_upstream_that_is_not_there_is_passed_over() -> None:
    packets = await udp.bind("127.0.0.1:0")
    assert packets.address is not None
    gone = packets.address.port
    packets.abort()
    async with h3(told) as port, ask() as client:
        proxy = http.reverse_proxy([f"h3://localhost:{gone}", f"h3://localhost:{port}"], client=client)
        for _ in range(4):
            response = await proxy(Request("GET", "http://site.example/"))
            assert (await response.body.read())[:1] == b"3"


async def test_without_the_extra_it_is_said_when_the_proxy_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "qh3", None)
    wanted = r"pip install proxy-llama\[http3\]"
    with pytest.raises(ConfigError, match=wanted):
        http.reverse_proxy("h3://localhost:1")
    with pytest.raises(ConfigError, match=wanted):
        http.Origin.parse("h3://localhost:1")


def test_what_goes_by_a_proxy_does_not_leave_by_udp() -> None:
    with pytest.raises(ConfigError, match=r"HTTP/3 needs UDP, not socks5\.connect"):
        http.reverse_proxy("h3://localhost:1", connect=socks5.connect("127.0.0.1:9"))
    with pytest.raises(ConfigError, match=r"HTTP/3 needs UDP, not socks5\.connect"):
        http.reverse_proxy("h3://localhost:1", client=http.client(socks5.connect("127.0.0.1:9")))
    over = tls.connect(socks5.connect("127.0.0.1:9"))
    with pytest.raises(ConfigError, match=r"HTTP/3 cannot use "):
        http.reverse_proxy("h3://localhost:1", client=http.client(tls=over))


async def test_what_goes_by_a_proxy_does_not_leave_by_udp_either_when_a_request_asks_for_it() -> None:
    async with http.client(socks5.connect("127.0.0.1:9")) as client:
        with pytest.raises(UnreachableError, match="HTTP/3 needs UDP"):
            await client(Request("GET", "h3://localhost:1/"))


@pytest.mark.parametrize("url", ["h3+unix:/tmp/socket", "h3:", "h3://", "h3://a:0", "h3://u:p@a"])
def test_urls_that_are_none(url: str) -> None:
    with pytest.raises(ConfigError, match=r"expected http://, https://, h2c:// or h3://"):
        http.Origin.parse(url)
