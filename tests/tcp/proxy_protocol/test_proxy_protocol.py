"""The PROXY protocol as a layer and as a connector."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from llama import (
    ConfigError,
    ConnectionHandler,
    Extensions,
    LocalAddress,
    PeerAddress,
    Stream,
    Target,
    describe,
    serve,
    stack,
    tcp,
    testing,
)
from llama.tcp import ProxyHeader, TlvType

CLIENT, SITE = ("203.0.113.9", 5555), ("198.51.100.1", 443)
HEADER = ProxyHeader.between(CLIENT, SITE, (TlvType.AUTHORITY, b"a.example"))
PROXY = PeerAddress("10.0.0.1", 40000)
STRANGER = PeerAddress("192.0.2.1", 40000)


class Seen:
    """A handler that remembers what it was told of its client, and echoes."""

    def __init__(self) -> None:
        self.extensions: list[Extensions] = []

    async def __call__(self, stream: Stream) -> None:
        self.extensions.append(stream.extensions.fork())
        while data := await stream.read():
            await stream.write(data)

    @property
    def addresses(self) -> tuple[PeerAddress | None, LocalAddress | None]:
        (known,) = self.extensions
        return known.get(PeerAddress), known.get(LocalAddress)


@pytest.fixture
def seen() -> Seen:
    return Seen()


def guarded(handler: ConnectionHandler, **settings: bool | float) -> ConnectionHandler:
    return stack(tcp.proxy_protocol(trust=["10.0.0.0/8"], **settings), handler)  # type: ignore[arg-type]


@pytest.mark.parametrize("header", [HEADER.encode_v2(), HEADER.encode_v2(checksum=True)])
async def test_a_header_sets_the_addresses_and_its_tlvs(seen: Seen, header: bytes) -> None:
    async with testing.connect(guarded(seen), peer=PROXY) as stream:
        await stream.write(header + b"hello")
        assert await stream.read() == b"hello"
    assert seen.addresses == (PeerAddress(*CLIENT), LocalAddress(*SITE))
    assert seen.extensions[0][ProxyHeader].authority == "a.example"


async def test_a_version_1_line_sets_the_addresses_too(seen: Seen) -> None:
    async with testing.connect(guarded(seen), peer=PROXY) as stream:
        await stream.write(b"PROXY TCP6 2001:db8::9 2001:db8::1 5555 443\r\nhello")
        assert await stream.read() == b"hello"
    assert seen.addresses == (PeerAddress("2001:db8::9", 5555), LocalAddress("2001:db8::1", 443))


async def test_a_header_may_come_byte_by_byte(seen: Seen) -> None:
    async with testing.connect(guarded(seen), peer=PROXY, pair=testing.lockstep_pair) as stream:
        for byte in HEADER.encode_v2() + b"!":
            await stream.write(bytes([byte]))
        assert await stream.read() == b"!"
    assert seen.addresses == (PeerAddress(*CLIENT), LocalAddress(*SITE))


async def test_an_ipv4_mapped_address_is_ipv4(seen: Seen) -> None:
    mapped = ProxyHeader.between(("::ffff:203.0.113.9", 5555), ("::ffff:198.51.100.1", 443))
    async with testing.connect(guarded(seen), peer=PROXY) as stream:
        await stream.write(mapped.encode_v2())
    assert seen.addresses == (PeerAddress(*CLIENT), LocalAddress(*SITE))


@pytest.mark.parametrize("header", [ProxyHeader().encode_v2(), b"PROXY UNKNOWN\r\n"])
async def test_a_local_header_keeps_the_socket_addresses(seen: Seen, header: bytes) -> None:
    async with testing.connect(guarded(seen), peer=PROXY) as stream:
        await stream.write(header + b"health")
        assert await stream.read() == b"health"
    assert seen.addresses[0] == PROXY


async def test_paths_of_unix_sockets_are_not_addresses(seen: Seen) -> None:
    async with testing.connect(guarded(seen), peer=PROXY) as stream:
        await stream.write(ProxyHeader.between("10.0.0.7", "/run/site").encode_v2())
    assert seen.addresses == (PeerAddress("unix", 0), LocalAddress("/run/site", 0))


async def test_an_untrusted_header_is_passed_on_as_data(seen: Seen) -> None:
    async with testing.connect(guarded(seen), peer=STRANGER) as stream:
        await stream.write(HEADER.encode_v2())
        assert await stream.read() == HEADER.encode_v2()
    assert seen.addresses[0] == STRANGER and ProxyHeader not in seen.extensions[0]


async def test_an_untrusted_peer_is_refused_with_require(seen: Seen) -> None:
    async with testing.connect(guarded(seen, require=True), peer=STRANGER) as stream:
        assert await stream.read() == b""
    assert not seen.extensions


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "not a PROXY protocol header: first bytes 0x474554"),
        (b"PROXY TCP4 1.2.3.4\r\n", "malformed PROXY line"),
        (HEADER.encode_v2()[:12] + b"\x21\x11\xff\xff", "a PROXY header of 65551 bytes: the limit is 4096"),
        (HEADER.encode_v2()[:20], "the connection ended after 20 bytes of a PROXY header"),
    ],
)
async def test_a_trusted_peer_without_a_valid_header_is_refused(
    seen: Seen, sent: bytes, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with testing.connect(guarded(seen), peer=PROXY) as stream:
        await stream.write(sent)
        await stream.write_eof()
        with contextlib.suppress(ConnectionResetError):  # where its own end came too early
            assert await stream.read() == b""
    (record,) = caplog.records
    assert words in record.getMessage() and not seen.extensions


async def test_a_trusted_peer_that_sends_nothing_is_closed_without_a_log_line(
    seen: Seen, caplog: pytest.LogCaptureFixture
) -> None:
    async with testing.connect(guarded(seen), peer=PROXY) as stream:
        await stream.write_eof()
        assert await stream.read() == b""
    assert not seen.extensions and not caplog.records


async def test_a_header_after_the_timeout_is_an_error(seen: Seen, caplog: pytest.LogCaptureFixture) -> None:
    async with testing.clock() as clock, testing.connect(guarded(seen, timeout=3), peer=PROXY) as stream:
        await stream.write(b"PROXY TCP4 ")
        await clock.advance(3)
        assert await stream.read() == b""
    (record,) = caplog.records
    assert record.getMessage() == "no PROXY header within 3 s"


async def test_inner_layers_and_the_log_see_the_client_address(caplog: pytest.LogCaptureFixture) -> None:
    handler = stack(
        tcp.proxy_protocol(trust=["127.0.0.0/8"]), tcp.deny("203.0.113.0/24"), tcp.forward("127.0.0.1:1")
    )
    async with serve(handler, listen="127.0.0.1:0") as server:
        stream = await tcp.connect()(Target("127.0.0.1", server.port))
        await stream.write(HEADER.encode_v2())
        assert await stream.read() == b""
        await stream.aclose()
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage().startswith("203.0.113.9:5555: 203.0.113.9 is not allowed by tcp.deny")


def test_invalid_settings_are_errors() -> None:
    with pytest.raises(ConfigError, match="expected the networks"):
        tcp.proxy_protocol(trust=[])
    with pytest.raises(ConfigError, match="more than 0 seconds"):
        tcp.proxy_protocol(trust=["::1"], timeout=0)
    with pytest.raises(ConfigError, match="expected 1 or 2"):
        tcp.send_proxy(version=3)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="only version 2"):
        tcp.send_proxy(version=1, checksum=True)
    with pytest.raises(TypeError, match=r"gives Target, tcp\.forward\(127\.0\.0\.1:1\) takes Stream"):
        tcp.send_proxy(connect=tcp.forward("127.0.0.1:1"))  # type: ignore[arg-type]


def test_the_reprs_show_the_settings() -> None:
    assert describe(guarded(tcp.forward("127.0.0.1:1"))) == (
        "tcp.proxy_protocol(trust=[10.0.0.0/8]) > tcp.forward(127.0.0.1:1)"
    )
    assert describe(tcp.send_proxy(version=1)) == "tcp.send_proxy(version=1) > tcp.connect()"


@asynccontextmanager
async def recording() -> AsyncGenerator[tuple[str, Callable[[], Awaitable[bytes]]]]:
    """A target that keeps the first bytes it hears."""
    heard: asyncio.Queue[bytes] = asyncio.Queue()

    async def target(stream: Stream) -> None:
        await heard.put(await stream.read())

    async with serve(target, listen="127.0.0.1:0") as server:
        yield server.address, heard.get


@pytest.mark.parametrize("version", [1, 2])
async def test_a_sent_header_is_read_back(seen: Seen, version: int) -> None:
    behind = stack(tcp.proxy_protocol(trust=["127.0.0.1"], require=True), seen)
    async with serve(behind, listen="127.0.0.1:0") as inner:
        forward = tcp.forward(inner.address, connect=tcp.send_proxy(version=version))  # type: ignore[arg-type]
        async with serve(forward, listen="127.0.0.1:0") as outer:
            stream = await tcp.connect()(Target("127.0.0.1", outer.port))
            await stream.write(b"hello")
            assert await stream.read() == b"hello"
            mine = stream.socket.getsockname()  # type: ignore[attr-defined]
            await stream.aclose()
    assert seen.addresses == (PeerAddress(*mine), LocalAddress("127.0.0.1", outer.port))


async def test_a_chain_of_proxies_passes_on_the_original_client_address(seen: Seen) -> None:
    def trusting(handler: ConnectionHandler) -> ConnectionHandler:
        return tcp.proxy_protocol(trust=["127.0.0.1"])(handler)

    async with serve(trusting(seen), listen="127.0.0.1:0") as last:
        forward = tcp.forward(last.address, connect=tcp.send_proxy(checksum=True))
        async with serve(trusting(forward), listen="127.0.0.1:0") as first:
            stream = await tcp.connect()(Target("127.0.0.1", first.port))
            await stream.write(HEADER.encode_v2() + b"hello")
            assert await stream.read() == b"hello"
            await stream.aclose()
    assert seen.addresses == (PeerAddress(*CLIENT), LocalAddress(*SITE))


async def sent_for(extensions: Extensions) -> bytes:
    async with recording() as (address, heard):
        target = Target.parse(address).fork(extensions)
        stream = await tcp.send_proxy()(target)
        data = await heard()
        await stream.aclose()
        return data


@pytest.mark.parametrize(
    ("extensions", "header"),
    [
        (Extensions(), ProxyHeader()),
        (Extensions(PeerAddress(*CLIENT), LocalAddress(*SITE)), ProxyHeader.between(CLIENT, SITE)),
        (
            Extensions(PeerAddress("::ffff:203.0.113.9", 5555), LocalAddress("::ffff:198.51.100.1", 443)),
            ProxyHeader.between(CLIENT, SITE),
        ),
        (Extensions(PeerAddress(*CLIENT)), ProxyHeader.between(CLIENT, ("0.0.0.0", 0))),
        (
            Extensions(PeerAddress("fe80::9%eth0", 1), LocalAddress("fe80::1%eth0", 2)),
            ProxyHeader.between(("fe80::9", 1), ("fe80::1", 2)),
        ),
        (Extensions(PeerAddress("unix", 0), LocalAddress("/run/site", 0)), ProxyHeader.between(None, None)),
    ],
)
async def test_the_header_has_the_known_addresses_of_the_client(
    extensions: Extensions, header: ProxyHeader
) -> None:
    assert await sent_for(extensions) == header.encode_v2()


async def test_the_tlvs_function_gets_the_target() -> None:
    def tlvs(target: Target) -> list[tcp.Tlv]:
        return [(TlvType.UNIQUE_ID, f"to port {target.port}".encode())]

    async with recording() as (address, heard):
        target = Target.parse(address).fork(Extensions(PeerAddress(*CLIENT), LocalAddress(*SITE)))
        stream = await tcp.send_proxy(tlvs=tlvs)(target)
        header = await heard()
        await stream.aclose()
    assert (
        header
        == ProxyHeader.between(CLIENT, SITE, (TlvType.UNIQUE_ID, b"to port %d" % target.port)).encode_v2()
    )


async def test_the_local_address_is_read_from_the_socket_once(tmp_path: Path) -> None:
    found: list[tuple[LocalAddress | None, LocalAddress | None]] = []

    async def handler(stream: Stream) -> None:
        known = stream.extensions.fork()
        late = stream.extensions.fork()
        first = tcp.local_address(known)
        await stream.aclose()
        found.append((first, tcp.local_address(late)))
        assert tcp.local_address(known) == first

    path = f"unix:{tmp_path / 'socket'}"
    async with serve(tcp.server("127.0.0.1:0", handler), tcp.server(path, handler)) as server:
        for target in (Target("127.0.0.1", server.port), Target(path, 0)):
            stream = await tcp.connect()(target)
            assert await stream.read() == b""
            await stream.aclose()
    assert found == [
        (LocalAddress("127.0.0.1", server.port), None),
        (LocalAddress(str(tmp_path / "socket"), 0), None),
    ]
    assert tcp.local_address(Extensions()) is None
