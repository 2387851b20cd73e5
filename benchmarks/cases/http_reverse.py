"""HTTP/1.1 requests on 50 kept connections through a reverse proxy, a kilobyte back for each.

Ours has three layers: `http.forwarded`, `http.set_header` and `http.request_id`; nginx adds the same fields.
"""

from benchmarks.harness import Case, cpu
from benchmarks.http_peers import nginx, reverse

ORDER = 60
PEERS = {"nginx": nginx(), "llama": reverse()}
LOAD = cpu("http", amount=12_000, unit=1e-6, connections=50)
CASES = [
    Case(
        "http-reverse",
        "HTTP/1.1 reverse proxy, three layers",
        "us/request",
        PEERS,
        LOAD,
        "http",
        bound=2.5,
        rounds=9,
    )
]
