"""Short connections: connect, the handshake where there is TLS, one request and its response, close.

With `--size 0` there is no request: what the server sends after the handshake, its tickets, is read and the
connection is closed orderly. With `--socks` or `--tunnel` the origin is asked for by SOCKS5 or by
HTTP's CONNECT first.
"""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Iterator

from benchmarks.load.driver import (
    BUFFER,
    GREETING,
    IN,
    OUT,
    Client,
    Options,
    check_socks,
    drive,
    options,
    receive,
    receive_all,
    report,
    socks_request,
    trusting_context,
    wait_for_go,
)


def begin(address: tuple[str, int]) -> socket.socket:
    """A socket that is connecting."""
    sock = socket.socket()
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    failure = sock.connect_ex(address)
    if failure not in (0, errno.EINPROGRESS):
        raise OSError(failure, "connect failed")
    return sock


def plain(sock: socket.socket, message: bytes) -> Client:
    """Connected, a round trip, closed."""
    yield OUT
    with sock:
        yield from _round_trip(sock, message)


def socks(sock: socket.socket, message: bytes, to: int) -> Client:
    """Connected, greeted, asked for the origin, a round trip, closed."""
    yield OUT
    with sock:
        for words in (GREETING, socks_request(to)):
            sock.send(words)
            yield IN
            check_socks(bytes(BUFFER[: max(0, receive(sock))]))
        yield from _round_trip(sock, message)


def tunnel(sock: socket.socket, message: bytes, to: int) -> Client:
    """Connected, a tunnel to the origin, a round trip, closed."""
    yield OUT
    with sock:
        sock.send(f"CONNECT 127.0.0.1:{to} HTTP/1.1\r\nHost: 127.0.0.1:{to}\r\n\r\n".encode())
        yield IN
        answer = bytes(BUFFER[: max(0, receive(sock))])
        if not answer.startswith(b"HTTP/1.1 200") or not answer.endswith(b"\r\n\r\n"):
            raise ConnectionError(f"the proxy's answer to CONNECT is {answer[:100]!r}")
        yield from _round_trip(sock, message)


def secure(sock: socket.socket, message: bytes, context: ssl.SSLContext) -> Client:
    """Connected, a full handshake, a round trip, close_notify both ways, closed."""
    yield OUT
    with context.wrap_socket(sock, do_handshake_on_connect=False, server_hostname="localhost") as wrapped:
        while not _shaken(wrapped):
            yield IN
        if message:
            yield from _round_trip(wrapped, message)
        else:
            yield IN
            receive(wrapped)
        while not _unwrapped(wrapped):
            yield IN


def _shaken(sock: ssl.SSLSocket) -> bool:
    try:
        sock.do_handshake()
    except ssl.SSLWantReadError:
        return False
    return True


def _unwrapped(sock: ssl.SSLSocket) -> bool:
    try:
        sock.unwrap()
    except ssl.SSLWantReadError:
        return False
    except OSError:
        pass  # the proxy closed without close_notify
    return True


def _round_trip(sock: socket.socket, message: bytes) -> Client:
    sock.send(message)
    yield from receive_all(sock, len(message))


def clients(given: Options, done: list[int]) -> Iterator[tuple[socket.socket, Client]]:
    """One client for each connection, begun when it is asked for."""
    context = trusting_context() if given.tls else None
    message = b"x" * given.size
    for _ in range(given.amount):
        sock = begin(given.address)
        if given.socks:
            yield sock, socks(sock, message, given.to)
        elif given.tunnel:
            yield sock, tunnel(sock, message, given.to)
        else:
            yield sock, plain(sock, message) if context is None else secure(sock, message, context)
        done[0] += 1


def main() -> None:
    given = options()
    wait_for_go()
    started = [0]
    if not drive(clients(given, started), given.connections, given.deadline):
        raise TimeoutError(f"fewer than {given.amount} connections in {given.seconds} s, {started[0]} begun")
    report(given.amount)


if __name__ == "__main__":
    main()
