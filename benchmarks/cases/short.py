"""Connect, one request and its response, close; 8 at a time, without TLS."""

from benchmarks.harness import Case, cpu
from benchmarks.peers import forward, haproxy

ORDER = 30
PEERS = {"HAProxy": haproxy(), "llama": forward()}
LOAD = cpu("short", amount=2_500, unit=1e-6, connections=8)
CASES = [Case("short", "short connections", "us/connection", PEERS, LOAD, bound=2.0, rounds=9)]
