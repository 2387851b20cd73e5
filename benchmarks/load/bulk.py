"""Many bytes one way: `amount` in all, down (the origin gives) or up (it takes and confirms)."""

from __future__ import annotations

import socket

from benchmarks.load.driver import (
    OUT,
    Client,
    connect_through,
    drive,
    options,
    receive_all,
    report,
    send,
    trusting_context,
    wait_for_go,
)

CHUNK = memoryview(bytes(range(256)) * 1024)


def down(sock: socket.socket, amount: int) -> Client:
    """Ask for so many bytes and read them."""
    sock.send(amount.to_bytes(8, "big"))
    yield from receive_all(sock, amount)


def up(sock: socket.socket, amount: int) -> Client:
    """Send so many bytes and wait until the origin says that it has them."""
    sock.send(amount.to_bytes(8, "big"))
    while amount:
        yield OUT
        while amount and (size := send(sock, CHUNK[: min(amount, len(CHUNK))])):
            amount -= size
    yield from receive_all(sock, 8)


def main() -> None:
    given = options()
    context = trusting_context() if given.tls else None
    socks = [connect_through(given, context) for _ in range(given.connections)]
    move = down if given.direction == "down" else up
    share = given.amount // given.connections
    wait_for_go()
    if not drive(((sock, move(sock, share)) for sock in socks), given.connections, given.deadline):
        raise TimeoutError(f"{given.amount} bytes took longer than {given.seconds} s")
    report(share * given.connections / 1e9)


if __name__ == "__main__":
    main()
