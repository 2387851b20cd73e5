"""grpcio as a server (`serve`) or as a client of one (`call ADDRESS [proxied]`), run as a process of its own.

The client makes a call of each kind and prints what it got, a line for each.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from queue import SimpleQueue
from typing import Any

grpc: Any = import_module("grpc")  # its stubs are a package of their own

METADATA = (("x-asked", "1"), ("x-asked-bin", b"\x00\xff"))


def unary(request: bytes, context: Any) -> bytes:
    if request == b"fail":
        context.abort(grpc.StatusCode.NOT_FOUND, "no such thing: ä")
    sent = dict(context.invocation_metadata())
    context.send_initial_metadata((("x-initial", "i"),))
    context.set_trailing_metadata((("x-trailing", sent["x-asked"]), ("x-trailing-bin", sent["x-asked-bin"])))
    return request.upper()


def server_stream(request: bytes, context: Any) -> Iterator[bytes]:
    for number in range(int(request)):
        yield b"%d" % number * 1000


def client_stream(requests: Iterator[bytes], context: Any) -> bytes:
    return b"%d" % sum(len(each) for each in requests)


def both_stream(requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
    for each in requests:
        yield each[::-1]


def serve() -> None:
    server = grpc.server(ThreadPoolExecutor(4))
    handlers = {
        "unary": grpc.unary_unary_rpc_method_handler(unary),
        "server": grpc.unary_stream_rpc_method_handler(server_stream),
        "client": grpc.stream_unary_rpc_method_handler(client_stream),
        "both": grpc.stream_stream_rpc_method_handler(both_stream),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Peer", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    sys.stdin.read()
    server.stop(None)


def call(address: str, *, proxied: bool = False) -> None:
    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", int(proxied))]) as channel:
        ask = channel.unary_unary("/test.Peer/unary")
        reply, done = ask.with_call(b"hello", metadata=METADATA, timeout=20)
        print("unary", reply, dict(done.initial_metadata())["x-initial"], dict(done.trailing_metadata()))
        try:
            ask(b"fail", metadata=METADATA, timeout=20)
        except grpc.RpcError as error:
            print("error", error.code(), error.details())
        parts = list(channel.unary_stream("/test.Peer/server")(b"200", timeout=20))
        print("server", len(parts), sum(map(len, parts)))
        print(
            "client", channel.stream_unary("/test.Peer/client")((bytes(1000) for _ in range(500)), timeout=20)
        )
        talk = ping_pong(channel)
        print("both", talk)


def ping_pong(channel: Any) -> list[bytes]:
    """Each request is sent when the answer to the one before has come."""
    queue: SimpleQueue[bytes | None] = SimpleQueue()
    answers: list[bytes] = []
    queue.put(b"0a")
    for answer in channel.stream_stream("/test.Peer/both")(iter(queue.get, None), timeout=20):
        answers.append(answer)
        queue.put(b"%da" % len(answers) if len(answers) < 5 else None)
    return answers


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve()
    else:
        call(sys.argv[2], proxied=sys.argv[3:] == ["proxied"])
