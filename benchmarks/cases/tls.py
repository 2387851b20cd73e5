"""TLS 1.3 terminated, plain behind: bulk both ways, full handshakes (ECDSA P-256), round trips."""

from benchmarks.harness import Case, cpu
from benchmarks.peers import forward, haproxy

ORDER = 40
PEERS = {"HAProxy": haproxy(tls=True), "llama": forward(tls=True)}


def _case(
    name: str, what: str, unit: str, bound: float | None, load: str, origin: str = "echo", **options: object
) -> Case:
    amount = options.pop("amount")
    assert isinstance(amount, int)
    scale = 1.0 if unit == "s/GB" else 1e-6
    sample = cpu(load, amount=amount, unit=scale, tls=True, **options)
    return Case(name, what, unit, PEERS, sample, origin, bound=bound, rounds=7)


CASES = [
    _case("tls-bulk-down", "TLS bulk, download", "s/GB", 0.9, "bulk", "give", amount=500_000_000),
    _case("tls-bulk-up", "TLS bulk, upload", "s/GB", 0.9, "bulk", "take", amount=500_000_000, direction="up"),
    _case(
        "tls-handshake",
        "TLS handshakes, full",
        "us/handshake",
        1.35,
        "short",
        amount=800,
        connections=8,
        size=0,
    ),
    _case("tls-short", "short TLS connections", "us/connection", None, "short", amount=800, connections=8),
    _case(
        "tls-ping-pong", "TLS ping-pong", "us/round trip", 1.35, "ping_pong", amount=15_000, connections=50
    ),
]
