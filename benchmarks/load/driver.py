"""What the load generators share: clients as generators on one epoll loop, and the talk with the harness."""

from __future__ import annotations

import argparse
import json
import select
import signal
import socket
import ssl
import sys
import time
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass

IN, OUT = select.EPOLLIN, select.EPOLLOUT
BUFFER = memoryview(bytearray(1 << 20))
GREETING = b"\5\1\0"  # SOCKS5, one method: no authentication
Client = Generator[int, None, None]
"""One client at work on its socket: yields the events it waits for."""


@dataclass(slots=True)
class Options:
    """What the harness asks for."""

    address: tuple[str, int]
    to: int
    tls: bool
    socks: bool
    tunnel: bool
    amount: int
    connections: int
    size: int
    direction: str
    absolute: bool
    hold: float
    seconds: float

    @property
    def deadline(self) -> float:
        return time.monotonic() + self.seconds


def options() -> Options:
    """The command line; from here the process has a bounded life."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--to", type=int, default=0, help="the origin's port")
    parser.add_argument("--tls", action="store_true")
    parser.add_argument("--socks", action="store_true", help="ask the proxy for the origin by SOCKS5")
    parser.add_argument("--tunnel", action="store_true", help="ask the proxy for the origin by CONNECT")
    parser.add_argument("--amount", type=int, default=1)
    parser.add_argument("--connections", type=int, default=1)
    parser.add_argument("--size", type=int, default=600)
    parser.add_argument("--direction", choices=["down", "up"], default="down")
    parser.add_argument("--absolute", action="store_true", help="ask for the origin's URL, as of a proxy")
    parser.add_argument("--hold", type=float, default=0.0, help="seconds")
    parser.add_argument("--seconds", type=float, default=20.0)
    given = parser.parse_args()
    signal.alarm(int(given.seconds) + 120)
    address = ("127.0.0.1", given.port)
    return Options(address, **{name: value for name, value in vars(given).items() if name != "port"})


def wait_for_go() -> None:
    """Tell the harness that the connections stand, and wait until it has read the clock."""
    print("ready", flush=True)
    sys.stdin.readline()


def report(units: float) -> None:
    """Tell the harness what was done, and keep the connections until it has read the clock."""
    print(json.dumps({"units": units}), flush=True)
    sys.stdin.readline()


def trusting_context() -> ssl.SSLContext:
    """TLS 1.3 without resumption and without a check of the certificate's chain."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context


def connect(address: tuple[str, int], context: ssl.SSLContext | None) -> socket.socket:
    """A connected, non-blocking socket, after its handshake where there is a context."""
    sock = socket.create_connection(address, 30)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if context is not None:
        sock = context.wrap_socket(sock, server_hostname="localhost")
    sock.setblocking(False)
    return sock


def connect_through(given: Options, context: ssl.SSLContext | None) -> socket.socket:
    """A connection through the proxy as the options want it."""
    if not given.socks:
        return connect(given.address, context)
    sock = socket.create_connection(given.address, 30)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for message in (GREETING, socks_request(given.to)):
        sock.sendall(message)
        check_socks(sock.recv(64))
    sock.setblocking(False)
    return sock


def socks_request(port: int) -> bytes:
    """CONNECT to a port of the loopback."""
    return b"\5\1\0\1\x7f\0\0\1" + port.to_bytes(2, "big")


def check_socks(answer: bytes) -> None:
    """A SOCKS5 server's yes: `5 0`, with more behind it after a request."""
    if answer[:2] != b"\5\0":
        raise ConnectionError(f"the proxy's SOCKS5 answer is {answer[:32]!r}")


def receive(sock: socket.socket) -> int:
    """Bytes read into the shared buffer, -1 when there are none yet."""
    try:
        return sock.recv_into(BUFFER)
    except (BlockingIOError, ssl.SSLWantReadError):
        return -1


def receive_all(sock: socket.socket, size: int) -> Client:
    """Wait until so many bytes have come."""
    while size:
        yield IN
        while size and (got := receive(sock)) >= 0:
            if not got:
                raise ConnectionError(f"the proxy closed a connection {size} bytes before the end")
            size -= got


def send(sock: socket.socket, data: memoryview) -> int:
    """Bytes that the socket took."""
    try:
        return sock.send(data)
    except (BlockingIOError, ssl.SSLWantWriteError):
        return 0


def drive(clients: Iterable[tuple[socket.socket, Client]], together: int, deadline: float) -> bool:
    """Run the clients, so many at a time, a new one when one ends; False when the deadline came first."""
    return _Loop(iter(clients), deadline).run(together)


class _Loop:
    def __init__(self, waiting: Iterator[tuple[socket.socket, Client]], deadline: float) -> None:
        self.waiting = waiting
        self.deadline = deadline
        self.epoll = select.epoll()
        self.active: dict[int, tuple[Client, int]] = {}

    def run(self, together: int) -> bool:
        while len(self.active) < together and self._start():
            pass
        while self.active:
            if time.monotonic() > self.deadline:
                return False
            for fd, _ in self.epoll.poll(1):
                self._step(fd)
        return True

    def _start(self) -> bool:
        for sock, client in self.waiting:
            fd = sock.fileno()
            try:
                events = next(client)
            except StopIteration:
                continue
            self.epoll.register(fd, events)
            self.active[fd] = (client, events)
            return True
        return False

    def _step(self, fd: int) -> None:
        client, events = self.active[fd]
        try:
            wanted = next(client)
        except StopIteration:
            del self.active[fd]
            self._forget(fd)
            self._start()
            return
        if wanted != events:
            self.epoll.modify(fd, wanted)
            self.active[fd] = (client, wanted)

    def _forget(self, fd: int) -> None:
        try:
            self.epoll.unregister(fd)
        except OSError:
            pass  # the client closed it
