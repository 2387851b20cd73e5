"""Caddy, which speaks HTTP/3 by quic-go, in front of some files and of an application."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.http.peers import CLEAN, started
from tests.pango.process import free_port
from tests.socks5.programs import installed
from tests.tls.sessions import pair_files

FILE = """
{{
  admin off
  auto_https disable_redirects
  servers {{
    protocols h1 h2 h3
    strict_sni_host insecure_off
  }}
}}
https://localhost:{port} {{
  bind 127.0.0.1
  tls {cert} {key} {{
    {client_auth}
  }}
  handle /echo* {{
    respond "{{http.request.proto}} {{http.request.method}} {{http.request.body}}"
  }}
  handle /app* {{
    reverse_proxy {app}
  }}
  handle {{
    root * {folder}
    file_server
  }}
}}
"""


@asynccontextmanager
async def caddy(
    folder: Path, port: int = 0, app: str = "127.0.0.1:1", client_ca: str | None = None
) -> AsyncGenerator[int]:
    """The port at which Caddy serves the files of a folder, what it was sent at /echo and an application at /app.

    With `client_ca` it requires client certificates.
    """
    port = port or free_port()
    cert, key = pair_files("localhost")
    client_auth = ""
    if client_ca is not None:
        client_auth = f"client_auth {{\n mode require_and_verify\n trusted_ca_cert_file {client_ca}\n }}"
    settings = folder / "Caddyfile"
    settings.write_text(
        FILE.format(port=port, cert=cert, key=key, folder=folder, app=app, client_auth=client_auth)
    )
    process = await asyncio.create_subprocess_exec(
        installed("caddy"), "run", "--adapter", "caddyfile", "--config", str(settings),
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
        env={**CLEAN, "HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)},
    )  # fmt: skip
    async with started(process, process.stderr, b"serving initial configuration"):
        yield port
