"""One port, several names: passed through as it is, terminated here, or closed, by what the ClientHello asks for."""

from llama import run, stack, tcp, tls

run(
    tls.route(
        {
            "a.example": tcp.forward("127.0.0.1:9443"),  # speaks TLS itself: its certificate, its keys
            "*.b.example": stack(
                tls.server("b.pem", "b.key"),
                tcp.forward("127.0.0.1:8080"),
            ),
        },
    ),
    listen=":8443",
)
