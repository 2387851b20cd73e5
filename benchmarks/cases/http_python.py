"""HTTP/1.1 on kept connections beside other programs in Python: forward proxy, reverse proxy, ASGI server."""

from benchmarks.harness import Case, cpu
from benchmarks.http_peers import (
    granian,
    llama,
    llama_asgi,
    llama_reverse,
    mitmproxy,
    proxy_py,
    uvicorn,
)

ORDER = 65
FORWARD = cpu("http", amount=2_000, unit=1e-6, connections=20, absolute=True)
TUNNEL = cpu("short", amount=800, unit=1e-6, connections=8, tunnel=True)
REVERSE = cpu("http", amount=1_000, unit=1e-6, connections=20)
ASGI = cpu("http", amount=8_000, unit=1e-6, connections=50)
SERVERS = {
    "uvicorn": uvicorn(loop="asyncio"),
    "uvicorn uvloop": uvicorn(loop="uvloop"),
    "granian": granian,
    "llama": llama_asgi,
}
CASES = [
    Case(
        "http-forward",
        "HTTP/1.1 forward proxy",
        "us/request",
        {"proxy.py": proxy_py, "llama": llama("http-proxy")},
        FORWARD,
        "http",
        bound=0.5,
        rounds=5,
    ),
    Case(
        "http-connect",
        "tunnels by CONNECT",
        "us/connection",
        {"proxy.py": proxy_py, "llama": llama("http-proxy")},
        TUNNEL,
        rounds=5,
    ),
    Case(
        "http-reverse-mitmproxy",
        "HTTP/1.1 reverse proxy, no layers",
        "us/request",
        {"mitmproxy": mitmproxy, "llama": llama_reverse},
        REVERSE,
        "http",
        bound=0.04,
        rounds=5,
    ),
    Case("asgi", "ASGI application", "us/request", SERVERS, ASGI, against="uvicorn", rounds=5),
]
