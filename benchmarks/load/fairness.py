"""How long a small request takes over HTTP/2 beside `--connections` large responses on the same connection.

It is the client, and in a second process the origin. The large responses have no end; they are read as fast as they
come (`--direction down`), or not at all (`up`), so that each stalls when its window is full. Small requests are then
made one after another. It reports the median, the 99th percentile and the longest time of one, in milliseconds.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import statistics
import sys
import threading
import time

from benchmarks.load.driver import Options, options, wait_for_go
from llama.http._h2.wire.fields import RequestHead, ResponseHead
from llama.http._h2.wire.protocol import H2Protocol
from llama.http._h2.wire.stream import Stream
from llama.http._messages.headers import Headers

SMALL = b"HTTP/1.1 200 OK\r\ncontent-length: 1024\r\n\r\n" + b"x" * 1024
LARGE = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % (1 << 40)
CHUNK = bytes(1 << 18)
KEPT = 1 << 18  # bytes in the client's kernel, so that what queues does so at the proxy
SETTLING = 0.5  # seconds for large responses to begin, or to stall


def origin(listener: socket.socket) -> None:
    """Answer on each connection in a thread, until the process is ended."""
    while True:
        threading.Thread(target=_answer, args=(listener.accept()[0],), daemon=True).start()


def _answer(sock: socket.socket) -> None:
    head = b""
    try:
        while data := sock.recv(65_536):
            head += data
            if not head.endswith(b"\r\n\r\n"):
                continue
            if head.startswith(b"GET /large"):
                sock.sendall(LARGE)
                while True:
                    sock.sendall(CHUNK)
            head = b""
            sock.sendall(SMALL)
    except OSError:
        pass


class Client:
    """One connection, on which what comes is read when there is something to wait for."""

    def __init__(self, given: Options) -> None:
        raw = socket.socket()
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, KEPT)
        raw.settimeout(20)
        raw.connect(given.address)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.set_alpn_protocols(["h2"])
        self.sock: ssl.SSLSocket = context.wrap_socket(raw, server_hostname="localhost")
        if self.sock.selected_alpn_protocol() != "h2":
            raise ConnectionError("no HTTP/2 was agreed on")
        self.engine = H2Protocol(self, client=True)

    def open(self, path: str, *, is_read: bool) -> Answer:
        """Ask for something."""
        answer = Answer(self, is_read=is_read)
        fields = [(":method", "GET"), (":scheme", "https"), (":authority", "localhost"), (":path", path)]
        answer.stream = self.engine.open(answer, fields, end=True)
        self.flush()
        return answer

    def flush(self) -> None:
        if data := self.engine.take():
            self.sock.sendall(data)

    def more(self) -> None:
        """Take what comes next."""
        data = self.sock.recv(1 << 16)
        if not data:
            raise ConnectionError("the proxy left")
        self.engine.receive(data)
        self.flush()

    def request(self, stream: Stream, head: RequestHead, ended: bool) -> None: ...
    def refused(self, stream: Stream, error: Exception, ended: bool) -> None: ...
    def settings_changed(self) -> None: ...
    def window(self) -> None: ...
    def goaway(self, last: int, code: int, text: bytes) -> None: ...
    def pong(self, payload: bytes) -> None: ...


class Answer:
    """A response, which is read, or left where it is."""

    stream: Stream

    def __init__(self, client: Client, *, is_read: bool) -> None:
        self.client = client
        self.is_read = is_read
        self.size = 0
        self.ended = False

    def data(self, data: bytes, ended: bool) -> None:
        self.size += len(data)
        self.ended = ended
        if self.is_read:
            self.client.engine.consumed(self.stream, len(data))

    def reset(self, code: int, by_peer: bool) -> None:
        raise ConnectionError(f"{self.stream} was reset with code {code}")

    def response(self, head: ResponseHead, ended: bool) -> None: ...
    def interim(self, head: ResponseHead) -> None: ...
    def trailers(self, headers: Headers) -> None: ...
    def window(self) -> None: ...


def settle(client: Client, large: list[Answer]) -> None:
    """Until every large response has begun, and then for a while."""
    until = time.monotonic() + SETTLING
    client.sock.settimeout(0.1)
    while time.monotonic() < until or not all(each.size for each in large):
        try:
            client.more()
        except TimeoutError:
            pass
    client.sock.settimeout(20)


def delays(client: Client, amount: int) -> list[float]:
    """How long small requests take, in milliseconds."""
    found: list[float] = []
    for _ in range(amount):
        begun = time.perf_counter()
        answer = client.open("/small", is_read=True)
        while not answer.ended:
            client.more()
        found.append((time.perf_counter() - begun) * 1000)
    return sorted(found)


def main() -> None:
    given = options()
    with socket.create_server(("127.0.0.1", given.to), backlog=1024) as listener:
        child = os.fork()
        if not child:
            signal.alarm(int(given.seconds) + 120)
            origin(listener)
    try:
        client = Client(given)
        large = [client.open("/large", is_read=given.direction == "down") for _ in range(given.connections)]
        settle(client, large)
        wait_for_go()
        found = delays(client, given.amount)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    figures = {
        "median": statistics.median(found),
        "most": found[len(found) * 99 // 100],
        "longest": found[-1],
    }
    print(json.dumps({"units": given.amount, **figures}), flush=True)
    sys.stdin.readline()


if __name__ == "__main__":
    main()
