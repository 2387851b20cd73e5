"""`mitm.py LISTEN [AUTHORITY]`: a forward proxy that looks inside TLS, with one hook; it may verify upstreams."""

import sys

from llama import http, layer, mitm, run, stack
from llama.http import Request, RequestHandler, Response


@layer
async def seen(request: Request, inner: RequestHandler) -> Response:
    response = await inner(request)
    response.headers["X-Seen-By"] = "the hook"
    return response


if __name__ == "__main__":
    proxy = mitm.proxy(
        mitm.CertificateAuthority.create(), seen, verify=sys.argv[2] if len(sys.argv) > 2 else False
    )
    run(stack(http.server(), proxy), listen=sys.argv[1])
