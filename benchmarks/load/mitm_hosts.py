"""Names that the proxy has not seen, 200 a second, while another connection goes on: how long it has to wait.

Tells the connections with new names, and the longest and the usual wait for an answer meanwhile, in milliseconds.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time

from benchmarks.load.driver import Options, options, wait_for_go
from benchmarks.load.http import request
from benchmarks.load.mitm import tunnel

RATE = 200


def new_hosts(given: Options) -> None:
    """A TLS session for each of so many names, evenly spread over time."""
    begun = time.monotonic()
    mark = os.urandom(4).hex()
    for number in range(given.amount):
        time.sleep(max(0.0, begun + number / RATE - time.monotonic()))
        tunnel(given, f"h{number}-{mark}.example").close()


def ask(given: Options, child: int) -> list[float]:
    """One request after another until the other process has ended: how long each took."""
    sock = tunnel(given)
    sock.setblocking(True)
    message = request(given)
    took: list[float] = []
    while not os.waitpid(child, os.WNOHANG)[0]:
        begun = time.monotonic()
        sock.sendall(message)
        got = b""
        while not got.endswith(b"x" * 1024):
            got += sock.recv(65536)
        took.append((time.monotonic() - begun) * 1000)
        time.sleep(0.001)
    return took


def main() -> None:
    given = options()
    tunnel(given).close()
    wait_for_go()
    child = os.fork()
    if not child:
        try:
            new_hosts(given)
        finally:
            os._exit(0)
    took = ask(given, child)
    told = {"units": given.amount, "pause": max(took), "usual": statistics.median(took)}
    print(json.dumps(told), flush=True)
    sys.stdin.readline()


if __name__ == "__main__":
    main()
