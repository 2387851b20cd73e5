"""Asks `benchmarks.servers.http2_engine` for so many exchanges in its memory."""

from __future__ import annotations

import socket

from benchmarks.load.driver import options, report, wait_for_go


def main() -> None:
    given = options()
    with socket.create_connection(given.address, 30) as sock:
        sock.settimeout(given.seconds + 60)
        wait_for_go()
        sock.sendall(given.amount.to_bytes(8, "big"))
        if sock.recv(8) != given.amount.to_bytes(8, "big"):
            raise ConnectionError("the engine has failed")
        report(given.amount)


if __name__ == "__main__":
    main()
