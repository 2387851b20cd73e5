"""The small web service behind `pango demo`: it says what it was asked, and over which TLS."""

from __future__ import annotations

import html
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, TypeAlias, cast

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]

TLS_HEADERS = ("x-tls-version", "x-tls-cipher")

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Hello from pango</title>
<style>
  :root {{ color-scheme: light dark; font: 1.1rem/1.6 system-ui, sans-serif }}
  body {{ max-width: 40rem; margin: 12vh auto; padding: 0 1.5rem }}
  dl {{ display: grid; grid-template-columns: max-content 1fr; gap: .4rem 1.5rem }}
  dt {{ opacity: .65 }}
  dd {{ margin: 0; font-family: ui-monospace, monospace; overflow-wrap: anywhere }}
</style>
<h1>Hello from pango</h1>
<p>This page came over TLS, terminated by pango in front of a small ASGI service.</p>
<dl>
{rows}
</dl>
</html>
"""


async def hello(scope: Message, receive: Receive, send: Send) -> None:
    """An ASGI application: a page for browsers, lines of text for everyone else."""
    if scope["type"] == "lifespan":
        await _live(receive, send)
        return
    if scope["type"] != "http":
        raise ValueError(f"no {scope['type']} here, only HTTP")
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in _headers(scope)}
    facts = _facts(scope, headers)
    if "text/html" in headers.get("accept", ""):
        await _answer(send, "text/html", _page(facts))
    else:
        await _answer(send, "text/plain", _text(facts))


async def _live(receive: Receive, send: Send) -> None:
    for stage in ("startup", "shutdown"):
        await receive()
        await send({"type": f"lifespan.{stage}.complete"})


def _headers(scope: Message) -> Iterable[tuple[bytes, bytes]]:
    return cast("Iterable[tuple[bytes, bytes]]", scope["headers"])


def _facts(scope: Message, headers: dict[str, str]) -> list[tuple[str, str]]:
    version, cipher = (headers.get(name, "unknown") for name in TLS_HEADERS)
    query = f"?{scope['query_string'].decode('latin-1')}" if scope.get("query_string") else ""
    client = scope.get("client")
    return [
        ("TLS", f"{version}, {cipher}"),
        ("request", f"{scope['method']} {scope['path']}{query}"),
        ("HTTP", str(scope["http_version"])),
        ("host", headers.get("host", "")),
        ("client", f"{client[0]} port {client[1]}" if client else "unknown"),
    ]


def _text(facts: Iterable[tuple[str, str]]) -> str:
    return "Hello from pango.\n\n" + "".join(f"  {name:<8} {value}\n" for name, value in facts)


def _page(facts: Iterable[tuple[str, str]]) -> str:
    rows = "\n".join(f"  <dt>{name}<dd>{html.escape(value)}" for name, value in facts)
    return _PAGE.format(rows=rows)


async def _answer(send: Send, kind: str, text: str) -> None:
    body = text.encode()
    headers = [
        (b"content-type", f"{kind}; charset=utf-8".encode()),
        (b"content-length", str(len(body)).encode()),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
