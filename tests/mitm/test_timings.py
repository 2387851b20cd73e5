"""How long an exchange took, and where: what a recording tells of the connection to the upstream."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from llama import Stream, Target, http, mitm, serve, socks5, stack, tcp, testing, tls
from llama.http import Request, Response
from llama.mitm import Recorded
from llama.mitm._har.document import read_har, to_entry
from llama.mitm._har.file import HarFile
from llama.mitm._har.timings import to_timings
from tests.mitm.worlds import HOST, World, fronted, page

PAUSE = 0.03  # seconds that something is made to take
MS = 1000.0


def phases(recorded: Recorded) -> set[str]:
    """Which of them there were."""
    return {name for name, value in to_timings(recorded).items() if value >= 0}


async def slow_names(host: str, port: int) -> list[str]:
    await asyncio.sleep(PAUSE)
    return ["127.0.0.1"]


async def slow_page(request: Request) -> Response:
    await asyncio.sleep(PAUSE)
    return await page(request)


async def test_the_first_exchange_has_the_connection_and_the_next_one_has_none(world: World) -> None:
    found: list[Recorded] = []
    async with fronted(world, world.https(), mitm.record(found.append)) as front:
        for _ in range(2):
            assert (await front.get())[0] == 200
    first, second = found
    assert phases(first) == {"connect", "ssl", "send", "wait", "receive"}
    assert phases(second) == {"send", "wait", "receive"}
    assert first.address == second.address == "127.0.0.1"
    assert first.connection and first.connection == second.connection
    assert first.ahead and not second.ahead  # the certificate was to be seen before the request


async def test_a_late_connection_counts_as_wait_time(world: World) -> None:
    found: list[Recorded] = []
    upstream = world.https(slow_page)
    async with fronted(world, upstream, mitm.record(found.append), connect_upstream_first=False) as front:
        await front.get()
    (recorded,) = found
    entry = to_entry(recorded, Path())
    timings = to_timings(recorded)
    assert not recorded.ahead
    assert timings["ssl"] < timings["connect"] and timings["wait"] >= PAUSE * MS
    assert entry["time"] == pytest.approx((recorded.wait + recorded.receive) * MS, abs=0.02)


async def test_name_resolution_and_plain_requests_have_timings(world: World) -> None:
    found: list[Recorded] = []
    async with serve(stack(http.server(), slow_page), listen="127.0.0.1:0") as site:

        async def connect(target: Target) -> Stream:
            return await tcp.connect(resolver=slow_names)(Target(target.host, site.port, target.extensions))

        proxy = mitm.proxy(world.ca, mitm.record(found.append), connect=connect, private=True)
        async with testing.client(proxy) as client:
            for _ in range(2):
                assert (await client.get(f"http://{HOST}/a")).status == 200
    first, second = map(to_timings, found)
    assert phases(found[0]) == {"dns", "connect", "send", "wait", "receive"}
    assert first["dns"] >= PAUSE * MS - 1 and first["connect"] < first["dns"]
    assert min(first["wait"], second["wait"]) >= PAUSE * MS - 1
    assert found[0].wait >= 2 * PAUSE - 0.002  # all of it is until the response's head
    assert phases(found[1]) == {"send", "wait", "receive"}


async def test_tls_of_an_https_url_has_its_timing(world: World) -> None:
    found: list[Recorded] = []
    async with serve(world.https(), listen="127.0.0.1:0") as site:

        async def connect(target: Target) -> Stream:
            return await tcp.connect()(Target("127.0.0.1", site.port))

        proxy = mitm.proxy(
            world.ca, mitm.record(found.append), connect=connect, verify=world.site_pem, private=True
        )
        async with testing.client(proxy) as client:
            assert (await client.get(f"https://{HOST}/a")).status == 200
    assert phases(found[0]) == {"connect", "ssl", "send", "wait", "receive"}


async def test_a_reopened_connection_is_timed_again(world: World) -> None:
    found: list[Recorded] = []

    async def once(request: Request) -> Response:
        return Response(200, {"Connection": "close"}, b"once")

    async with fronted(world, world.https(once), mitm.record(found.append)) as front:
        for _ in range(2):
            await front.get()
    assert found[0].connection != found[1].connection
    assert [phases(each) for each in found] == [{"connect", "ssl", "send", "wait", "receive"}] * 2
    assert [each.ahead for each in found] == [True, False]


async def test_a_slow_upload_counts_as_send_time(world: World) -> None:
    found: list[Recorded] = []

    async def slowly() -> AsyncIterator[bytes]:
        for _ in range(3):
            await asyncio.sleep(PAUSE)
            yield b"piece"

    async def site(request: Request) -> Response:
        return Response(200, body=await request.body.read())

    async with fronted(world, world.https(site), mitm.record(found.append)) as front:
        response = await front.client(Request("POST", f"https://{HOST}/a", {}, slowly()))
        assert await response.body.read() == b"piece" * 3
        await response.aclose()
    timings = to_timings(found[0])
    assert timings["send"] >= 2 * PAUSE * MS and timings["wait"] < timings["send"]


async def test_a_response_without_an_upstream_has_no_connection_timings(world: World) -> None:
    found: list[Recorded] = []
    local = mitm.map_local({f"https://{HOST}/": page})
    async with fronted(
        world, world.https(), mitm.record(found.append), local, connect_upstream_first=False
    ) as front:
        await front.get()
    assert phases(found[0]) == {"send", "wait", "receive"}
    entry = to_entry(found[0], Path())
    assert "connection" not in entry and "serverIPAddress" not in entry


@pytest.mark.parametrize("late", [False, True])
async def test_a_listener_that_connects_first_gives_no_connection_timings(world: World, late: bool) -> None:
    found: list[Recorded] = []
    async with serve(world.https(), listen="127.0.0.1:0") as site:

        async def connect(target: Target) -> Stream:
            return await tcp.connect(resolver=slow_names)(Target(target.host, site.port, target.extensions))

        relay = mitm.relay(world.ca, mitm.record(found.append), verify=world.site_pem)
        door = socks5.server(connect=mitm.lazy_connect(connect) if late else connect, relay=relay)
        async with serve(door, listen="127.0.0.1:0") as front:
            over = socks5.connect(f"127.0.0.1:{front.port}")
            async with http.client(over, tls=tls.connect(over, ca=world.pem)) as client:
                response = await client(Request("GET", f"https://{HOST}/a"))
                assert response.status == 200
                await response.aclose()
    expected = {"ssl", "send", "wait", "receive"}
    assert phases(found[0]) - {"connect"} == expected | ({"dns"} if late else set())


@pytest.mark.parametrize("ahead", [True, False])
async def test_timings_survive_a_har_file(world: World, tmp_path: Path, ahead: bool) -> None:
    found: list[Recorded] = []
    async with fronted(
        world, world.https(slow_page), mitm.record(found.append), connect_upstream_first=ahead
    ) as front:
        await front.get()
    file = HarFile(tmp_path / "out.har")
    file.write(found[0])
    file.close()
    (again,) = read_har(tmp_path / "out.har")
    for name in ("dns", "connect", "tls", "send", "receive", "wait"):
        expected = getattr(found[0], name)
        assert getattr(again, name) == (
            expected if expected is None else pytest.approx(expected, abs=1e-4)
        ), name
    for name in ("ahead", "address", "port", "connection"):
        assert getattr(again, name) == getattr(found[0], name), name


async def test_two_recordings_of_an_exchange_have_the_same_connection(world: World) -> None:
    outer: list[Recorded] = []
    inner: list[Recorded] = []
    async with fronted(world, world.https(), mitm.record(outer.append), mitm.record(inner.append)) as front:
        for _ in range(2):
            await front.get()
    for one, other in zip(outer, inner, strict=True):
        assert (one.connect, one.tls, one.connection) == (other.connect, other.tls, other.connection)
    assert outer[0].connect is not None and outer[1].connect is None
