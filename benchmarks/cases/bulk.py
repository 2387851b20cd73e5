"""Many bytes through one connection, without TLS."""

from benchmarks.harness import Case, cpu
from benchmarks.peers import forward, haproxy

ORDER = 10
PEERS = {"HAProxy": haproxy(), "HAProxy splice-auto": haproxy(splice=True), "llama": forward()}
CASES = [
    Case(
        "bulk-down",
        "bulk relay, download",
        "s/GB",
        PEERS,
        cpu("bulk", amount=700_000_000),
        "give",
        bound=0.55,
        rounds=7,
    ),
    Case(
        "bulk-up",
        "bulk relay, upload",
        "s/GB",
        PEERS,
        cpu("bulk", amount=700_000_000, direction="up"),
        "take",
        bound=0.55,
        rounds=7,
    ),
]
