"""The command `llama mitm`."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

import click

from llama import Server, http, run
from llama._cli import _build, _logs, _mitm_build, _mitm_options
from llama._cli._access import log_relays
from llama._cli._ending import ending
from llama._cli._mitm_build import Hook, Shown
from llama._cli._mitm_options import Chosen
from llama._cli._mitm_watch import tell_log
from llama._cli._options import Given

log = logging.getLogger("llama.mitm")
DEFAULT_LISTEN = "127.0.0.1:8080"


@click.command("mitm", epilog="A TIME is 10, 10s, 500ms, 5m, 1h or off. A SIZE is 4096, 64K, 10M or 1G.")
@_mitm_options.options
def mitm_command(**options: object) -> None:
    """Look into connections, with the consent of whoever makes them: HTTP, HTTPS and WebSockets.

    \b
    llama mitm --listen 127.0.0.1:8080 --har out.har
    llama mitm --mode socks5 --listen 1080 --pass '*.bank.example' --access-log json
    llama mitm --mode forward --to api.example:443 --listen 8443 --map-remote https://api.example/=http://localhost:8000/

    Clients have to trust the certificate of the authority in --ca: http://llama.internal/ serves it through the
    proxy, and says how that is done. Rules: --block before --pass before --intercept.
    """
    with ending():
        given, chosen = _mitm_options.split(options)
        _logs.set_up()
        given = replace(given, listen=given.listen or (DEFAULT_LISTEN,))
        listen(given, chosen)


def listen(given: Given, chosen: Chosen) -> None:
    """Serve until a signal ends it."""
    folder = _mitm_build.authority_folder(chosen)
    layers = _mitm_build.hooks(chosen)
    shown = lines(chosen)

    def build() -> Sequence[Server]:
        ca = _mitm_build.authority(folder)
        return _build.servers(given, _mitm_build.handler(given, chosen, ca, layers, shown))

    def ready(_: tuple[str, ...]) -> None:
        log.info(
            "clients have to trust %s, which http://llama.internal/ serves through this proxy",
            folder.resolve() / "ca.pem",
        )

    run(build, grace=given.grace, on_ready=ready)


def lines(chosen: Chosen) -> Shown:
    """The access log, in its format."""
    match chosen.lines:
        case "off":
            return Shown((), None)
        case None | "short":
            return Shown.to(tell_log)
        case format:
            told: Hook = http.access_log(format, whole_urls=True)
            return Shown((told,), log_relays(format, "PASS"))
