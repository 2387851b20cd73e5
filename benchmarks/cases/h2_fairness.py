"""Small requests over HTTP/2 beside large responses on the same connection, by the clock: TLS in, HTTP/1.1 out.

What is not read must cost the others nothing; what is read takes its turns with them.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.cases.http2 import nginx, reverse
from benchmarks.harness import Case, told
from benchmarks.peers import Place

ORDER = 81


def nginx_in_memory(place: Place) -> list[str]:
    """nginx that keeps no responses on the disk, which have no end here."""
    command = nginx(place)
    path = Path(command[-1])
    path.write_text(
        path.read_text().replace("access_log off;", "access_log off; proxy_max_temp_file_size 0;")
    )
    return command


def _case(name: str, what: str, connections: int, direction: str, figure: str = "median") -> Case:
    sample = told("fairness", figure, amount=200, connections=connections, direction=direction)
    return Case(
        name, what, "ms", {"nginx": nginx_in_memory, "llama": reverse}, sample, "none", rounds=3, warm_ups=1
    )


CASES = [
    _case("h2-fair-alone", "HTTP/2: a small request on its own, median", 0, "down"),
    _case("h2-fair-stalled", "the same beside 10 large responses that nobody reads", 10, "up"),
    _case("h2-fair-busy", "the same beside 10 that are read at full speed", 10, "down"),
    _case("h2-fair-busy-most", "the same, 99 of 100", 10, "down", "most"),
]
