"""HTTP/3: many bytes through one connection, the same application in ASGI servers, and a reverse proxy.

The load is our client's for every server.
"""

from __future__ import annotations

from benchmarks.harness import Case, cpu
from benchmarks.peers import Peer, Place, module, server
from benchmarks.processes import ROOT

ORDER = 67
SIZE = 50 << 20
LOAD = cpu("http3", amount=3_000, unit=1e-6, connections=10)


def ours(what: str) -> Peer:
    """A server of ours: it needs the extra for HTTP/3."""

    def command(place: Place) -> list[str]:
        upstream = what if what in ("bulk", "asgi") else f"http://127.0.0.1:{place.to}"
        return server("http3", f"127.0.0.1:{place.port}", str(place.cert), str(place.key), upstream)(place)

    return command


def theirs(program: str) -> Peer:
    """A program of benchmarks/servers, where hypercorn and aioquic are, which has no command of its own."""

    def command(place: Place) -> list[str]:
        path = ROOT / "benchmarks" / "servers" / f"{program}.py"
        python = module("hypercorn", "aioquic")[0]
        return [python, str(path), f"127.0.0.1:{place.port}", str(place.cert), str(place.key)]

    return command


CASES = [
    Case(
        "h3-bulk-down",
        "50 MiB over HTTP/3, download",
        "s/GB",
        {"aioquic": theirs("aioquic_bulk"), "llama": ours("bulk")},
        cpu("http3", amount=SIZE),
        bound=0.5,
        rounds=3,
    ),
    Case(
        "h3-bulk-up",
        "50 MiB over HTTP/3, upload",
        "s/GB",
        {"aioquic": theirs("aioquic_bulk"), "llama": ours("bulk")},
        cpu("http3", amount=SIZE, direction="up"),
        bound=0.5,
        rounds=3,
    ),
    Case(
        "h3-asgi",
        "ASGI application over HTTP/3",
        "us/request",
        {"hypercorn": theirs("hypercorn_h3"), "llama": ours("asgi")},
        LOAD,
        bound=0.5,
        rounds=5,
    ),
    Case(
        "h3-reverse",
        "HTTP/3 in, HTTP/1.1 out",
        "us/request",
        {"llama": ours("reverse")},
        LOAD,
        "http",
        rounds=5,
    ),
]
