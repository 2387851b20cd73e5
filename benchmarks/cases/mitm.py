"""Looking inside HTTPS with one hook, beside mitmproxy; certificates for many new hosts."""

from __future__ import annotations

from benchmarks.harness import Case, Running, Sampler, cpu, told
from benchmarks.peers import Peer, Place, program, server
from benchmarks.processes import ROOT, Process, python

ORDER = 70


def ours(place: Place) -> list[str]:
    """Ours, which trusts the origin's certificate."""
    return server("mitm", f"127.0.0.1:{place.port}", str(place.cert))(place)


def mitmproxy(place: Place) -> list[str]:
    """mitmproxy, which prints no flows."""
    hook = ROOT / "benchmarks" / "servers" / "mitm_hook.py"
    listen = ["--listen-host", "127.0.0.1", "--listen-port", str(place.port)]
    trust = ["--set", f"confdir={place.folder}", "--set", f"ssl_verify_upstream_trusted_ca={place.cert}"]
    return [program("mitmdump"), "-q", *listen, "-s", str(hook), *trust]


def ours_door(place: Place) -> list[str]:
    """Ours, before one target."""
    listen, target = f"127.0.0.1:{place.port}", f"localhost:{place.to}"
    return [*python("benchmarks.servers.mitm_door"), listen, target, str(place.cert)]


def mitmproxy_door(place: Place) -> list[str]:
    """mitmproxy, before one target."""
    return [*mitmproxy(place), "--mode", f"reverse:https://localhost:{place.to}"]


def with_origin(sample: Sampler, origin: str = "secure_origin") -> Sampler:
    """The same with an origin that speaks TLS while it lasts."""

    def sampled(running: Running) -> float:
        files = [str(running.folder / name) for name in ("cert.pem", "key.pem")]
        command = python(f"benchmarks.servers.{origin}", str(running.to), *files)
        with Process(command, log=running.folder / "origin.log") as process:
            process.line(10)
            return sample(running)

    return sampled


def ours_trusting(place: Place) -> list[str]:
    """Ours for names that the origin's certificate does not have."""
    return server("mitm", f"127.0.0.1:{place.port}")(place)


def mitmproxy_trusting(place: Place) -> list[str]:
    """The same of mitmproxy."""
    return [*mitmproxy(place), "--ssl-insecure"]


PEERS: dict[str, Peer] = {"mitmproxy": mitmproxy, "llama": ours}
NEW: dict[str, Peer] = {"mitmproxy": mitmproxy_trusting, "llama": ours_trusting}
CASES = [
    Case(
        "mitm",
        "HTTPS looked into, HTTP/1.1, one hook",
        "us/request",
        PEERS,
        with_origin(cpu("mitm", amount=1_000, unit=1e-6, connections=10)),
        "none",
        bound=0.05,
        rounds=5,
    ),
    Case(
        "mitm-h2",
        "HTTPS looked into, HTTP/2 from the client, one hook",
        "us/request",
        {"mitmproxy": mitmproxy_door, "llama": ours_door},
        with_origin(cpu("mitm_h2", amount=2_500, unit=1e-6, connections=10), "secure_h2_origin"),
        "none",
        bound=0.05,
        rounds=5,
    ),
    Case(
        "mitm-hosts",
        "HTTPS looked into, a host that was not seen before",
        "us/host",
        NEW,
        with_origin(cpu("mitm_hosts", amount=200, unit=1e-6)),
        "none",
        rounds=3,
    ),
    Case(
        "mitm-rate",
        "200 hosts that were not seen before, wanted within a second: until all have been served",
        "s",
        NEW,
        with_origin(told("mitm_hosts", "seconds", amount=200)),
        "none",
        rounds=1,
        warm_ups=0,
    ),
    Case(
        "mitm-pause",
        "longest wait for an answer while 200 such hosts come each second",
        "ms",
        NEW,
        with_origin(told("mitm_hosts", "pause", amount=200)),
        "none",
        rounds=3,
    ),
]
