"""Packets on their way out: what one call takes comes apart again."""

import asyncio
import errno
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, closing
from typing import Any

import pytest

pytest.importorskip("qh3")

from llama.http._h3.server.udp_send import MAX_QUEUED, Address, UdpSender
from llama.tcp._io.readiness import Port


class Sender:
    """A UDP socket that counts its calls, and fails or is full where a test wants it."""

    def __init__(self, sock: socket.socket, *errors: int) -> None:
        self.sock = sock
        self.errors = list(errors)
        self.calls = 0
        self.full = False

    def sendmsg(self, packets: list[bytes], segments: Any, flags: int, address: Address) -> int:
        if self.errors:
            raise OSError(self.errors.pop(0), "not so")
        return self.call(self.sock.sendmsg, packets, segments, flags, address)

    def sendto(self, data: bytes, address: Address) -> int:
        return self.call(self.sock.sendto, data, address)

    def call(self, send: Any, *arguments: Any) -> int:
        if self.full:
            raise BlockingIOError(errno.EAGAIN, "full")
        self.calls += 1
        sent: int = send(*arguments)
        return sent


@asynccontextmanager
async def outgoing(*errors: int) -> AsyncGenerator[tuple[UdpSender, Sender, Port]]:
    with closing(bound()) as sock:
        port, sender = Port(sock.fileno()), Sender(sock, *errors)
        made = UdpSender(sender, port)  # type: ignore[arg-type]  # what is called of it is there
        yield made, sender, port
        made.close()
        port.unregister(closing=False)


def bound() -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    sock.setblocking(False)
    return sock


async def arrived(sock: socket.socket, count: int) -> list[bytes]:
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(10):
        return [await loop.sock_recv(sock, 65536) for _ in range(count)]


def packets(*sizes: int) -> list[bytes]:
    return [bytes([number % 256]) * size for number, size in enumerate(sizes)]


@pytest.mark.skipif(not hasattr(socket, "AF_ALG"), reason="Linux takes many in one call")
async def test_packets_of_one_size_go_in_one_call() -> None:
    async with outgoing() as (out, sender, _):
        with closing(bound()) as client:
            sent = packets(*[1200] * 20, 700)
            for each in sent:
                out.send(each, client.getsockname())
            assert sender.calls == 0
            assert await arrived(client, len(sent)) == sent
            assert sender.calls == 1


async def test_what_does_not_go_together_goes_in_order() -> None:
    async with outgoing() as (out, _, _):
        with closing(bound()) as one, closing(bound()) as other:
            sent = packets(100, 1200, 1200, 50, 1, 1, 900, 900, 1000)
            for each in sent:
                out.send(each, one.getsockname())
                out.send(each, other.getsockname())
            out.send(b"last", one.getsockname())
            assert await arrived(one, len(sent) + 1) == [*sent, b"last"]
            assert await arrived(other, len(sent)) == sent


async def test_more_than_one_call_takes_all_arrives() -> None:
    async with outgoing() as (out, _, _):
        with closing(bound()) as client:
            sent = packets(*[200] * 70)
            for each in sent:
                out.send(each, client.getsockname())
            assert await arrived(client, len(sent)) == sent


@pytest.mark.parametrize("error", [errno.EIO, errno.EINVAL, errno.ENOPROTOOPT])
async def test_where_the_system_takes_one_at_a_time_it_gets_one_at_a_time(error: int) -> None:
    async with outgoing(error) as (out, sender, _):
        with closing(bound()) as client:
            sent = packets(*[600] * 10)
            for each in sent:
                out.send(each, client.getsockname())
            assert await arrived(client, len(sent)) == sent
            assert sender.calls == 10


@pytest.mark.skipif(not hasattr(socket, "AF_ALG"), reason="Linux takes many in one call")
async def test_packets_that_are_too_large_for_the_way_do_not_end_sending_together() -> None:
    async with outgoing(errno.EMSGSIZE) as (out, sender, _):
        with closing(bound()) as client:
            sent = packets(*[600] * 10)
            for each in sent:
                out.send(each, client.getsockname())
            assert await arrived(client, len(sent)) == sent
            assert sender.calls == 2


async def test_while_the_socket_is_full_packets_wait_and_those_beyond_a_bound_are_lost() -> None:
    async with outgoing() as (out, sender, port):
        with closing(bound()) as client:
            sender.full = True
            for number in range(2 * MAX_QUEUED):
                out.send(b"%d" % number, client.getsockname())
            out.flush_buffered()
            assert not port.writable
            sender.full = False
            port.handle_writable()
            assert [int(each) for each in await arrived(client, 100)] == list(range(100))
            assert not out._queue


async def test_closing_sends_what_waits() -> None:
    async with outgoing() as (out, _, _):
        with closing(bound()) as client:
            out.send(b"bye", client.getsockname())
            out.close()
            assert client.recv(100) == b"bye"
