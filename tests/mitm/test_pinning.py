"""Clients that take no certificate but the one they know."""

import asyncio
from dataclasses import dataclass
from typing import cast

import pytest

from llama import ConfigError, Meter, Stream, Target, TLSError, TruncatedError, http, mitm, tls
from llama.http import Request
from llama.mitm._pinning import HandshakeObserver
from llama.tls._stream import TLSStream
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


async def test_a_pinning_client_is_passed_through_after_the_configured_rejections(world: World) -> None:
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


async def test_a_pinning_client_is_refused_with_then_block(world: World) -> None:
    async with fronted(world, world.https(), pinning=(pinning := Told(1, action="block"))) as front:
        await refused(world, front, pinning)
        with pytest.raises(TLSError, match="access_denied"):
            await pinned(world, front)


async def test_pinning_is_off_by_default(world: World) -> None:
    async with fronted(world, world.https()) as front:
        for _ in range(5):
            await refused(world, front)


async def test_an_accepted_certificate_resets_the_count(world: World) -> None:
    pinning = Told(2)
    async with fronted(world, world.https(), pinning=pinning) as front:
        await refused(world, front, pinning)
        assert (await front.get())[0] == 200
        assert pinning.entries() == []


async def shaken(world: World, front: Front) -> Stream:
    """A client that trusts the proxy, after its handshake."""
    over = http.connect(f"127.0.0.1:{front.port}")
    return await tls.connect(over, ca=world.pem, alpn=["http/1.1"])(Target(HOST, 443))


async def test_close_notify_right_after_the_handshake_is_a_rejection(world: World) -> None:
    pinning = Told(2)
    async with fronted(world, world.https(), pinning=pinning) as front:
        for count in (1, 2):
            await (await shaken(world, front)).aclose()
            await pinning.counted.wait()
            pinning.counted.clear()
            assert [entry.count for entry in pinning.entries()] == [count]
        assert await pinned(world, front) == b"GET /p from the cloud"


async def test_the_first_bytes_of_a_client_decide(world: World) -> None:
    pinning = Told(3)
    async with fronted(world, world.https(), pinning=pinning) as front:
        await refused(world, front, pinning)
        before = await shaken(world, front)
        assert [entry.count for entry in pinning.entries()] == [1]  # shaking hands alone clears nothing
        await before.write(b"GET / HTTP/1.1\r\nHost: site.example\r\n\r\n")
        assert (await before.read()).startswith(b"HTTP/1.1 200")
        assert pinning.entries() == []
        await before.aclose()


@dataclass
class Session:
    """Stands for a TLS session: how its peer ended."""

    close_reason: Exception | bool

    def attach(self, meter: Meter) -> None: ...

    def detach(self, meter: Meter) -> None: ...


@pytest.mark.parametrize(
    ("close_reason", "error", "after", "count"),
    [
        (True, None, 0.4, 1),  # close_notify
        (True, ConnectionResetError(), 0.4, 1),  # which a write met before close_notify was read
        (True, None, 0.6, 0),
        (TruncatedError("no close_notify"), None, 0.04, 1),
        (TruncatedError("no close_notify"), None, 0.06, 0),  # as a browser that connected ahead does
        (False, ConnectionResetError(), 0.04, 1),
        (False, ConnectionResetError(), 0.06, 0),
        (False, None, 0, 0),  # we left
        (False, TimeoutError(), 0, 0),
        (TLSError("the peer sent the alert bad_certificate"), None, 9, 1),
        (TLSError("the peer sent the alert certificate_unknown"), None, 9, 1),
        (TLSError("the peer sent the alert decode_error"), None, 0, 0),
    ],
)
def test_the_way_of_disconnecting_decides_whether_it_is_a_rejection(
    close_reason: Exception | bool, error: Exception | None, after: float, count: int
) -> None:
    now = 100.0
    pinning = mitm.Pinning(clock=lambda: now)
    trial = HandshakeObserver(pinning, "192.0.2.1", HOST, cast("TLSStream", Session(close_reason)))
    now += after
    trial.closed(error)
    assert sum(entry.count for entry in pinning.entries()) == count


def test_a_disconnect_after_an_accepted_certificate_is_not_a_rejection() -> None:
    """Browsers shake hands more often than they need, and drop what turns out to be too much."""
    now = 100.0
    pinning = mitm.Pinning(1, 60, clock=lambda: now)

    def leaves(close_reason: Exception | bool = True) -> int:
        HandshakeObserver(pinning, "192.0.2.1", HOST, cast("TLSStream", Session(close_reason))).closed(None)
        return len(pinning.entries())

    pinning.accepted("192.0.2.1", HOST)
    assert leaves() == 0
    assert leaves(TLSError("the peer sent the alert unknown_ca")) == 1  # which is plain
    pinning.clear(HOST)
    assert leaves() == 1
    pinning.accepted("192.0.2.1", HOST)
    assert leaves() == 0
    now += 61
    assert leaves() == 1


def test_silent_disconnects_may_be_ignored() -> None:
    pinning = mitm.Pinning(early_close_window=None)
    HandshakeObserver(pinning, "192.0.2.1", HOST, cast("TLSStream", Session(True))).closed(None)
    assert pinning.entries() == []


def test_an_accepted_certificate_expires() -> None:
    pinning = mitm.Pinning(1, limit=2)
    for host in ("a", "b", "c"):
        pinning.accepted("192.0.2.1", host)
    assert [pinning.has_accepted("192.0.2.1", host) for host in ("a", "b", "c")] == [False, True, True]


def test_rejections_expire() -> None:
    now = 100.0
    pinning = mitm.Pinning(2, 60, clock=lambda: now)
    pinning.rejected("192.0.2.1", HOST)
    pinning.rejected("192.0.2.1", HOST)
    assert pinning.action_for("192.0.2.1", HOST) == "passthrough"
    assert pinning.action_for("192.0.2.2", HOST) is None
    assert pinning.action_for("192.0.2.1", "other.example") is None
    now = 159.9
    assert pinning.action_for("192.0.2.1", HOST) == "passthrough"
    now = 160
    assert pinning.action_for("192.0.2.1", HOST) is None
    assert pinning.entries() == []


def test_the_oldest_entry_is_evicted_first() -> None:
    pinning = mitm.Pinning(1, limit=2)
    for host in ("a", "b", "c"):
        pinning.rejected("192.0.2.1", host)
    assert [entry.host for entry in pinning.entries()] == ["b", "c"]
    pinning.clear()
    assert pinning.entries() == []


@pytest.mark.parametrize(
    "options", [{"threshold": 0}, {"ttl": 0}, {"limit": 0}, {"early_close_window": 0}, {"action": "no"}]
)
def test_invalid_settings_are_rejected(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        mitm.Pinning(**options)  # type: ignore[arg-type]
