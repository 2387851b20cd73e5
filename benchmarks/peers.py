"""The proxies that are compared: each peer turns a place into the command that starts it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.processes import ROOT


@dataclass(frozen=True, slots=True)
class Place:
    """Where a peer shall listen, what it shall reach, and what it may use."""

    port: int
    to: int
    cert: Path
    key: Path
    both: Path
    folder: Path


Peer = Callable[[Place], list[str]]

HAPROXY = """\
global
    nbthread 1
    maxconn {connections}
    maxpipes 100
    no strict-limits
defaults
    mode {mode}
    timeout connect 5s
    timeout client 300s
    timeout server 300s
    {defaults}
listen bench
    bind 127.0.0.1:{port} backlog 4096 {tls}
    {service}
"""

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


def nginx() -> Peer:
    """nginx as a reverse proxy: one worker, connections to the origin kept, the fields that ours adds."""

    def command(place: Place) -> list[str]:
        path = place.folder / f"nginx-{place.port}.conf"
        path.write_text(NGINX.format(folder=place.folder, port=place.port, to=place.to))
        return ["nginx", "-c", str(path)]

    return command


def haproxy(*, tls: bool = False, splice: bool = False, leaf: bool = False, connections: int = 9500) -> Peer:
    """HAProxy with one thread, `mode tcp`; `leaf` answers HTTP itself, without an origin."""

    def command(place: Place) -> list[str]:
        service = 'http-request return status 200 content-type text/plain string "hello"'
        configuration = HAPROXY.format(
            connections=connections,
            mode="http" if leaf else "tcp",
            defaults="option splice-auto" if splice else "",
            port=place.port,
            tls=f"ssl crt {place.both}" if tls else "",
            service=service if leaf else f"server origin 127.0.0.1:{place.to}",
        )
        path = place.folder / f"haproxy-{place.port}.cfg"
        path.write_text(configuration)
        return ["haproxy", "-f", str(path)]

    return command


def forward(*, tls: bool = False) -> Peer:
    """The program itself: `pango serve`, with a certificate or plain."""

    def command(place: Place) -> list[str]:
        ends = ["--listen", f"127.0.0.1:{place.port}", "--to", f"127.0.0.1:{place.to}"]
        keys = ["--cert", str(place.cert), "--key", str(place.key)] if tls else ["--plain"]
        return [sys.executable, "-m", "pango", "serve", *ends, *keys]

    return command


def leaf(*, tls: bool = False) -> Peer:
    """A llama server that answers itself: an echo handler."""

    def command(place: Place) -> list[str]:
        keys = [str(place.cert), str(place.key)] if tls else []
        return server("leaf", f"127.0.0.1:{place.port}", *keys)(place)

    return command


def reverse() -> Peer:
    """A llama reverse proxy with three layers, and no access log."""

    def command(place: Place) -> list[str]:
        return server("reverse", f"127.0.0.1:{place.port}", f"http://127.0.0.1:{place.to}")(place)

    return command


def server(name: str, *arguments: str) -> Peer:
    """A program of benchmarks/servers."""

    def command(place: Place) -> list[str]:
        return [sys.executable, str(ROOT / "benchmarks" / "servers" / f"{name}.py"), *arguments]

    return command
