"""A proxy that looks inside TLS and changes pages: clients have to trust ca/ca.pem, or http://llama.internal/."""

from llama import http, layer, mitm, run, stack
from llama.http import Request, RequestHandler, Response


@layer
async def rewrite(request: Request, inner: RequestHandler) -> Response:
    response = await inner(request)
    if response.headers.get("content-type", "").startswith("text/"):
        response.body = response.body.replace(b"cloud", b"llama")  # streams; decoded; the framing follows
    return response


run(stack(http.server(), mitm.proxy(mitm.CertificateAuthority.open("ca"), rewrite)), listen="127.0.0.1:8080")
