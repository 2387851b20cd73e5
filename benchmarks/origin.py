"""What stands behind the proxies: one epoll process, a port for each service. It ends when its standard input does.

`echo` sends back what it gets. `give` reads 8 bytes, a length, and sends that many. `take` reads 8 bytes,
a length, then that many, and answers with 8 bytes. `http` answers every HTTP/1.1 request without a body by the
same kilobyte, in a head such as a web server's for a file.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import time
from collections.abc import Callable, Generator
from email.utils import formatdate
from functools import lru_cache

CHUNK = memoryview(bytes(range(256)) * 1024)
BUFFER = memoryview(bytearray(1 << 18))
ANSWER = (
    b"HTTP/1.1 200 OK\r\nServer: origin\r\nDate: %b\r\nContent-Type: text/html\r\n"
    b"Content-Length: 1024\r\nLast-Modified: Mon, 01 Jan 2024 00:00:00 GMT\r\nConnection: keep-alive\r\n"
    b'ETag: "65920080-400"\r\nAccept-Ranges: bytes\r\n\r\n' + b"x" * 1024
)
Peer = Generator[int, None, None]  # yields the events it waits for


def _echo(sock: socket.socket) -> Peer:
    yield select.EPOLLIN
    while size := sock.recv_into(BUFFER):
        sent = _try_send(sock, BUFFER[:size])
        if sent < size:
            yield from _send(sock, memoryview(bytes(BUFFER[sent:size])))
        yield select.EPOLLIN


def _send(sock: socket.socket, data: memoryview) -> Peer:
    while data:
        yield select.EPOLLOUT
        data = data[_try_send(sock, data) :]


def _try_send(sock: socket.socket, data: memoryview) -> int:
    try:
        return sock.send(data)
    except BlockingIOError:
        return 0


def _length(sock: socket.socket) -> Generator[int, None, int]:
    head = b""
    while len(head) < 8:
        yield select.EPOLLIN
        data = sock.recv(8 - len(head))
        if not data:
            raise ConnectionError("the client left before it said a length")
        head += data
    return int.from_bytes(head, "big")


def _give(sock: socket.socket) -> Peer:
    left = yield from _length(sock)
    while left:
        yield select.EPOLLOUT
        left -= _try_send(sock, CHUNK[: min(left, len(CHUNK))])
    yield select.EPOLLIN  # the client closes


def _take(sock: socket.socket) -> Peer:
    left = yield from _length(sock)
    while left > 0:
        yield select.EPOLLIN
        size = sock.recv_into(BUFFER)
        if not size:
            return
        left -= size
    sock.send(bytes(8))
    yield select.EPOLLIN


@lru_cache(1)
def _answer(now: int) -> bytes:
    return ANSWER % formatdate(now, usegmt=True).encode()


def _http(sock: socket.socket) -> Peer:
    asked = b""
    while True:
        yield select.EPOLLIN
        size = sock.recv_into(BUFFER)
        if not size:
            return
        asked += BUFFER[:size]
        whole = asked.count(b"\r\n\r\n")
        if whole:
            asked = asked[asked.rfind(b"\r\n\r\n") + 4 :]
            answers = memoryview(_answer(int(time.time())) * whole)
            yield from _send(sock, answers[_try_send(sock, answers) :])


SERVICES: dict[str, Callable[[socket.socket], Peer]] = {
    "echo": _echo,
    "give": _give,
    "take": _take,
    "http": _http,
}


class Origin:
    """The loop: listeners, and one generator for each connection."""

    def __init__(self) -> None:
        self.epoll = select.epoll()
        self.listeners: dict[int, tuple[socket.socket, Callable[[socket.socket], Peer]]] = {}
        self.peers: dict[int, tuple[socket.socket, Peer, int]] = {}

    def listen(self, service: Callable[[socket.socket], Peer]) -> int:
        sock = socket.create_server(("127.0.0.1", 0), backlog=4096)
        sock.setblocking(False)
        self.listeners[sock.fileno()] = (sock, service)
        self.epoll.register(sock, select.EPOLLIN)
        port: int = sock.getsockname()[1]
        return port

    def run(self) -> None:
        stdin = sys.stdin.fileno()
        self.epoll.register(stdin, select.EPOLLIN | select.EPOLLHUP)
        while True:
            for fd, _ in self.epoll.poll():
                if fd == stdin:
                    return
                if fd in self.listeners:
                    self._accept(*self.listeners[fd])
                else:
                    self._step(fd)

    def _accept(self, listener: socket.socket, service: Callable[[socket.socket], Peer]) -> None:
        for _ in range(64):
            try:
                sock, _address = listener.accept()
            except BlockingIOError:
                return
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            peer = service(sock)
            events = next(peer)
            self.peers[sock.fileno()] = (sock, peer, events)
            self.epoll.register(sock, events)

    def _step(self, fd: int) -> None:
        sock, peer, events = self.peers[fd]
        try:
            wanted = next(peer)
        except (StopIteration, OSError):
            del self.peers[fd]
            sock.close()
            return
        if wanted != events:
            self.epoll.modify(fd, wanted)
            self.peers[fd] = (sock, peer, wanted)


def main() -> None:
    origin = Origin()
    print(json.dumps({name: origin.listen(service) for name, service in SERVICES.items()}), flush=True)
    origin.run()


if __name__ == "__main__":
    main()
