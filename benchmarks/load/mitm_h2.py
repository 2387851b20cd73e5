"""HTTP/2 requests over TLS by h2load, ten at a time on each of ten connections; the handshakes are among them."""

from __future__ import annotations

import re
import subprocess

from benchmarks.load.driver import options, report, wait_for_go
from benchmarks.peers import program


def main() -> None:
    given = options()
    url = f"https://localhost:{given.address[1]}/"
    clients = ["-c", str(given.connections), "-m", "10"]
    command = [program("h2load"), *clients, "--connect-to", f"127.0.0.1:{given.address[1]}"]
    subprocess.run([*command, "-n", "200", url], check=True, capture_output=True, timeout=given.seconds)
    wait_for_go()
    done = subprocess.run(
        [*command, "-n", str(given.amount), url], check=True, capture_output=True, text=True, timeout=60
    )
    if "Application protocol: h2" not in done.stdout:
        raise RuntimeError(f"it was not HTTP/2:\n{done.stdout}")
    counted = re.search(r"(\d+) succeeded, 0 failed", done.stdout)
    if counted is None:
        raise RuntimeError(f"not all succeeded:\n{done.stdout}")
    report(int(counted[1]))


if __name__ == "__main__":
    main()
