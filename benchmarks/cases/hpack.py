"""A client's requests while another client sends HPACK bombs on one connection after another, over TLS."""

from __future__ import annotations

from benchmarks.cases.http2 import nginx, reverse
from benchmarks.clock import cpu_seconds
from benchmarks.harness import Case, Running, Sampler, figures

ORDER = 82
AMOUNT = 300
PEERS = {"nginx": nginx, "llama": reverse}


def sampler(figure: str, connections: int, direction: str) -> Sampler:
    """A figure of the load, or `share`: of a core that the proxy takes, in percent."""

    def sample(running: Running) -> float:
        amount = AMOUNT // 4 if running.quick else AMOUNT
        options = ("--amount", str(amount), "--connections", str(connections), "--direction", direction)
        with running.load("hpack", *options) as load:
            before = cpu_seconds(running.proxy.pid)
            load.go()
            told = figures(load, 60)
            share = (cpu_seconds(running.proxy.pid) - before) / told["seconds"] * 100
        return share if figure == "share" else told[figure]

    return sample


def _case(name: str, what: str, figure: str, connections: int, direction: str = "up") -> Case:
    unit = {"share": "% of a core", "connections": "per second"}.get(figure, "ms")
    return Case(
        name, what, unit, PEERS, sampler(figure, connections, direction), "http", rounds=3, warm_ups=1
    )


CASES = [
    _case("hpack-alone", "a request on a new TLS connection, median", "median", 0),
    _case("hpack-alone-most", "the same, 99 of 100", "most", 0),
    _case(
        "hpack-reconnects", "beside a client that only connects again and again, median", "median", 1, "down"
    ),
    _case("hpack-reconnects-most", "the same, 99 of 100", "most", 1, "down"),
    _case("hpack-attack", "beside a client that sends HPACK bombs, median", "median", 1),
    _case("hpack-attack-most", "the same, 99 of 100", "most", 1),
    _case("hpack-attack-share", "the same, the proxy's share of a core", "share", 1),
]
