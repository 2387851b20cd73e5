"""Names that the proxy has not seen, 200 a second, while another connection goes on: how long it has to wait.

Four processes open the connections with new names, each when its time has come. Tells how many there were, the
seconds until the last had its session, and the longest and the usual wait for an answer meanwhile, in milliseconds.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from contextlib import suppress

from benchmarks.load.driver import Options, options, trusting_context, wait_for_go
from benchmarks.load.http import request
from benchmarks.load.mitm import tunnel

RATE = 200
PROCESSES = 4
PERIOD = 0.004  # seconds


def new_hosts(given: Options, first: int, begun: float) -> None:
    """A TLS session for every fourth name, evenly spread over time."""
    context = trusting_context()
    mark = os.urandom(4).hex()
    for number in range(first, given.amount, PROCESSES):
        time.sleep(max(0.0, begun + number / RATE - time.monotonic()))
        tunnel(given, f"h{number}-{mark}.example", context).close()


def start(given: Options, first: int, begun: float) -> None:
    """One of the processes."""
    if not os.fork():
        failed = 1
        try:
            new_hosts(given, first, begun)
            failed = 0
        finally:
            os._exit(failed)


def ended() -> int:
    """How many of the processes have ended since this was last asked."""
    count = 0
    with suppress(ChildProcessError):
        while (each := os.waitpid(-1, os.WNOHANG))[0]:
            if each[1]:
                raise RuntimeError("not every new host was answered")
            count += 1
    return count


def ask(given: Options) -> list[float]:
    """A request every few milliseconds until the processes have ended: how long each took."""
    sock = tunnel(given)
    sock.setblocking(True)
    message = request(given)
    took: list[float] = []
    running = PROCESSES
    due = time.monotonic()
    while running := running - ended():
        due = max(due + PERIOD, time.monotonic())
        time.sleep(max(0.0, due - time.monotonic()))
        begun = time.monotonic()
        sock.sendall(message)
        got = b""
        while not got.endswith(b"x" * 1024):
            got += sock.recv(65536)
        took.append((time.monotonic() - begun) * 1000)
    return took


def main() -> None:
    given = options()
    tunnel(given).close()
    wait_for_go()
    begun = time.monotonic()
    for first in range(PROCESSES):
        start(given, first, begun)
    took = ask(given)
    told = {
        "units": given.amount,
        "seconds": time.monotonic() - begun,
        "pause": max(took),
        "usual": statistics.median(took),
    }
    print(json.dumps(told), flush=True)
    sys.stdin.readline()


if __name__ == "__main__":
    main()
