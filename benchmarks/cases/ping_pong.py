"""600-byte round trips on 50 kept connections, without TLS."""

from benchmarks.harness import Case, cpu
from benchmarks.peers import forward, haproxy

ORDER = 20
PEERS = {"HAProxy": haproxy(), "llama": forward()}
LOAD = cpu("ping_pong", amount=25_000, unit=1e-6, connections=50)
CASES = [
    Case("ping-pong", "ping-pong on kept connections", "us/round trip", PEERS, LOAD, bound=1.25, rounds=9)
]
