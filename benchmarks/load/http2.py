"""HTTP/2 requests over TLS by h2load: as many streams on each connection as there are connections."""

from __future__ import annotations

import re
import subprocess

from benchmarks.load.driver import options, report, wait_for_go
from benchmarks.peers import program

_SUCCEEDED = re.compile(rb"requests: .* ([0-9]+) succeeded, 0 failed")
_SPOKEN = b"Application protocol: h2\n"


def main() -> None:
    given = options()
    streams = str(given.connections)
    many = ["-n", str(given.amount), "-c", str(given.connections), "-m", streams]
    command = [program("h2load"), *many, f"https://127.0.0.1:{given.address[1]}/"]
    wait_for_go()
    told = subprocess.run(command, capture_output=True, check=True, timeout=given.seconds + 60).stdout
    found = _SUCCEEDED.search(told)
    if found is None or _SPOKEN not in told:
        raise ValueError(f"not what was expected of h2load: {told[-600:]!r}")
    report(int(found[1]))


if __name__ == "__main__":
    main()
