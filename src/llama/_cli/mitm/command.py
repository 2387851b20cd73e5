"""The command `llama mitm`."""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import click

from llama import ConfigError, Server, http, run, serve
from llama._cli import logs, stacks
from llama._cli.access_log import log_relays
from llama._cli.common_options import CommonOptions
from llama._cli.exit_codes import exit_on_errors
from llama._cli.mitm import build as mitm_build
from llama._cli.mitm import options as mitm_options
from llama._cli.mitm.background_tasks import BackgroundTasks
from llama._cli.mitm.build import Hook
from llama._cli.mitm.flow_summary import FlowTable, log_flow
from llama._cli.mitm.observers import Observers
from llama._cli.mitm.options import MitmOptions
from llama._cli.mitm.proxy_env import TrustBundle, environment, proxy_url
from llama._cli.mitm.subprocess import Child
from llama._runtime.gc_tuning import tuned_gc
from llama._runtime.signals import signal_handlers
from llama.tcp._io.event_loop import new_event_loop

if TYPE_CHECKING:
    from llama._cli.mitm.console.app import Console

log = logging.getLogger("llama.mitm")
DEFAULT_LISTEN = "127.0.0.1:8080"


@click.command(
    "mitm",
    cls=mitm_options.Sectioned,
    context_settings={"allow_interspersed_args": False},
    epilog="A TIME is 10, 10s, 500ms, 5m, 1h or off. A SIZE is 4096, 64K, 10M or 1G.",
)
@mitm_options.options
@click.argument("command", nargs=-1, type=click.UNPROCESSED, metavar="[-- COMMAND ...]")
def mitm_command(command: tuple[str, ...], **options: object) -> None:
    """Intercept and inspect HTTP, HTTPS and WebSocket traffic.

    \b
    llama mitm --listen 127.0.0.1:8080 --har out.har
    llama mitm --mode socks5 --listen 1080 --passthrough '*.bank.example' --access-log json
    llama mitm --mode forward --to https://api.example --host-header upstream
    llama mitm --mode forward --to api.example:443 --listen 8443 --map-remote https://api.example/=http://localhost:8000/
    llama mitm --har out.har -- pytest -q

    Clients must trust the CA certificate in --ca: http://llama.internal/ serves it through the proxy, with
    instructions for installing it. Runs COMMAND with environment variables that point it at the proxy and its
    CA; when COMMAND ends, the proxy lists its exchanges and exits with its exit code.

    Precedence of rules: --block, then --passthrough, then --intercept.
    """
    with exit_on_errors():
        given, chosen = mitm_options.split(options)
        logs.set_up(instead_of=bool(command))
        if command:
            sys.exit(run_with_command(given, chosen, command))
        listen(replace(given, listen=given.listen or (DEFAULT_LISTEN,)), chosen)


def listen(given: CommonOptions, chosen: MitmOptions) -> None:
    """Serve until a signal ends it."""
    folder = mitm_build.authority_folder(chosen)
    hooks = mitm_build.hooks(given, chosen)
    watch = console_or_log(chosen)

    def build() -> Sequence[Server]:
        ca = mitm_build.authority(folder)
        return mitm_build.servers(given, chosen, ca, hooks, watch)

    def ready(_: tuple[str, ...]) -> None:
        log.info(
            "clients have to trust %s, which http://llama.internal/ serves through this proxy",
            folder.resolve() / "ca.pem",
        )

    run(build, grace=given.grace, on_ready=ready)


def console_or_log(chosen: MitmOptions) -> Observers:
    """The console where it can be, or a line for each exchange."""
    wanted = chosen.console
    if wanted is None and chosen.lines is not None:  # who asks for lines wants to read them
        return log_lines(chosen.lines)
    if wanted is not False:
        console = _console(wanted is True)
        if console is not None:
            return (
                Observers((BackgroundTasks(console.show),)) + console.watch + log_lines(chosen.lines or "off")
            )
    return log_lines(chosen.lines or "short")


def _console(wanted: bool) -> Console | None:
    """The console view; None where there is no terminal for it, ConfigError where it was asked for."""
    if importlib.util.find_spec("rich") is None:
        if wanted:
            raise ConfigError("--console: it needs the extra inspect: pip install 'proxy-llama[inspect]'")
        return None
    from llama._cli.mitm.console.app import Console

    console = Console()
    if console.usable:
        return console
    if wanted:
        raise ConfigError("--console: standard output is no terminal on which it can be shown")
    return None


def log_lines(format: mitm_options.Lines) -> Observers:
    """The access log, in its format."""
    match format:
        case "off":
            return Observers()
        case "short":
            return Observers.to(log_flow)
        case format:
            told: Hook = http.access_log(format, whole_urls=True)
            return Observers((told,), (log_relays(format, "PASS"),))


def run_with_command(given: CommonOptions, chosen: MitmOptions, command: Sequence[str]) -> int:
    """Serve a command until it ends: its exit code."""
    if chosen.mode not in ("http", "socks5"):
        raise ConfigError(
            f"--mode {chosen.mode}: a command is told of an HTTP or a SOCKS5 proxy: expected one"
        )
    if chosen.console:
        raise ConfigError("--console: the terminal is the command's")
    given = replace(given, listen=given.listen or ("127.0.0.1:0",))
    ca = mitm_build.authority_of_a_command(chosen)
    table = FlowTable(chosen.summary)
    watch = Observers.to(table) + log_lines(chosen.lines or "off")
    if chosen.summary:  # the table has what the server warns of
        logging.getLogger("llama.server").setLevel("ERROR")
    servers = mitm_build.servers(given, chosen, ca, mitm_build.hooks(given, chosen), watch)
    trusted = TrustBundle(ca.pem, chosen.upstream_ca)
    child = Child(command, _say)

    async def main() -> int:
        with signal_handlers(child.callbacks()):
            async with serve(*servers, grace=given.grace) as serving:
                proxy = _url(given, chosen, serving.address)
                with TemporaryDirectory(prefix="llama-mitm-") as folder:
                    return await child.run(environment(os.environ, proxy, trusted, Path(folder)))

    with tuned_gc(), asyncio.Runner(loop_factory=new_event_loop) as runner:
        code = runner.run(main())
    if chosen.summary and child.has_begun:
        for line in table.lines(_width()):
            _say(line)
    return code


def _url(given: CommonOptions, chosen: MitmOptions, address: str) -> str:
    scheme = "socks5h" if chosen.mode == "socks5" else "https" if given.cert else "http"
    return proxy_url(address, scheme, next(iter(stacks.users(given).items()), None))


def _width() -> int:
    return shutil.get_terminal_size().columns if sys.stderr.isatty() else 200


def _say(line: str) -> None:
    click.echo(f"llama: {line}", err=True)
