"""HTTP/1.1 requests in TLS through a forward proxy that looks inside, on kept connections."""

from __future__ import annotations

import socket
import ssl

from benchmarks.load.driver import (
    Options,
    drive,
    options,
    report,
    trusting_context,
    wait_for_go,
)
from benchmarks.load.http import request, requests


def tunnel(given: Options, name: str = "localhost", context: ssl.SSLContext | None = None) -> socket.socket:
    """A TLS session with the origin by some name, for which the proxy answers."""
    sock = socket.create_connection(given.address, 30)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.sendall(f"CONNECT localhost:{given.to} HTTP/1.1\r\nHost: localhost:{given.to}\r\n\r\n".encode())
    answer = sock.recv(4096)
    if not answer.startswith(b"HTTP/1.1 200") or not answer.endswith(b"\r\n\r\n"):
        raise ConnectionError(f"the proxy's answer is {answer!r}")
    session = (context or trusting_context()).wrap_socket(sock, server_hostname=name)
    session.setblocking(False)
    return session


def main() -> None:
    given = options()
    socks = [tunnel(given) for _ in range(given.connections)]
    message = request(given)
    drive(((sock, requests(sock, message, 5)) for sock in socks), given.connections, given.deadline)
    wait_for_go()
    times = given.amount // given.connections
    clients = ((sock, requests(sock, message, times)) for sock in socks)
    if not drive(clients, given.connections, given.deadline):
        raise TimeoutError(f"fewer than {given.amount} requests in {given.seconds} s")
    report(times * given.connections)


if __name__ == "__main__":
    main()
