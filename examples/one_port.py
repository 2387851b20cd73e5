"""One port for all: the first bytes tell who speaks SOCKS5, HTTP, either of them over TLS, or SSH."""

from llama import http, run, socks5, stack, tcp, tls

plain = tcp.route(
    socks5=socks5.server(),
    http=stack(http.server(), http.proxy()),
)

run(
    tcp.route(
        (b"SSH-", tcp.forward("127.0.0.1:22")),
        tls=stack(tls.server("cert.pem", "key.pem"), plain),
        default=plain,
        timeout=10,  # for who says nothing
    ),
    listen="127.0.0.1:8443",
)
