"""Round trips on kept connections: each sends a message when the last one has come back whole."""

from __future__ import annotations

import socket

from benchmarks.load.driver import (
    Client,
    connect_through,
    drive,
    options,
    receive_all,
    report,
    trusting_context,
    wait_for_go,
)


def ping_pong(sock: socket.socket, message: bytes, times: int) -> Client:
    """So many round trips on one connection."""
    for _ in range(times):
        sock.send(message)
        yield from receive_all(sock, len(message))


def main() -> None:
    given = options()
    context = trusting_context() if given.tls else None
    socks = [connect_through(given, context) for _ in range(given.connections)]
    message = b"x" * given.size
    drive(((sock, ping_pong(sock, message, 20)) for sock in socks), given.connections, given.deadline)
    wait_for_go()
    times = given.amount // given.connections
    whole = drive(
        ((sock, ping_pong(sock, message, times)) for sock in socks), given.connections, given.deadline
    )
    if not whole:
        raise TimeoutError(f"fewer than {given.amount} round trips in {given.seconds} s")
    report(times * given.connections)


if __name__ == "__main__":
    main()
