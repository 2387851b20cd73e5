"""A TCP proxy: the bytes are carried as they are, and the service behind is told whose they are."""

from llama import run, stack, tcp

run(
    stack(
        tcp.connection_limit(1_000),
        tcp.forward(
            "127.0.0.1:5432",
            connect=tcp.send_proxy(connect=tcp.connect(timeout=5)),  # the PROXY protocol
            relay=tcp.relay(idle_timeout=600),
        ),
    ),
    listen="127.0.0.1:8432",
)
