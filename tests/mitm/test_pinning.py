"""Clients that take no certificate but the one they know."""

import asyncio

import pytest

from llama import ConfigError, TLSError, http, mitm, tls
from llama.http import Request
from tests.mitm.worlds import HOST, Front, World, fronted


class Told(mitm.Pinning):
    """Tells when a rejection was counted: the client knows of it first."""

    def __init__(self, after: int, **options: object) -> None:
        super().__init__(after, **options)  # type: ignore[arg-type]
        self.counted = asyncio.Event()

    def rejected(self, client: str, host: str) -> None:
        super().rejected(client, host)
        self.counted.set()


async def pinned(world: World, front: Front) -> bytes:
    """What a client that trusts the site's own authority alone is told."""
    over = http.connect(f"127.0.0.1:{front.port}")
    async with http.client(over, tls=tls.connect(over, ca=world.site_pem)) as client:
        response = await client(Request("GET", f"https://{HOST}/p"))
        return await response.body.read()


async def refused(world: World, front: Front, pinning: Told | None = None) -> None:
    with pytest.raises(TLSError):
        await pinned(world, front)
    if pinning is not None:
        await pinning.counted.wait()
        pinning.counted.clear()


async def test_a_client_that_pins_is_passed_through_after_so_many_rejections(world: World) -> None:
    pinning = Told(2)
    async with fronted(world, world.https(), pinning=pinning) as front:
        for count in (1, 2):
            await refused(world, front, pinning)
            entry = pinning.entries()[0]
            assert (entry.client, entry.host, entry.count) == ("127.0.0.1", HOST, count)
            assert entry.learned == (count == 2)
        assert await pinned(world, front) == b"GET /p from the cloud"
        pinning.clear(HOST)
        await refused(world, front)


async def test_a_client_that_pins_is_refused_where_that_is_asked_for(world: World) -> None:
    async with fronted(world, world.https(), pinning=(pinning := Told(1, then="block"))) as front:
        await refused(world, front, pinning)
        with pytest.raises(TLSError, match="access_denied"):
            await pinned(world, front)


async def test_nothing_is_learned_unless_that_is_asked_for(world: World) -> None:
    async with fronted(world, world.https()) as front:
        for _ in range(5):
            await refused(world, front)


async def test_a_client_that_trusts_clears_the_count(world: World) -> None:
    pinning = Told(2)
    async with fronted(world, world.https(), pinning=pinning) as front:
        await refused(world, front, pinning)
        assert (await front.get())[0] == 200
        assert pinning.entries() == []


def test_what_was_learned_is_forgotten_in_time() -> None:
    now = 100.0
    pinning = mitm.Pinning(2, 60, clock=lambda: now)
    pinning.rejected("192.0.2.1", HOST)
    pinning.rejected("192.0.2.1", HOST)
    assert pinning.action("192.0.2.1", HOST) == "pass"
    assert pinning.action("192.0.2.2", HOST) is None
    assert pinning.action("192.0.2.1", "other.example") is None
    now = 159.9
    assert pinning.action("192.0.2.1", HOST) == "pass"
    now = 160
    assert pinning.action("192.0.2.1", HOST) is None
    assert pinning.entries() == []


def test_the_oldest_is_forgotten_first() -> None:
    pinning = mitm.Pinning(1, limit=2)
    for host in ("a", "b", "c"):
        pinning.rejected("192.0.2.1", host)
    assert [entry.host for entry in pinning.entries()] == ["b", "c"]
    pinning.clear()
    assert pinning.entries() == []


@pytest.mark.parametrize("options", [{"after": 0}, {"expiry": 0}, {"limit": 0}, {"then": "no"}])
def test_settings_that_cannot_work_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        mitm.Pinning(**options)  # type: ignore[arg-type]
