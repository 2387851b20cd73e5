"""HTTP/1.1 requests on kept connections: each sends one when the answer to the last has come back whole."""

from __future__ import annotations

import re
import socket

from benchmarks.load.driver import (
    BUFFER,
    IN,
    Client,
    Options,
    connect,
    drive,
    options,
    receive,
    report,
    trusting_context,
    wait_for_go,
)

_STATUS = re.compile(rb"HTTP/1\.1 200 ")
_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+) *\r\n", re.IGNORECASE)
FIELDS = "User-Agent: load/1.0\r\nAccept: */*\r\nAccept-Encoding: gzip, deflate\r\n"


def request(given: Options) -> bytes:
    """A GET of a path, or of the origin's URL as it is asked of a forward proxy."""
    host = f"127.0.0.1:{given.to if given.absolute else given.address[1]}"
    target = f"http://{host}/" if given.absolute else "/"
    return f"GET {target} HTTP/1.1\r\nHost: {host}\r\n{FIELDS}\r\n".encode()


def requests(sock: socket.socket, message: bytes, times: int) -> Client:
    """So many requests on one connection, one after another."""
    for _ in range(times):
        sock.send(message)
        yield from answer(sock)


def answer(sock: socket.socket) -> Client:
    """Wait for a whole response; it has to be 200 with a Content-Length."""
    data = b""
    left = -1
    while left:
        yield IN
        while left and (got := receive(sock)) >= 0:
            if not got:
                raise ConnectionError("the proxy closed a connection within a response, or before it")
            if left >= 0:
                left -= got
            else:
                data += BUFFER[:got]
                left = missing(data)
            if left == 0:
                return


def missing(data: bytes) -> int:
    """Bytes of a response that are still to come; -1 while its head is not whole."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return -1
    length = _LENGTH.search(data, 0, end + 2)
    if not _STATUS.match(data) or length is None:
        raise ValueError(f"not the answer that was expected: {data[:end]!r}")
    left = end + 4 + int(length[1]) - len(data)
    if left < 0:
        raise ValueError("more came than one response")
    return left


def main() -> None:
    given = options()
    context = trusting_context() if given.tls else None
    socks = [connect(given.address, context) for _ in range(given.connections)]
    message = request(given)
    drive(((sock, requests(sock, message, 10)) for sock in socks), given.connections, given.deadline)
    wait_for_go()
    times = given.amount // given.connections
    clients = ((sock, requests(sock, message, times)) for sock in socks)
    if not drive(clients, given.connections, given.deadline):
        raise TimeoutError(f"fewer than {given.amount} requests in {given.seconds} s")
    report(times * given.connections)


if __name__ == "__main__":
    main()
