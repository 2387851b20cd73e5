"""Connections that each made one round trip and then do nothing."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor

from benchmarks.load.driver import connect as plainly
from benchmarks.load.driver import options, report, trusting_context, wait_for_go

REQUEST = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n"  # an echo sends it back, an HTTP server answers it


def main() -> None:
    given = options()
    context = trusting_context() if given.tls else None

    def connect(_: int) -> socket.socket:
        sock = plainly(given.address, context)
        sock.settimeout(30)
        sock.sendall(REQUEST)
        if not sock.recv(65536):
            raise ConnectionError("the proxy closed a connection that it should hold")
        return sock

    wait_for_go()
    with ThreadPoolExecutor(4) as pool:
        socks = list(pool.map(connect, range(given.amount)))
    report(len(socks))


if __name__ == "__main__":
    main()
