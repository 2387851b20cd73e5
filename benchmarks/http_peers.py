"""The HTTP proxies and servers that are compared."""

from __future__ import annotations

import sys

from benchmarks.peers import Peer, Place, can_import, module, program, server

NGINX = """\
daemon off;
worker_processes 1;
pid {folder}/nginx-{port}.pid;
error_log {folder}/nginx-{port}.log;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path {folder};
    proxy_temp_path {folder};
    fastcgi_temp_path {folder};
    uwsgi_temp_path {folder};
    scgi_temp_path {folder};
    keepalive_requests 100000000;
    upstream origin {{
        server 127.0.0.1:{to};
        keepalive 128;
        keepalive_requests 100000000;
    }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{
            proxy_pass http://origin;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $host:$server_port;
            proxy_set_header X-Forwarded-For $remote_addr;
            proxy_set_header X-Forwarded-Proto $scheme;
            proxy_set_header X-Forwarded-Host $host:$server_port;
            proxy_set_header Forwarded 'for=$remote_addr;host="$host:$server_port";proto=$scheme';
            proxy_set_header Via "1.1 nginx";
            proxy_set_header X-Request-ID $request_id;
            add_header Via "1.1 nginx";
            add_header X-Request-ID $request_id;
            add_header X-Frame-Options DENY;
        }}
    }}
}}
"""

APP = "benchmarks.servers.app:app"


def nginx() -> Peer:
    """nginx as a reverse proxy: one worker, connections to the origin kept, the fields that ours adds."""

    def command(place: Place) -> list[str]:
        path = place.folder / f"nginx-{place.port}.conf"
        path.write_text(NGINX.format(folder=place.folder, port=place.port, to=place.to))
        return [program("nginx"), "-c", str(path)]

    return command


def reverse() -> Peer:
    """A llama reverse proxy with three layers, and no access log."""

    def command(place: Place) -> list[str]:
        return server("reverse", f"127.0.0.1:{place.port}", f"http://127.0.0.1:{place.to}")(place)

    return command


def llama_reverse(place: Place) -> list[str]:
    """`llama reverse`, with its default timeouts."""
    return llama("reverse", "--to", f"http://127.0.0.1:{place.to}")(place)


def llama(command: str, *arguments: str) -> Peer:
    """A command of llama's own."""

    def start(place: Place) -> list[str]:
        return [sys.executable, "-m", "llama", command, "--listen", f"127.0.0.1:{place.port}", *arguments]

    return start


def llama_asgi(place: Place) -> list[str]:
    """The application in a stack of ours."""
    return server("asgi", f"127.0.0.1:{place.port}")(place)


def mitmproxy(place: Place) -> list[str]:
    """mitmproxy as a reverse proxy; it prints no flows."""
    mode = ["--mode", f"reverse:http://127.0.0.1:{place.to}"]
    listen = ["--listen-host", "127.0.0.1", "--listen-port", str(place.port)]
    return [program("mitmdump"), "-q", *mode, *listen, "--set", f"confdir={place.folder}"]


def proxy_py(place: Place) -> list[str]:
    """proxy.py with one worker."""
    workers = ["--num-acceptors", "1", "--num-workers", "1"]
    listen = ["--hostname", "127.0.0.1", "--port", str(place.port)]
    return [program("proxy"), *listen, *workers, "--log-level", "ERROR", "--data-dir", str(place.folder)]


def uvicorn(*, loop: str) -> Peer:
    """uvicorn with httptools on a loop; it logs no requests."""

    def start(place: Place) -> list[str]:
        needed = ["httptools", "uvloop"] if loop == "uvloop" else ["httptools"]
        quiet = ["--no-access-log", "--log-level", "warning"]
        return [
            *[*module("uvicorn", *needed), APP, "--host", "127.0.0.1", "--port", str(place.port)],
            *["--http", "httptools", "--loop", loop, *quiet],
        ]

    return start


def granian(place: Place) -> list[str]:
    """granian with one worker; its loop is uvloop where that is installed."""
    command = module("granian")
    loop = "uvloop" if can_import(command[0], "uvloop") else "asyncio"
    listen = ["--host", "127.0.0.1", "--port", str(place.port)]
    how = ["--interface", "asgi", "--workers", "1", "--loop", loop, "--no-access-log", "--log-level", "error"]
    return [*command, *listen, *how, APP]
