"""`secure_h2_origin.py PORT CERT KEY`: answers every request by the same kilobyte, over TLS, in HTTP/2 or HTTP/1.1.

It ends when its standard input does.
"""

import asyncio
import sys

from llama import http, serve, stack, tls
from llama.http import Request, Response

BODY = b"x" * 1024


async def answer(request: Request) -> Response:
    """The same for all."""
    return Response(200, {"Content-Type": "text/plain"}, BODY)


async def main() -> None:
    """Serve until there is no more input."""
    handler = stack(tls.server(sys.argv[2], sys.argv[3]), http.server(), answer)
    async with serve(handler, listen=f"127.0.0.1:{sys.argv[1]}", grace=0):
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main())
