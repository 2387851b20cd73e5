"""`http3.py LISTEN CERT KEY bulk|asgi|UPSTREAM`: HTTP/3 beside HTTP over TLS at the same address.

`bulk` answers /give?SIZE with so many bytes, and anything else with the number of bytes that it was sent.
"""

import sys
from itertools import repeat

from benchmarks.servers.app import app
from llama import asgi, http, run, stack, tcp, tls
from llama.http import Request, RequestHandler, Response

BYTES = bytes(range(256)) * 4096


async def bulk(request: Request) -> Response:
    """Many bytes, one way or the other."""
    asked = request.path.rpartition("?")[2]
    if asked.isdecimal():
        return Response(
            200, {"Content-Type": "application/octet-stream"}, repeat(BYTES, int(asked) // len(BYTES))
        )
    taken = 0
    async for chunk in request.body:
        taken += len(chunk)
    return Response(200, {"Content-Type": "text/plain"}, str(taken).encode())


def exchange(what: str) -> RequestHandler:
    """What answers."""
    if what in ("bulk", "asgi"):
        return bulk if what == "bulk" else asgi(app)
    return stack(
        http.forwarded(["10.0.0.0/8"]),
        http.set_header("X-Frame-Options", "DENY"),
        http.request_id(),
        http.reverse_proxy(what),
    )


if __name__ == "__main__":
    listen, cert, key, what = sys.argv[1:]
    answer = exchange(what)
    over_tcp = stack(tls.server(cert, key), http.server(), answer)
    run(http.h3_server(listen, answer, cert, key), tcp.server(listen, over_tcp))
