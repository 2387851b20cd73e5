"""BIND of the server: accepts one connection for a client (RFC 1928, section 4)."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from llama._core.errors import StreamClosedError, TooLargeError
from llama._core.server import PeerAddress
from llama._core.stream import Stream
from llama._core.target import Target
from llama.layers._peer_key import packed_address
from llama.socks5._rules import Rule, check
from llama.socks5._server_handshake import ClientRequest
from llama.socks5._wire.address import Address
from llama.socks5._wire.socks5 import ReplyCode
from llama.tcp._connect import resolve
from llama.tcp._io.bind import bind
from llama.tcp._io.readiness import Port
from llama.tcp._io.stream import SocketStream
from llama.tcp._policy.address_filter import (
    AddressFilter,
    arrived_on_loopback,
    is_public,
    restrict_for_client,
)

EARLY_DATA_LIMIT = 65536


async def peers(asked: ClientRequest, rules: Rule | None, private: bool | None) -> Callable[[str], bool]:
    """Return the addresses of the host that the client named, which may connect; raises RefusedError by the rules."""
    named = Target(*asked.address)
    await check(rules, asked.user, named)
    expected = await _expected_hosts(asked.address)
    if private is None:
        private = arrived_on_loopback(asked.stream.extensions)
    if expected:
        restrict_for_client(named, asked.stream.extensions, private)
    only = named.extensions.get(AddressFilter)

    def admits(host: str) -> bool:
        return (
            (not expected or packed_address(host) in expected)
            and (private or is_public(host))
            and (only is None or only.allows(host))
        )

    return admits


async def _expected_hosts(address: Address) -> frozenset[bytes]:
    """Return the packed addresses of the host that the client named; empty for any address."""
    found = [address.host] if packed_address(address.host) else await resolve(address.host, address.port)
    raws = frozenset(raw for each in found if (raw := packed_address(each)) is not None)
    return frozenset() if any(not any(raw) for raw in raws) else raws


async def wait_for_peer(
    asked: ClientRequest, host: str, admits: Callable[[str], bool], seconds: float | None
) -> tuple[PeerAddress, Stream]:
    """Listen, reply with the address, and wait for a peer from an address that `admits` allows.

    Raises StreamClosedError if the client disconnects first, and TimeoutError if no peer connects within `seconds`.
    Data that the client sends meanwhile stays in its stream.
    """
    listener = bind((host, 0), 8)[0]
    clock = asyncio.timeout(seconds)
    try:
        await asked.reply(ReplyCode.SUCCEEDED, Address(*listener.getsockname()[:2]))
        async with clock:
            return await _first(asked.stream, listener, admits)
    except TimeoutError as error:
        if not clock.expired():
            raise
        raise TimeoutError(f"no peer connected within {seconds:g} s") from error
    finally:
        listener.close()


async def _first(
    client: Stream, listener: socket.socket, admits: Callable[[str], bool]
) -> tuple[PeerAddress, Stream]:
    early: list[bytes] = []
    found: list[tuple[PeerAddress, Stream]] = []
    done = False
    try:
        async with asyncio.TaskGroup() as group:
            watch = group.create_task(_watch(client, early))
            found.append(await _accept(listener, admits))
            watch.cancel()
        done = True
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    finally:
        if not done and found:
            found[0][1].abort()
    if early:
        client.unread(b"".join(early))
    return found[0]


async def _watch(client: Stream, early: list[bytes]) -> None:
    """Buffer the client's data until the peer has connected; raises StreamClosedError if the client disconnects."""
    count = 0
    while data := await client.read():
        early.append(data)
        count += len(data)
        if count > EARLY_DATA_LIMIT:
            raise TooLargeError(
                f"the client sent more than {EARLY_DATA_LIMIT} bytes before its peer had connected"
            )
    raise StreamClosedError("the client disconnected before its peer had connected")


async def _accept(listener: socket.socket, admits: Callable[[str], bool]) -> tuple[PeerAddress, Stream]:
    port = Port(listener.fileno())
    try:
        while True:
            try:
                sock, name = listener.accept()
            except BlockingIOError:
                port.clear_readable()
                await port.wait_readable()
                continue
            if not admits(str(name[0])):
                sock.close()
                continue
            sock.setblocking(False)
            peer = PeerAddress(str(name[0]), int(name[1]))
            return peer, SocketStream(sock, peer)
    finally:
        port.unregister(closing=False)


class Accepted:
    """A connector that returns the accepted peer's stream; it cannot open another."""

    __slots__ = ("stream",)

    __input_type__ = Target

    def __init__(self, stream: Stream) -> None:
        self.stream = stream

    async def __call__(self, target: Target, /) -> Stream:
        return self.stream
