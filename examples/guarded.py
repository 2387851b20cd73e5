"""What one usually wants in front of a service: limits before the handshake, timeouts, a line in the log."""

import logging

from llama import run, stack, tcp, tls, trace

logging.basicConfig(level=logging.INFO)

run(
    stack(
        tcp.connection_limit(
            10_000
        ),  # at the limit the listener stops accepting: the kernel's queue holds the rest
        tcp.per_peer_limit(100),
        tcp.deny("203.0.113.0/24"),
        tcp.idle_timeout(300),
        trace("site"),
        tls.server("cert.pem", "key.pem", handshake_timeout=10),
        tcp.forward("127.0.0.1:8080"),
    ),
    listen=":8443",
)
