"""HTTP/2: the engine alone, a reverse proxy with TLS in front, and the same application in ASGI servers."""

from __future__ import annotations

from benchmarks.harness import Case, cpu
from benchmarks.http_peers import APP, NGINX
from benchmarks.peers import Missing, Peer, Place, can_import, module, program, server

ORDER = 66
ENGINE = cpu("http2_engine", amount=20_000, unit=1e-6)
LOAD = cpu("http2", amount=10_000, unit=1e-6, connections=10)


def engine(name: str) -> Peer:
    """Two engines in one process."""

    def command(place: Place) -> list[str]:
        made = server("http2_engine", f"127.0.0.1:{place.port}", name)(place)
        if name != "llama" and not can_import(made[0], name):
            raise Missing(f"{name} is not installed")
        return made

    return command


def nginx(place: Place) -> list[str]:
    """nginx as for HTTP/1.1, with HTTP/2 over TLS in front."""
    config = NGINX.format(folder=place.folder, port=place.port, to=place.to)
    listen = f"listen 127.0.0.1:{place.port} backlog=4096;"
    keys = f"ssl_certificate {place.cert}; ssl_certificate_key {place.key};"
    config = config.replace(listen, f"{listen[:-1]} ssl http2; {keys}")
    path = place.folder / f"nginx-{place.port}.conf"
    path.write_text(config)
    return [program("nginx"), "-c", str(path)]


def reverse(place: Place) -> list[str]:
    """Our reverse proxy with three layers, over TLS."""
    ends = (f"127.0.0.1:{place.port}", str(place.cert), str(place.key), f"http://127.0.0.1:{place.to}")
    return server("http2", *ends)(place)


def llama_asgi(place: Place) -> list[str]:
    """The application in a stack of ours, over TLS."""
    return server("http2", f"127.0.0.1:{place.port}", str(place.cert), str(place.key))(place)


def hypercorn(place: Place) -> list[str]:
    """hypercorn with one worker, over TLS."""
    keys = ["--certfile", str(place.cert), "--keyfile", str(place.key)]
    return [*module("hypercorn"), "--bind", f"127.0.0.1:{place.port}", *keys, "--log-level", "error", APP]


def granian(place: Place) -> list[str]:
    """granian with one worker, over TLS."""
    listen = ["--host", "127.0.0.1", "--port", str(place.port), "--http", "2"]
    keys = ["--ssl-certificate", str(place.cert), "--ssl-keyfile", str(place.key)]
    how = [
        "--interface",
        "asgi",
        "--workers",
        "1",
        "--loop",
        "asyncio",
        "--no-access-log",
        "--log-level",
        "error",
    ]
    return [*module("granian"), *listen, *keys, *how, APP]


CASES = [
    Case(
        "h2-engine",
        "HTTP/2 exchange, both sides in memory",
        "us/exchange",
        {"h2": engine("h2"), "llama": engine("llama")},
        ENGINE,
        bound=1 / 6,
        rounds=5,
    ),
    Case(
        "h2-reverse",
        "HTTP/2 over TLS in, HTTP/1.1 out",
        "us/request",
        {"nginx": nginx, "llama": reverse},
        LOAD,
        "http",
        bound=4.0,
        rounds=5,
    ),
    Case(
        "h2-asgi",
        "ASGI application over HTTP/2 (uvicorn has none)",
        "us/request",
        {"hypercorn": hypercorn, "granian": granian, "llama": llama_asgi},
        LOAD,
        bound=0.5,
        against="hypercorn",
        rounds=5,
    ),
]
