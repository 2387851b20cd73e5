"""What `--check` says of settings that are right."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from llama import Server, describe
from pango._certificate_info import CertificateInfo
from pango._parse import SECURE, spell_seconds
from pango._settings import Settings


def report(settings: Settings, servers: Sequence[Server], certificates: Sequence[CertificateInfo]) -> str:
    """The stack, addresses, certificates and limits, one a line."""
    lines = [("stack", describe(servers[0].service)), *_places(settings)]
    lines += [("certificate", str(each)) for each in certificates]
    lines += _limits(settings)
    return "\n".join(f"{name:<12} {text}" for name, text in lines)


def _places(settings: Settings) -> Iterator[tuple[str, str]]:
    for each in settings.listen:
        how = " (every address)" if each.startswith(":") else ""
        yield "listen", f"{each}{how}{', HTTP/3 too' if settings.http3 else ''}"
    for each in settings.to:
        how = ""
        if each.startswith(SECURE):
            ca = settings.to_ca or "the system's authorities"
            how = " (NOT VERIFIED)" if settings.to_insecure else f" (verified by {ca})"
        yield "to", each + how
    if settings.keylog is not None:
        yield "key log", f"{settings.keylog} (DECRYPTS ALL TRAFFIC)"
    if settings.client_ca is not None:
        yield "clients", f"need a certificate from {settings.client_ca}"
    if settings.forwarded_from:
        header = "Forwarded" if settings.forwarded_header == "forwarded" else "X-Forwarded-*"
        yield "clients", f"by {header} of proxies in {', '.join(settings.forwarded_from)}"
    if settings.proxy_protocol_from:
        yield "clients", f"PROXY header expected from {', '.join(settings.proxy_protocol_from)}"


def _limits(settings: Settings) -> Iterator[tuple[str, str]]:
    times = {"connect": settings.connect_timeout, "idle": settings.idle_timeout, "grace": settings.grace}
    if settings.is_http:
        times = {"connect": settings.connect_timeout, "answer": settings.response_header_timeout, **times}
    if not settings.plain or settings.is_http:
        times = {"handshake": settings.handshake_timeout, **times}
    yield "timeouts", ", ".join(f"{name} {spell_seconds(value)}" for name, value in times.items())
    limit = f"{settings.max_connections} connections each" if settings.max_connections else "no limit"
    yield "workers", f"{settings.workers or 'this process alone'}, {limit}"
