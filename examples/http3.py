"""One exchange over HTTP/1.1, 2 and 3: TCP and UDP at port 8443, the one telling of the other by Alt-Svc."""

from llama import http, run, stack, tcp, tls
from llama.http import Request, Response


async def hello(request: Request) -> Response:
    """What any version of HTTP is answered with."""
    return Response(200, {"Content-Type": "text/plain"}, f"hello over HTTP/{request.version}\n")


run(
    tcp.server(":8443", stack(tls.server("cert.pem", "key.pem"), http.server(), http.alt_svc(), hello)),
    http.h3_server(":8443", hello, "cert.pem", "key.pem"),  # pip install proxy-llama[http3]
)
