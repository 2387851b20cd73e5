"""What a connection costs that has made one round trip and then does nothing: forwarded, and ended in a leaf.

A forwarded one takes two descriptors of the proxy, a leaf's one. HAProxy's leaf is an HTTP frontend that
answers itself, between two requests of a kept connection; ours is an echo handler, and for HTTP a handler function.
"""

from benchmarks.harness import Case, memory
from benchmarks.peers import Peer, forward, haproxy, hello, leaf

ORDER = 90


def _case(name: str, what: str, peers: dict[str, Peer], amount: int, **options: object) -> Case:
    sample = memory(amount=amount, **options)
    return Case(name, f"{what}, {amount:,} held", "KB/connection", peers, sample, rounds=1, warm_ups=0)


CASES = [
    _case("memory", "idle connection, forwarded", {"HAProxy": haproxy(), "llama": forward()}, 9_000),
    _case(
        "memory-tls",
        "idle TLS connection, forwarded",
        {"HAProxy": haproxy(tls=True), "llama": forward(tls=True)},
        9_000,
        tls=True,
    ),
    _case(
        "memory-leaf",
        "idle connection into a leaf",
        {"HAProxy": haproxy(leaf=True, connections=10_500), "llama": leaf()},
        10_000,
    ),
    _case(
        "memory-leaf-tls",
        "idle TLS connection into a leaf",
        {"HAProxy": haproxy(leaf=True, tls=True, connections=10_500), "llama": leaf(tls=True)},
        10_000,
        tls=True,
    ),
    _case(
        "memory-http",
        "idle HTTP/1.1 connection into a leaf",
        {"HAProxy": haproxy(leaf=True, connections=10_500), "llama": hello()},
        10_000,
    ),
]
