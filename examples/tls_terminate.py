"""TLS in front of a service that has none. The bytes within are not touched."""

from llama import run, stack, tcp, tls

run(
    stack(
        tls.server("cert.pem", "key.pem"),
        tcp.forward("127.0.0.1:8080"),
    ),
    listen=":8443",
)
