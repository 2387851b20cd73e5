"""`hello.py LISTEN`: answers every HTTP request itself."""

import sys

from llama import http, run, stack


async def hello(request: http.Request) -> http.Response:
    """A few words."""
    return http.Response(200, {"Content-Type": "text/plain"}, b"hello")


if __name__ == "__main__":
    run(stack(http.server(), hello), listen=sys.argv[1])
