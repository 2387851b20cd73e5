"""How long after one side of an HTTP exchange has left the other side sees it, through a proxy.

It is the client and the upstream in one process, so that one clock tells both times: a response has begun, its
first bytes have arrived, then the client closes (`--direction up`) or the upstream breaks off (`down`): when all
exchanges have run for `--hold` seconds, one after another. It reports the median and the longest delay in
milliseconds.
"""

from __future__ import annotations

import json
import socket
import statistics
import sys
import time
from collections.abc import Iterator

from benchmarks.load.driver import Options, options, wait_for_go

REQUEST = b"GET /stream HTTP/1.1\r\nhost: localhost\r\n\r\n"
BEGUN = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nbegun\r\n"


def exchange(given: Options, listener: socket.socket) -> tuple[socket.socket, socket.socket]:
    """A client and its upstream, a response between them begun and not ended."""
    client = socket.create_connection(given.address, 10)
    client.sendall(REQUEST)
    upstream = listener.accept()[0]
    upstream.settimeout(10)
    read_until(upstream, b"\r\n\r\n")
    upstream.sendall(BEGUN)
    read_until(client, b"begun\r\n")
    return client, upstream


def read_until(sock: socket.socket, end: bytes) -> None:
    """Read up to some bytes."""
    seen = b""
    while end not in seen:
        data = sock.recv(65536)
        if not data:
            raise ConnectionError(f"the exchange ended after {seen[-200:]!r}")
        seen += data


def read_to_end(sock: socket.socket) -> None:
    """Read until the other side has closed or reset."""
    try:
        while sock.recv(65536):
            pass
    except ConnectionError:
        pass


def delay(leaves: socket.socket, stays: socket.socket) -> float:
    """Seconds from one side's leaving until the other sees it."""
    with leaves, stays:
        begun = time.perf_counter()
        leaves.close()
        read_to_end(stays)
        return time.perf_counter() - begun


def delays(given: Options, listener: socket.socket) -> Iterator[float]:
    """The delay of each exchange; without a hold there is one at a time, which ends as soon as it has begun."""
    together = given.amount if given.hold else 1
    for _ in range(given.amount // together):
        pairs = [exchange(given, listener) for _ in range(together)]
        time.sleep(given.hold)
        for client, upstream in pairs:
            yield delay(client, upstream) if given.direction == "up" else delay(upstream, client)


def main() -> None:
    given = options()
    with socket.create_server(("127.0.0.1", given.to), backlog=1024) as listener:
        listener.settimeout(10)
        wait_for_go()
        found = [seconds * 1000 for seconds in delays(given, listener)]
    figures = {"median": statistics.median(found), "longest": max(found)}
    print(json.dumps({"units": given.amount, **figures}), flush=True)
    sys.stdin.readline()


if __name__ == "__main__":
    main()
