"""`http2_engine.py LISTEN llama|h2`: HTTP/2 exchanges between two engines in memory, as many as a client asks for.

An exchange is a GET and its answer, each with ten fields, and a body of a kilobyte.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable
from typing import Any

from llama.http._h2.wire.fields import RequestHead, ResponseHead
from llama.http._h2.wire.protocol import H2Protocol
from llama.http._h2.wire.stream import Stream
from llama.http._messages.headers import Headers

REQUEST = [
    (":method", "GET"), (":scheme", "https"), (":authority", "example.com"), (":path", "/some/path?a=b"),
    ("user-agent", "Mozilla/5.0 (X11; Linux x86_64) Gecko/20100101"), ("accept", "text/html,application/xml"),
    ("accept-encoding", "gzip, deflate, br"), ("accept-language", "en"), ("cookie", "session=abcdef0123456789"),
    ("referer", "https://example.com/"),
]  # fmt: skip
RESPONSE = [
    (":status", "200"), ("content-type", "text/html; charset=utf-8"), ("content-length", "1024"),
    ("date", "Mon, 01 Jan 2024 00:00:00 GMT"), ("server", "origin"), ("cache-control", "no-cache"),
    ("vary", "accept-encoding"), ("x-request-id", "abcdef0123456789"), ("etag", '"65920080-400"'),
    ("x-frame-options", "DENY"),
]  # fmt: skip
BODY = b"x" * 1024


class Side:
    """One end of ours: the server's answers each request, the client's counts the bytes."""

    def __init__(self, *, client: bool) -> None:
        self.engine = H2Protocol(self, client=client)
        self.heard = 0

    def request(self, stream: Stream, head: RequestHead, ended: bool) -> None:
        self.engine.send_head(stream, RESPONSE, end=False)
        self.engine.send_data(stream, BODY, end=True)

    def refused(self, stream: Stream, error: Exception, ended: bool) -> None: ...
    def settings_changed(self) -> None: ...
    def window(self) -> None: ...
    def goaway(self, last: int, code: int, text: bytes) -> None: ...
    def pong(self, payload: bytes) -> None: ...


class Answer:
    """The answer to one request."""

    def __init__(self, side: Side) -> None:
        self.side = side

    def response(self, head: ResponseHead, ended: bool) -> None: ...
    def interim(self, head: ResponseHead) -> None: ...
    def trailers(self, headers: Headers) -> None: ...
    def reset(self, code: int, by_peer: bool) -> None: ...
    def window(self) -> None: ...

    def data(self, data: bytes, ended: bool) -> None:
        self.side.heard += len(data)


def ours() -> Callable[[int], int]:
    client, server = Side(client=True), Side(client=False)

    def exchange(count: int) -> int:
        before = client.heard
        for _ in range(count):
            stream = client.engine.open(Answer(client), REQUEST, end=True)
            server.engine.receive(client.engine.take())
            client.engine.receive(server.engine.take())
            client.engine.consumed(stream, len(BODY))
        return (client.heard - before) // len(BODY)

    return exchange


def theirs() -> Callable[[int], int]:
    from importlib import import_module

    h2: Any = import_module("h2.connection")
    config: Any = import_module("h2.config")
    events: Any = import_module("h2.events")
    client = h2.H2Connection(config.H2Configuration(client_side=True))
    server = h2.H2Connection(config.H2Configuration(client_side=False))
    client.initiate_connection()
    server.initiate_connection()

    def exchange(count: int) -> int:
        heard = 0
        for _ in range(count):
            id = client.get_next_available_stream_id()
            client.send_headers(id, REQUEST, end_stream=True)
            for event in server.receive_data(client.data_to_send()):
                if isinstance(event, events.RequestReceived):
                    server.send_headers(id, RESPONSE)
                    server.send_data(id, BODY, end_stream=True)
            for event in client.receive_data(server.data_to_send()):
                if isinstance(event, events.DataReceived):
                    heard += len(event.data)
                    client.acknowledge_received_data(event.flow_controlled_length, id)
        return heard // len(BODY)

    return exchange


def main() -> None:
    host, _, port = sys.argv[1].rpartition(":")
    exchange = ours() if sys.argv[2] == "llama" else theirs()
    with socket.create_server((host, int(port))) as listener:
        while True:
            sock, _ = listener.accept()
            with sock:
                while asked := sock.recv(8):
                    sock.sendall(exchange(int.from_bytes(asked, "big")).to_bytes(8, "big"))


if __name__ == "__main__":
    main()
